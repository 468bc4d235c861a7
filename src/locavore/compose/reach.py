"""Whether the backends can be reached: asked of loopback, read of all others from the ledger."""

import asyncio
from collections.abc import Container, Iterable, Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec

from locavore.core.backend import Backend
from locavore.core.errors import Fault
from locavore.engines.providers import is_loopback
from locavore.ledger.database import Database

RECENT = 2000
"""Newest calls that are looked at."""
_CONNECT_S = 2.0
_TOLD = {
    Fault.AUTH: ("refused the key", "set another key where the gateway starts, and restart it"),
    Fault.BILLING: ("refused for want of credit", "see the account at the provider"),
    Fault.CONNECT: ("could not be reached", "see its address, and whether it runs"),
    Fault.CONNECT_TIMEOUT: ("could not be reached", "see its address, and whether it runs"),
}
"""Faults that stay until somebody mends them."""


class LastTry(msgspec.Struct, frozen=True):
    """The newest attempt at any model of a provider: key and address are the same for all."""

    provider: str
    backend: str
    fault: str | None
    status: int | None
    started_ms: int


def last_tries(db: Database) -> list[LastTry]:
    """Of each provider, among the last `RECENT` calls."""
    rows = db.execute(
        "SELECT provider, backend, fault, status, started_ms FROM attempts"
        " WHERE seq > (SELECT coalesce(max(seq), 0) FROM calls) - ? ORDER BY started_ms",
        (RECENT,),
    )
    return list({row[0]: LastTry(*row) for row in rows}.values())


def lasting(tries: Iterable[LastTry], providers: Container[str]) -> Iterator[tuple[str, str]]:
    """(what, what to do) for each of `providers` whose newest attempt met a fault that will not
    pass by itself."""
    for tried in sorted((t for t in tries if t.provider in providers), key=lambda t: t.provider):
        said, do = _TOLD.get(Fault(tried.fault), ("", "")) if tried.fault else ("", "")
        if said:
            at = datetime.fromtimestamp(tried.started_ms / 1000, UTC)
            status = f" (status {tried.status})" if tried.status else ""
            yield f"{tried.backend} {said}{status}, at {at:%Y-%m-%d %H:%M} UTC", do


async def closed(backends: Iterable[Backend]) -> list[Backend]:
    """Backends on loopback where nothing listens; nothing is sent to the others."""
    local = [b for b in backends if b.url and is_loopback(urlsplit(b.url).hostname or "")]
    answers = await asyncio.gather(*(_listens(b.url) for b in local))
    return [backend for backend, listens in zip(local, answers, strict=True) if not listens]


async def _listens(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return True
