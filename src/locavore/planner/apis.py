"""API alternatives: closed models and hosts of open models, priced from the public list."""

import functools
import re
from decimal import Decimal
from importlib import metadata

import msgspec

from locavore.catalog import match
from locavore.catalog.schema import Model
from locavore.core.errors import ConfigError
from locavore.core.money import Price, Rate
from locavore.ledger.prices import PriceBook
from locavore.planner.workload import Workload

CLOSED = (
    ("openai", "gpt-4.1"), ("openai", "gpt-4.1-mini"), ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"), ("openai", "gpt-5"), ("anthropic", "claude-sonnet-4-6"),
    ("anthropic", "claude-sonnet-4-20250514"), ("anthropic", "claude-haiku-4-5"),
    ("google", "gemini-2.5-pro"), ("google", "gemini-2.5-flash"),
)  # fmt: skip
"""Compared when the workload names no API."""
HOSTS = ("together", "groq", "fireworks", "deepseek", "novita", "cerebras", "openrouter")
"""Hosts of open models looked through for the same model, in this order."""
_VARIANT = re.compile(r"(?:[-_](?:turbo|lite|versatile|specdec|instant|fp8|tput|reference))+$")
MILLION = 1_000_000


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """One priced API."""

    name: str
    provider: str
    model: str
    kind: str
    """`closed` or `open`."""
    input_mtok: float
    output_mtok: float
    cache_read_mtok: float | None
    source: str
    as_of: str | None
    context_tokens: int | None = None

    def usd_month(self, workload: Workload) -> float:
        """The bill at the workload's volume: cached input at the cache price where there is one."""
        return self.usd_mtok(workload) * workload.tokens_month / MILLION

    def usd_mtok(self, workload: Workload) -> float:
        """Blended price per million tokens of this input, output and cache mix."""
        cached = workload.cached_share if self.cache_read_mtok is not None else 0.0
        inputs = self.input_mtok * (1 - cached) + (self.cache_read_mtok or 0.0) * cached
        out = workload.output_share
        return inputs * (1 - out) + self.output_mtok * out


def version() -> str:
    """Name and version of the price list, for every report."""
    return f"genai-prices {metadata.version('genai-prices')}"


@functools.cache
def book() -> PriceBook:
    """The price list, read once."""
    return PriceBook.load()


def closed(
    workload: Workload, overlay: dict[str, Price] | None = None
) -> tuple[list[Api], list[str]]:
    """(APIs, names without a known price): the workload's own list, or the current models."""
    wanted = [_split(name) for name in workload.apis] if workload.apis else list(CLOSED)
    found, missing = [], []
    for provider, model in wanted:
        price = (overlay or {}).get(f"{provider}/{model}") or book().price(provider, model)
        api = _api(provider, model, price, "closed", workload) if price else None
        if api is None:
            missing.append(f"{provider}/{model}")
        else:
            found.append(api)
    return found, missing


def _split(name: str) -> tuple[str, str]:
    provider, slash, model = name.partition("/")
    if not slash or not provider or not model:
        raise ConfigError([f"API {name!r} is not provider/model, such as openai/gpt-4.1"])
    return provider, model


def _api(provider: str, model: str, price: Price, kind: str, workload: Workload) -> Api | None:
    rate = _rate_for(price, workload.input_tokens_call)
    if rate.input_mtok is None or rate.output_mtok is None:
        return None
    return Api(
        name=f"{provider}/{model}",
        provider=provider,
        model=model,
        kind=kind,
        input_mtok=float(rate.input_mtok),
        output_mtok=float(rate.output_mtok),
        cache_read_mtok=_number(rate.cache_read_mtok),
        source=price.source,
        as_of=price.as_of,
    )


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _rate_for(price: Price, input_tokens: float) -> Rate:
    """The rate of the tier a prompt of this size falls into."""
    rate = price.rate
    for start, tier in price.tiers:
        if input_tokens >= start:
            rate = tier
    return rate


def hosts_of(model: Model, workload: Workload) -> list[Api]:
    """The cheapest offer of each host for an open model; free offers are not offers."""
    wanted = {match.normalise(name) for name in (model.name, *model.aliases)}
    best: dict[str, Api] = {}
    for provider, ident in _listed():
        if _plain(ident) not in wanted:
            continue
        price = book().price(provider, ident)
        api = _api(provider, ident, price, "open", workload) if price else None
        if api is None or api.output_mtok <= 0:
            continue
        if provider not in best or api.usd_mtok(workload) < best[provider].usd_mtok(workload):
            best[provider] = api
    return sorted(best.values(), key=lambda api: api.usd_mtok(workload))


def _plain(ident: str) -> str:
    text = ident.split(":", 1)[0]
    return match.normalise(_VARIANT.sub("", text))


@functools.cache
def _listed() -> tuple[tuple[str, str], ...]:
    """(host, model id) of every open-model host in the price list."""
    from genai_prices.data_snapshot import get_snapshot

    providers = {provider.id: provider for provider in get_snapshot().providers}
    return tuple(
        (host, model.id)
        for host in HOSTS
        if host in providers
        for model in providers[host].models
        if not model.id.endswith((":free", ":batch"))
    )
