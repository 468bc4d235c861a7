"""Local servers found on loopback at their usual ports, from metadata only."""

import asyncio
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from urllib.parse import urlsplit

import msgspec

from locavore.core.backend import Backend, Capability, Place
from locavore.core.money import FREE
from locavore.engines.providers import is_loopback, is_own, place_of
from locavore.engines.servers import READERS, Served, getter

TIMEOUT_S = 0.5
"""For one metadata answer; a closed port on loopback refuses at once."""


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of local server."""

    name: str
    ports: tuple[int, ...]
    address_variable: str | None = None
    """Environment variable in which its own clients look for it."""
    capabilities: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    quirks: frozenset[str] = frozenset()
    source: str


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and what people should know about it."""

    backends: tuple[Backend, ...] = ()
    messages: tuple[str, ...] = ()


@cache
def rows() -> dict[str, Row]:
    """All known kinds of local server."""
    text = (resources.files("locavore.engines") / "data" / "servers.toml").read_text("utf-8")
    known = msgspec.convert(tomllib.loads(text)["server"], list[Row])
    return {row.name: row for row in known}


async def discover(
    env: Mapping[str, str],
    *,
    own_port: int | None = None,
    ports: Mapping[str, tuple[int, ...]] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Discovery:
    """Look at every usual port at once; `ports` replaces a kind's own (for tests and settings).

    Reads loopback only: an address variable that leads elsewhere is reported, not followed.
    """
    messages: list[str] = []
    tasks = []
    for row in rows().values():
        own = tuple((ports or {}).get(row.name, row.ports if ports is None else ()))
        for url in _addresses(row, own, env, messages):
            if own_port is not None and is_own(url, own_port):
                continue
            tasks.append(_asked(row, url, env, timeout_s))
    found = await asyncio.gather(*tasks)
    backends: dict[str, Backend] = {}
    for discovery in found:
        messages += discovery.messages
        for backend in discovery.backends:
            _add(backends, backend)
    return Discovery(backends=tuple(backends.values()), messages=tuple(messages))


async def identify(
    url: str, env: Mapping[str, str], *, key: str | None = None, timeout_s: float = 5.0
) -> Discovery:
    """What serves at a configured base URL (any host), if it is a kind we know."""
    base = url.rstrip("/").removesuffix("/v1")
    looks = (_asked(row, base, env, timeout_s, key=key) for row in rows().values())
    for discovery in await asyncio.gather(*looks):
        if discovery.backends:
            return discovery
    return Discovery(messages=(f"{url}: no known server answered with its metadata",))


async def _asked(
    row: Row, url: str, env: Mapping[str, str], timeout_s: float, *, key: str | None = None
) -> Discovery:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    get = getter(url, headers=headers, timeout_s=timeout_s)
    configured = env.get("OLLAMA_CONTEXT_LENGTH", "")
    tokens = int(configured) if configured.isdigit() else None
    served = await READERS[row.name](get, tokens) or []
    notes = {model.note: model for model in served if model.note and not model.remote}
    messages = [f"{row.name}/{model.model} is {note}" for note, model in notes.items()]
    backends = [_backend(row, url, model) for model in served]
    return Discovery(backends=tuple(backends), messages=tuple(messages))


def _backend(row: Row, url: str, served: Served) -> Backend:
    can = row.capabilities | served.capabilities
    lacks = row.lacks | served.lacks
    if Capability.EMBEDDINGS in served.capabilities and Capability.CHAT in served.lacks:
        can = served.capabilities
    return Backend(
        id=f"{row.name}/{served.model}",
        provider=row.name,
        model=served.model,
        url=f"{url}/v1",
        dialect="openai",
        place=Place.PUBLIC_API if served.remote else place_of(url),
        context_tokens=served.context_tokens,
        capabilities=can - lacks,
        lacks=lacks - served.capabilities,
        price=None if served.remote else FREE,
        engine_build=served.build,
        quirks=row.quirks,
    )


def _add(backends: dict[str, Backend], backend: Backend) -> None:
    """Two servers may serve one model; the second is named with its port."""
    if backend.id in backends:
        port = urlsplit(backend.url).port
        backend = msgspec.structs.replace(backend, id=f"{backend.id}@{port}")
    backends.setdefault(backend.id, backend)


def _addresses(
    row: Row, ports: tuple[int, ...], env: Mapping[str, str], messages: list[str]
) -> list[str]:
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    told = env.get(row.address_variable or "", "").strip()
    if not told:
        return urls
    parts = urlsplit(told if "//" in told else f"http://{told}")
    try:
        port = parts.port or (row.ports[0] if "//" not in told else None) or 80
    except ValueError:
        messages.append(f"{row.address_variable} is {told!r}, which is no address; ignored")
        return urls
    if not is_loopback(parts.hostname or ""):
        messages.append(
            f"{row.address_variable} is {told!r}, another machine: not searched. "
            f'Add it as a [[backend]] with url = "http://{parts.hostname}:{port}/v1"'
        )
        return urls
    url = f"http://127.0.0.1:{port}"
    return urls if url in urls else [*urls, url]
