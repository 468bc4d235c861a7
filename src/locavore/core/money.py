"""Prices and costs: `Decimal` US dollars, never float, and never zero for "unknown"."""

from decimal import Decimal

import msgspec


class Rate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """US dollars per million tokens (mtok), by kind. None: this kind is not offered or unknown."""

    input_mtok: Decimal | None = None
    output_mtok: Decimal | None = None
    cache_read_mtok: Decimal | None = None
    cache_write_mtok: Decimal | None = None
    input_audio_mtok: Decimal | None = None
    output_audio_mtok: Decimal | None = None
    request_usd: Decimal | None = None
    """Flat fee per call."""


class Price(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a backend charges, where that figure is from and when it was read."""

    rate: Rate
    tiers: tuple[tuple[int, Rate], ...] = ()
    """(input tokens from which on the whole call is charged at this rate, rate), ascending."""
    source: str
    """e.g. `genai-prices 0.2.3`, `config`, `free` (a model we host, no price set)."""
    as_of: str | None = None
    """ISO date the figure was checked."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Tokens of one attempt, one meaning for every provider. None: the provider did not say.

    Parts are subsets: `input_tokens` includes cached and cache-write tokens (OpenAI's reading;
    Anthropic's is translated at the edge), `output_tokens` includes reasoning.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    estimated: bool = False
    """True when any figure is ours rather than the provider's."""

    @property
    def missing(self) -> bool:
        """Neither side is known."""
        return self.input_tokens is None and self.output_tokens is None


class Cost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Money of one attempt. `usd is None`: unknown, which is not zero."""

    usd: Decimal | None
    estimated: bool = False
    source: str = ""


FREE = Price(rate=Rate(input_mtok=Decimal(0), output_mtok=Decimal(0)), source="free")
"""A model we host with no price set: an explicit zero, where an empty `Rate` would be unknown."""


def rate_for(price: Price, input_tokens: int | None) -> Rate | None:
    """The rate of the tier this call falls in; None: tiers exist and the prompt's size is unknown.

    A tier charges the whole call, not only the tokens above its threshold.
    """
    if not price.tiers:
        return price.rate
    if input_tokens is None:
        return None
    rate = price.rate
    for threshold_tokens, tier in price.tiers:
        if input_tokens < threshold_tokens:
            break
        rate = tier
    return rate


def cost_of(usage: Usage, price: Price | None) -> Cost:
    """Exact US dollars of one attempt; `usd is None` when a price or a needed count is unknown.

    Cached, cache-write and audio tokens are parts of the totals and are charged once, at their own
    rate where one is set and at the plain rate otherwise. An explicit zero rate needs no count.
    """
    if price is None:
        return Cost(usd=None, estimated=usage.estimated)
    if price.source == "free":
        return _NOTHING_ESTIMATED if usage.estimated else _NOTHING
    rate = price.rate if not price.tiers else rate_for(price, usage.input_tokens)
    usd: Decimal | None = _plain_usd(usage, rate) if rate is not None else None
    if rate is not None and usd is None:
        per_million = _sum(_input_charge(usage, rate), _output_charge(usage, rate))
        if per_million is not None and rate != _NO_RATE:
            usd = per_million.scaleb(-6)
            if rate.request_usd is not None:
                usd += rate.request_usd
    return Cost(usd=usd, estimated=usage.estimated, source=price.source)


_NO_RATE = Rate()
_ZERO = Decimal(0)
_NOTHING = Cost(usd=_ZERO, source=FREE.source)
_NOTHING_ESTIMATED = Cost(usd=_ZERO, estimated=True, source=FREE.source)


def _plain_usd(usage: Usage, rate: Rate) -> Decimal | None:
    """The usual case in one step: both counts, both rates, nothing cached, no audio, no fee."""
    tokens, answer = usage.input_tokens, usage.output_tokens
    if (
        tokens is None
        or answer is None
        or rate.input_mtok is None
        or rate.output_mtok is None
        or rate.request_usd is not None
        or usage.cache_read_tokens
        or usage.cache_write_tokens
        or usage.input_audio_tokens
        or usage.output_audio_tokens
    ):
        return None
    return (_ZERO + tokens * rate.input_mtok + answer * rate.output_mtok).scaleb(-6)


def _input_charge(usage: Usage, rate: Rate) -> Decimal | None:
    """Dollars × 10⁶ of the prompt."""
    total = usage.input_tokens
    if total is None:
        return _uncounted(rate.input_mtok, rate.cache_read_mtok, rate.cache_write_mtok)
    read, write = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    if not (read or write or usage.input_audio_tokens):
        return _charge(total, rate.input_mtok)
    # A provider may count cached audio as both; the cache rate wins, so nothing is charged twice.
    fresh = max(0, total - read - write)
    audio = min(usage.input_audio_tokens or 0, fresh)
    return _sum(
        _charge(fresh - audio, rate.input_mtok),
        _charge(read, _first(rate.cache_read_mtok, rate.input_mtok)),
        _charge(write, _first(rate.cache_write_mtok, rate.input_mtok)),
        _charge(audio, _first(rate.input_audio_mtok, rate.input_mtok)),
    )


def _output_charge(usage: Usage, rate: Rate) -> Decimal | None:
    """Dollars × 10⁶ of the answer."""
    total = usage.output_tokens
    if total is None:
        return _uncounted(rate.output_mtok, rate.output_audio_mtok)
    audio = min(usage.output_audio_tokens or 0, total)
    if not audio:
        return _charge(total, rate.output_mtok)
    return _sum(
        _charge(total - audio, rate.output_mtok),
        _charge(audio, _first(rate.output_audio_mtok, rate.output_mtok)),
    )


def _uncounted(*rates: Decimal | None) -> Decimal | None:
    """No count came: nothing to pay only where this side is free or not offered (embeddings)."""
    return None if any(rates) else _ZERO


def _charge(tokens: int, rate: Decimal | None) -> Decimal | None:
    if rate is None:
        return None if tokens else _ZERO
    return tokens * rate


def _first(own: Decimal | None, plain: Decimal | None) -> Decimal | None:
    return plain if own is None else own


def _sum(*parts: Decimal | None) -> Decimal | None:
    total = _ZERO
    for part in parts:
        if part is None:
            return None
        total += part
    return total
