"""`/admin/keys`: keys made, listed, rotated and revoked over HTTP, by a key for administration.

What a caller may do here is bounded by its own grant (C103): it makes, sees, rotates and revokes
only keys that allow nothing more than its own. The store is opened per request, off the loop.
"""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from locavore.core.access import Grant, Period, Quota, Unit
from locavore.core.backend import Place
from locavore.core.errors import RequestError, Unauthorized
from locavore.wire.decoding import decode_request

if TYPE_CHECKING:
    from locavore.ledger.keys import KeyLine, KeyStore

T = TypeVar("T")
MAX_BYTES = 64 << 10
_HEADERS = {"content-type": "application/json", "cache-control": "no-store"}

Text = Annotated[str, Meta(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]
Model = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
PlaceName = Literal["embedded", "on_prem", "private_cloud", "public_api"]
Moment = Annotated[float, Meta(gt=0, lt=253_402_300_800, description="Unix time")]
Grace = Annotated[float, Meta(ge=0, le=31_536_000, description="seconds")]


class NewLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of one unit the key may use per period."""

    unit: Unit
    limit: Decimal
    period: Period = "month"
    zone: Text = "UTC"
    hard: bool = True


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new key allows. What is left out or null is as in the key that asks."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    tenant: Text | None = None
    team: Text | None = None
    admin: bool = False
    models: Annotated[list[Model], Meta(max_length=256)] | None = None
    farthest: PlaceName | None = None
    labels: Annotated[list[Text], Meta(max_length=64)] | None = None
    expires_s: Moment | None = None
    limits: Annotated[list[NewLimit], Meta(max_length=32)] = []


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the old secret keeps working."""

    grace_s: Grace = 0.0


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that binds a key: its own, or one of the keys it was made with."""

    key: str
    unit: Unit
    limit: Decimal
    period: Period
    zone: str
    hard: bool


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its secret."""

    name: str
    state: Literal["active", "expired", "revoked"]
    hint: str
    created_s: float
    minted_by: str | None
    tenant: str
    team: str
    admin: bool
    models: list[str]
    farthest: PlaceName | None
    labels: list[str]
    expires_s: float | None
    limits: list[Limit]


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """All keys that the caller may change."""

    object: Literal["list"] = "list"
    data: list[Key]


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret, shown this once."""

    name: str
    key: str


class AdminKeys:
    """The endpoints. `caller` gives the grant of a request and raises Unauthorized."""

    def __init__(
        self,
        store: "Callable[[], KeyStore]",
        caller: Callable[[HttpRequest], Grant | None],
    ) -> None:
        self._store = store
        self._caller = caller

    def _admin(self, http: HttpRequest) -> Grant:
        grant = self._caller(http)
        if grant is None or not grant.admin:
            who = "no key" if grant is None else f"the key {grant.name!r}"
            raise Unauthorized(
                f"{who} administers nothing; make one with `locavore keys create NAME --admin`",
                status=403,
                code="admin_key_required",
            )
        return grant

    async def _ask(self, question: "Callable[[KeyStore], T]") -> T:
        """Open the store, ask and close, on another thread: it may wait for a disk or a server."""

        def asked() -> T:
            store = self._store()
            try:
                return question(store)
            finally:
                store.close()

        return await asyncio.to_thread(asked)

    async def list(self, http: HttpRequest) -> Response:
        by = self._admin(http)
        lines = await self._ask(lambda store: store.list(by=by))
        return _answer(KeyList(data=[_shown(line) for line in lines]))

    async def create(self, http: HttpRequest) -> Response:
        by = self._admin(http)
        grant = _grant(await _read(http, _NEW_KEY), by)
        secret = await self._ask(lambda store: store.create(grant, minter=by))
        return _answer(Secret(name=grant.name, key=secret), 201)

    async def rotate(self, http: HttpRequest) -> Response:
        by, name = self._admin(http), http.path_params["name"]
        grace_s = (await _read(http, _ROTATION)).grace_s
        secret = await self._ask(lambda store: store.rotate(name, grace_s=grace_s, by=by))
        return _answer(Secret(name=name, key=secret))

    async def revoke(self, http: HttpRequest) -> Response:
        by, name = self._admin(http), http.path_params["name"]
        await self._ask(lambda store: store.revoke(name, by=by))
        return Response(status_code=204)


_NEW_KEY = msgspec.json.Decoder(NewKey)
_ROTATION = msgspec.json.Decoder(Rotation)


async def _read(http: HttpRequest, decoder: "msgspec.json.Decoder[T]") -> T:
    """The body; an empty one is an empty object."""
    body = b""
    async for chunk in http.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise RequestError(f"the body is over {MAX_BYTES} bytes", status=413)
    return decode_request(decoder, body or b"{}")


def _grant(new: NewKey, by: Grant) -> Grant:
    limits = tuple(
        Quota(
            scope="key",
            name=new.name,
            unit=limit.unit,
            limit=limit.limit,
            period=limit.period,
            zone=limit.zone,
            hard=limit.hard,
        )
        for limit in new.limits
    )
    return Grant(
        name=new.name,
        tenant=by.tenant if new.tenant is None else new.tenant,
        team=by.team if new.team is None else new.team,
        admin=new.admin,
        models=by.models if new.models is None else tuple(new.models),
        farthest=by.farthest if new.farthest is None else Place[new.farthest.upper()],
        labels=by.labels if new.labels is None else frozenset(new.labels),
        expires_s=by.expires_s if new.expires_s is None else new.expires_s,
        quotas=limits,
    )


def _shown(line: "KeyLine") -> Key:
    grant = line.grant
    fields: dict[str, Any] = {
        "farthest": None if grant.farthest is None else grant.farthest.label,
        "state": line.state,
    }
    return Key(
        name=grant.name,
        hint=line.hint,
        created_s=line.created_s,
        minted_by=line.minted_by,
        tenant=grant.tenant,
        team=grant.team,
        admin=grant.admin,
        models=list(grant.models),
        labels=sorted(grant.labels),
        expires_s=grant.expires_s,
        limits=[_limit(quota) for quota in grant.quotas],
        **fields,
    )


def _limit(quota: Quota) -> Limit:
    return Limit(
        key=quota.name,
        unit=quota.unit,
        limit=quota.limit,
        period=quota.period,
        zone=quota.zone,
        hard=quota.hard,
    )


def _answer(body: msgspec.Struct, status: int = 200) -> Response:
    """Secrets pass here, so nothing on the way may keep the answer."""
    return Response(msgspec.json.encode(body), status, _HEADERS)
