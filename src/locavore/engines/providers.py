"""Cloud APIs as rows of data, and which of them the environment holds a key for.

No list of models is fetched: any name after `provider/` reaches the provider, which knows best.
"""

import ipaddress
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from locavore.core.backend import Backend, Capability, Place, place_of_host


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one provider, with its source and the day it was read."""

    name: str
    title: str
    base_url: str
    key_variables: tuple[str, ...]
    base_url_variable: str | None = None
    dialect: Literal["openai", "anthropic"] = "openai"
    jurisdiction: str | None = None
    capabilities: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    quirks: frozenset[str] = frozenset()
    default_model: str | None = None
    """What savings and quality are measured against when nobody names a baseline."""
    source: str
    as_of: str


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that can be called now. `api_key` never shows in a representation."""

    name: str
    base_url: str
    dialect: str
    place: Place
    jurisdiction: str | None
    capabilities: frozenset[str]
    lacks: frozenset[str]
    quirks: frozenset[str]
    default_model: str | None
    key_variable: str | None
    """Where the key is from; None: a server that needs none."""
    api_key: str | None

    def __repr__(self) -> str:
        return f"Provider(name={self.name!r}, base_url={self.base_url!r}, key={self.key_variable})"


@cache
def rows() -> dict[str, Row]:
    """All known providers by name."""
    text = (resources.files("locavore.engines") / "data" / "providers.toml").read_text("utf-8")
    known = msgspec.convert(tomllib.loads(text)["provider"], list[Row])
    return {row.name: row for row in known}


def from_environment(
    env: Mapping[str, str], *, own_port: int | None = None
) -> tuple[list[Provider], list[str]]:
    """(providers with a key or a base URL in `env`, messages on what was ignored and why).

    `own_port` is the port we listen on: a base URL that leads back to us would loop.
    """
    found: list[Provider] = []
    messages: list[str] = []
    for row in rows().values():
        provider = _provider(row, env)
        if provider is None:
            continue
        if own_port is not None and is_own(provider.base_url, own_port):
            messages.append(
                f"{row.base_url_variable} is {provider.base_url!r}, which is this gateway; "
                f"{row.name} is not used. Unset it here, or point it at the provider"
            )
            continue
        found.append(provider)
    return found, messages


def backend_for(provider: Provider, model: str) -> Backend:
    """The backend for any model of a provider; what depends on the model stays unknown."""
    embeds = "embed" in model.lower()
    capabilities = frozenset({Capability.EMBEDDINGS.value}) if embeds else provider.capabilities
    return Backend(
        id=f"{provider.name}/{model}",
        provider=provider.name,
        model=model,
        url=provider.base_url,
        dialect=provider.dialect,
        place=provider.place,
        jurisdiction=provider.jurisdiction,
        capabilities=capabilities,
        lacks=frozenset({Capability.CHAT.value}) if embeds else provider.lacks,
        quirks=provider.quirks,
    )


def is_own(url: str, port: int) -> bool:
    """Whether `url` leads to a listener of this machine at `port`."""
    parts = urlsplit(url)
    try:
        at = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return False
    return at == port and is_loopback(parts.hostname or "")


def is_loopback(host: str) -> bool:
    """A name or address that never leaves this machine."""
    if host in ("localhost", "") or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def place_of(url: str) -> Place:
    """Where a URL leads; a name that may be anybody's counts as farthest away."""
    host = urlsplit(url).hostname or ""
    if is_loopback(host):
        return Place.ON_PREM
    return place_of_host(host)


def _provider(row: Row, env: Mapping[str, str]) -> Provider | None:
    variable = next((name for name in row.key_variables if env.get(name, "").strip()), None)
    asked = env.get(row.base_url_variable or "", "").strip().rstrip("/")
    elsewhere = bool(asked) and asked != row.base_url
    if variable is None and not elsewhere:
        return None
    url = _without_version(asked, row) if elsewhere else row.base_url
    return Provider(
        name=row.name,
        base_url=url,
        dialect=row.dialect,
        place=place_of(url),
        # Another server speaks the dialect; what it can do and where it stands is its own matter.
        jurisdiction=None if elsewhere else row.jurisdiction,
        capabilities=frozenset({Capability.CHAT.value}) if elsewhere else row.capabilities,
        lacks=frozenset() if elsewhere else row.lacks,
        quirks=frozenset() if elsewhere else row.quirks,
        default_model=None if elsewhere else row.default_model,
        key_variable=variable,
        api_key=env[variable].strip() if variable else None,
    )


def _without_version(url: str, row: Row) -> str:
    """Anthropic's clients add `/v1` themselves, OpenAI's do not; people write both."""
    return url.removesuffix("/v1") if row.dialect == "anthropic" else url
