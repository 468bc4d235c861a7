"""`/v1/decisions/{id}/verdict` and `/shadow`: how good the answers were, said by who got them.

A caller judges its own calls and sees the other answer to its own calls; those of another key are
not found.
"""

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from locavore.core.access import Grant
from locavore.core.errors import RequestError
from locavore.gateway.keys import for_calls
from locavore.ledger import kept_answers
from locavore.ledger.kept_answers import KeptAnswer
from locavore.ledger.verdicts import Verdict, VerdictStore
from locavore.wire.decoding import decode_request

T = TypeVar("T")
MAX_BYTES = 4 << 10
_HEADERS = {"content-type": "application/json", "cache-control": "no-store"}
Score = Annotated[float, Meta(ge=0, le=1)]


class NewVerdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scores from 0 (useless) to 1 (as good as can be); one of them at least."""

    served: Score | None = None
    """Of the answer that the call got."""
    shadow: Score | None = None
    """Of the other model's answer, where the call was explored."""


_NEW = msgspec.json.Decoder(NewVerdict)


class Verdicts:
    """The endpoints, over the ledger of one home."""

    def __init__(
        self,
        home: Path,
        store: Callable[[], VerdictStore],
        grant: Callable[[HttpRequest], Grant | None],
    ) -> None:
        """`store` opens the verdicts; called on another thread, once per request."""
        self._home = home
        self._store = store
        self._grant = grant

    async def give(self, http: HttpRequest) -> Response:
        """Idempotent: the same verdict again changes nothing, another one is a 409."""
        new = decode_request(_NEW, await _body(http))
        verdict = Verdict(id=http.path_params["id"], served=new.served, shadow=new.shadow)
        key = self._key(http)
        kept = await self._in_store(lambda store: store.give(verdict, key=key))
        if kept.shadow is not None:  # its text has served its purpose
            await asyncio.to_thread(kept_answers.drop, self._home, [kept.id])
        return Response(msgspec.json.encode(kept), 200, _HEADERS)

    async def shadow(self, http: HttpRequest) -> Response:
        """The other model's answer, where policy keeps it."""
        id_, key = http.path_params["id"], self._key(http)
        explored = await self._in_store(lambda store: store.explored(id_, key=key))
        if explored is None:
            raise _no_shadow(f"call {id_!r} was not explored: no other model was asked")
        found = await asyncio.to_thread(kept_answers.find, self._home, id_)
        if found is None:
            raise _no_shadow(
                f"no other answer is kept for call {id_!r}: it has not come yet or could not be "
                "had, is judged already, its time is over, or explore.keep_answers_s or "
                "keep_labels does not let it be kept"
            )
        return Response(msgspec.json.encode(found), 200, _HEADERS)

    def _key(self, http: HttpRequest) -> str | None:
        grant = for_calls(self._grant(http))
        return grant.name if grant is not None else None

    async def _in_store(self, work: Callable[[VerdictStore], T]) -> T:
        def run() -> T:
            with closing(self._store()) as store:
                return work(store)

        return await asyncio.to_thread(run)


def _no_shadow(why: str) -> RequestError:
    return RequestError(why, status=404, code="no_shadow", param="id")


async def _body(http: HttpRequest) -> bytes:
    body = b""
    async for chunk in http.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise RequestError(f"a verdict of over {MAX_BYTES} bytes", status=413)
    return body


__all__ = ["KeptAnswer", "NewVerdict", "Verdict", "Verdicts"]
