"""Which conversation a call continues, and where that was served before.

A client sends the whole conversation with every turn. What was sent last time is therefore the
beginning of what is sent now: everything before the last answer. A digest of that finds the place
again, without any session and without keeping a word. A client that names a session is believed,
because it may shorten its history.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b

from locavore.core.ports import Home, Homes
from locavore.core.request import Request, Turn
from locavore.routing.asks import Asks, asks_of

_SAMPLE_CHARS = 48
"""Of each message its length, start and end go into the digest: 30 KB need not be hashed."""


@lru_cache(maxsize=1024)
def mark_of(backend_id: str) -> int:
    return int.from_bytes(blake2b(backend_id.encode(), digest_size=8).digest(), "little")


class Talk:
    """A call's conversation, read at most once and only when deciding needs it."""

    __slots__ = ("_found", "_homes", "_request", "_turns", "key")

    def __init__(
        self,
        request: Request,
        turns: Callable[[bytes], Sequence[Turn]],
        homes: Homes | None = None,
    ) -> None:
        self._request = request
        self._turns = turns
        self._homes = homes
        self._found: tuple[Asks, Home | None, float] | None = None
        self.key: bytes | None = None
        """Under which the next turn will look for this one; None: not read, or nobody remembers."""

    def read(self) -> tuple[Asks, Home | None, float]:
        """(what is asked, where it was served before, share of the prompt that was sent then).

        Raises RequestError for a body that is not its format's.
        """
        if self._found is None:
            self._found = self._look()
        return self._found

    def _look(self) -> tuple[Asks, Home | None, float]:
        request, homes = self._request, self._homes
        turns = self._turns(request.body)
        asks = asks_of(turns)
        if homes is None:
            return asks, None, 0.0
        known = answered(turns)
        owner = f"{request.key_name or ''}\n{request.session or ''}\n"
        start = homes.secret + owner.encode("utf-8", "replace")
        before = b""
        if request.session is not None:
            self.key = blake2b(start, digest_size=16).digest()
        elif not known:
            self.key = blake2b(start + _told(turns), digest_size=16).digest()
        else:
            digest = blake2b(start + _told(turns[:known]), digest_size=16)
            before = digest.digest()
            digest.update(_told(turns[known:]))
            self.key = digest.digest()
        home = homes.get(before or self.key) if known else None
        if home is None:
            return asks, None, 0.0
        new_chars = sum([len(turn.text) for turn in turns[known:]])
        return asks, home, max(0.0, 1 - new_chars / max(1, request.prompt_bytes))

    def served(self, backend_id: str) -> None:
        """Remember where the conversation is now."""
        if self._homes is not None and self.key is not None:
            self._homes.put(self.key, mark_of(backend_id))


def _told(turns: Sequence[Turn]) -> bytes:
    """What of each turn goes into a digest: its length tells where it ends."""
    parts = []
    for turn in turns:
        text = turn.text
        if len(text) > 2 * _SAMPLE_CHARS:
            sample = text[:_SAMPLE_CHARS] + text[-_SAMPLE_CHARS:]
            parts.append(f"{turn.role}{len(text)}\n{sample}\n")
        else:
            parts.append(f"{turn.role}{len(text)}\n{text}\n")
    return "".join(parts).encode("utf-8", "replace")


def said(request: Request, words: str) -> Talk:
    """A conversation of one message."""
    return Talk(request, lambda _: [Turn("user", words)])


def answered(turns: Sequence[Turn]) -> int:
    """How many turns precede the last answer; 0: nothing was answered yet.

    An assistant's words at the end are the beginning of an answer that the client wants continued.
    """
    at = len(turns)
    while at and turns[at - 1].role == "assistant":
        at -= 1
    while at and turns[at - 1].role != "assistant":
        at -= 1
    while at and turns[at - 1].role == "assistant":
        at -= 1
    return at
