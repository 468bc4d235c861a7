"""What each model costs: the public price list and the operator's own figures, as `core` prices.

The `genai-prices` look-up takes 0.2 ms and its import 150 ms, so it happens in the supervisor,
once per configured backend; workers get a finished `Price`. A model the list does not know, or
charges in a unit that no usage record counts (characters, pages, hours), has no price: unknown.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from importlib import metadata
from typing import TYPE_CHECKING, Any

import msgspec

from locavore.core.money import Price, Rate

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice

TOKEN_KEYS = (
    "input_mtok",
    "output_mtok",
    "cache_read_mtok",
    "cache_write_mtok",
    "input_audio_mtok",
    "output_audio_mtok",
)
"""Fields of `core.money.Rate` and, under the same names, prices of the list."""
OVERLAY_KEYS = (*TOKEN_KEYS, "request_usd")
FINEST = Decimal("0.000001")
"""US dollars per million tokens: finer figures of the list are artefacts of its own divisions,
and with this one every cost is a whole number of pico-dollars."""
PROVIDERS = {"xai": "x-ai", "gemini": "google", "vertex": "google", "bedrock": "aws"}
"""Our provider rows whose name the list does not match by itself."""


class PriceBook:
    """Finished prices, looked up once each."""

    def __init__(
        self, snapshot: "DataSnapshot", *, version: str, now: datetime | None = None
    ) -> None:
        self._snapshot = snapshot
        self._source = f"genai-prices {version}"
        self._now = now or datetime.now(UTC)
        self._as_of = _newest_change(snapshot, self._now)
        self._known: dict[tuple[str, str], Price | None] = {}

    @classmethod
    def load(cls, *, now: datetime | None = None) -> "PriceBook":
        """The list as installed; nothing is fetched. `now` picks among prices valid by date."""
        from genai_prices.data_snapshot import get_snapshot

        return cls(get_snapshot(), version=metadata.version("genai-prices"), now=now)

    def price(self, provider: str, model: str) -> Price | None:
        """The list's price of `model` (the name sent upstream) at `provider`; None: unknown."""
        key = (provider, model)
        if key not in self._known:
            self._known[key] = self._look_up(PROVIDERS.get(provider, provider), model)
        return self._known[key]

    def prices(self, models: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Price]:
        """(provider, model) -> price, for those that have one."""
        found = {pair: self.price(*pair) for pair in models}
        return {pair: price for pair, price in found.items() if price is not None}

    def _look_up(self, provider: str, model: str) -> Price | None:
        try:
            _, info = self._snapshot.find_provider_model(model, None, provider, None)
        except LookupError:
            return None
        listed = info.get_prices(self._now)
        rate = _rate(listed, 0)
        if rate is None:
            return None
        tiers = [(start + 1, _rate(listed, start + 1)) for start in _thresholds(listed)]
        return Price(
            rate=rate,
            tiers=tuple((start, tier) for start, tier in tiers if tier is not None),
            source=self._source,
            as_of=_valid_from(info, self._now) or self._as_of,
        )


def overlay(figures: Mapping[str, str], *, source: str = "config") -> Price:
    """The operator's own price: `{"input_mtok": "0.10", ...}`, decimal strings in US dollars.

    Raises ValueError naming the key and the value; the caller adds file and backend.
    """
    if not figures:
        raise ValueError(f"a price needs at least one of {', '.join(OVERLAY_KEYS)}")
    rate = {key: _figure(key, text) for key, text in figures.items()}
    return Price(rate=msgspec.convert(rate, Rate), source=source)


def _figure(key: str, text: str) -> Decimal:
    if key not in OVERLAY_KEYS:
        raise ValueError(f"price key {key!r} is unknown; known are {', '.join(OVERLAY_KEYS)}")
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0:
        raise ValueError(f"price {key} = {text!r} is not a decimal number of US dollars >= 0")
    if key in TOKEN_KEYS and value != value.quantize(FINEST):
        raise ValueError(f"price {key} = {text!r} has more than six decimals")
    return value


def _thresholds(listed: "ModelPrice") -> list[int]:
    """Prompt sizes above which another rate holds, over all kinds of tokens."""
    tiered = [getattr(listed, key) for key in TOKEN_KEYS]
    return sorted({tier.start for price in tiered for tier in getattr(price, "tiers", ())})


def _rate(listed: "ModelPrice", input_tokens: int) -> Rate | None:
    """The list's figures for a prompt of this size; None: it charges no tokens at all."""
    figures = {key: _at(getattr(listed, key), input_tokens) for key in TOKEN_KEYS}
    if figures["input_mtok"] is None and figures["output_mtok"] is None:
        return None
    per_thousand = getattr(listed, "requests_kcount", None)
    fee = None if per_thousand is None else _at(per_thousand, input_tokens)
    return Rate(**figures, request_usd=None if fee is None else fee / 1000)


def _at(price: Any, input_tokens: int) -> Decimal | None:
    if price is None:
        return None
    value = getattr(price, "base", price)
    for tier in getattr(price, "tiers", ()):
        if input_tokens > tier.start:
            value = tier.price
    return _plain(Decimal(value).quantize(FINEST))


def _plain(value: Decimal) -> Decimal:
    """Without trailing zeros, and 10 rather than 1E+1."""
    short = value.normalize()
    return value.quantize(Decimal(1)) if short == short.to_integral_value() else short


def _valid_from(info: "ModelInfo", now: datetime) -> str | None:
    """The date the list gives for the price that is in force, if it gives one."""
    if not isinstance(info.prices, list):
        return None
    dates = [getattr(row.constraint, "start_date", None) for row in info.prices]
    begun = [date for date in dates if date is not None and date <= now.date()]
    return max(begun).isoformat() if begun else None


def _newest_change(snapshot: "DataSnapshot", now: datetime) -> str | None:
    """The list carries no date of its own; its newest dated change is the latest it vouches for."""
    models = (info for provider in snapshot.providers for info in provider.models)
    return max((date for info in models if (date := _valid_from(info, now))), default=None)
