"""Prices: from the public list or the operator, with their source; unknown stays unknown."""

from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage as ListUsage
from genai_prices import calc_price
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from locavore.core.money import Usage, cost_of
from locavore.ledger.prices import PriceBook, overlay

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


def book_of(prices: Any, now: datetime = NOW) -> PriceBook:
    model = ModelInfo(id="m", match=ClauseEquals("m"), prices=prices)
    provider = Provider(id="p", name="P", api_pattern="https://p", models=[model])
    return PriceBook(DataSnapshot([provider], from_auto_update=False), version="9", now=now)


@pytest.fixture(scope="module")
def installed() -> PriceBook:
    return PriceBook.load()


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4.1"),
        ("openai", "gpt-4.1-2025-04-14"),
        ("anthropic", "claude-sonnet-4-5"),
        ("gemini", "gemini-2.5-pro"),
        ("xai", "grok-4"),
        ("mistral", "mistral-small-latest"),
    ],
)
@pytest.mark.parametrize("tokens", [(1_000, 500, 0), (250_000, 10_000, 100_000)])
def test_a_compiled_price_gives_what_the_library_itself_computes(
    installed: PriceBook, provider: str, model: str, tokens: tuple[int, int, int]
) -> None:
    given, out, cached = tokens
    price = installed.price(provider, model)
    ours = cost_of(Usage(input_tokens=given, output_tokens=out, cache_read_tokens=cached), price)
    theirs = calc_price(
        ListUsage(input_tokens=given, output_tokens=out, cache_read_tokens=cached),
        model,
        provider_id={"gemini": "google", "xai": "x-ai"}.get(provider, provider),
    )
    assert ours.usd == theirs.total_price
    assert price is not None
    assert price.source.startswith("genai-prices ")
    assert price.as_of is not None


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "gpt-unheard-of"), ("vllm", "qwen3"), ("nobody", "x")]
)
def test_c62_a_model_the_list_does_not_know_has_no_price(
    installed: PriceBook, provider: str, model: str
) -> None:
    assert installed.price(provider, model) is None
    assert installed.prices([(provider, model)]) == {}


def test_a_model_charged_in_other_units_than_tokens_has_no_price() -> None:
    prices = ModelPrice(audio_hours=Decimal("0.04"))
    assert book_of(prices).price("p", "m") is None


def test_a_tier_begins_behind_its_threshold_and_covers_every_kind() -> None:
    tiered = TieredPrices(base=Decimal(1), tiers=[Tier(start=200_000, price=Decimal(2))])
    price = book_of(ModelPrice(input_mtok=tiered, output_mtok=Decimal(4))).price("p", "m")
    at, above = (
        cost_of(Usage(input_tokens=n, output_tokens=1_000_000), price).usd
        for n in (200_000, 200_001)
    )
    assert at == Decimal("4.2")
    assert above == Decimal("4.400002")


def test_c70_the_price_in_force_is_taken_with_its_date() -> None:
    change = StartDateConstraint(start_date=datetime(2026, 7, 1, tzinfo=UTC).date())
    prices = [
        ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(1))),
        ConditionalPrice(change, prices=ModelPrice(input_mtok=Decimal(2))),
    ]
    before = book_of(prices).price("p", "m")
    after = book_of(prices, datetime(2026, 7, 2, tzinfo=UTC)).price("p", "m")
    assert before is not None
    assert after is not None
    assert (before.rate.input_mtok, before.as_of) == (Decimal(1), None)
    assert (after.rate.input_mtok, after.as_of) == (Decimal(2), "2026-07-01")


def test_a_price_by_time_of_day_is_the_one_in_force_now() -> None:
    night = TimeOfDateConstraint(start_time=time(0, tzinfo=UTC), end_time=time(6, tzinfo=UTC))
    prices = [
        ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(2))),
        ConditionalPrice(night, prices=ModelPrice(input_mtok=Decimal(1))),
    ]
    price = book_of(prices).price("p", "m")
    assert price is not None
    assert price.rate.input_mtok == 2


def test_rates_have_at_most_six_decimals_so_every_cost_is_whole_pico_dollars(
    installed: PriceBook,
) -> None:
    noisy = ModelPrice(input_mtok=Decimal("0.08999999999999999"), output_mtok=Decimal(10))
    price = book_of(noisy).price("p", "m")
    assert price is not None
    assert price.rate.input_mtok == Decimal("0.09")
    assert str(price.rate.output_mtok) == "10"


def test_the_operators_own_price() -> None:
    price = overlay({"input_mtok": "0.10", "output_mtok": "0.40", "request_usd": "0.001"})
    assert cost_of(Usage(input_tokens=1_000_000, output_tokens=0), price).usd == Decimal("0.101")
    assert price.source == "config"


@pytest.mark.parametrize(
    ("figures", "complaint"),
    [
        ({"input": "1"}, "'input' is unknown"),
        ({"input_mtok": "cheap"}, "'cheap' is not a decimal"),
        ({"input_mtok": "-1"}, "'-1' is not"),
        ({"input_mtok": "NaN"}, "'NaN' is not"),
        ({"input_mtok": "0.0000001"}, "more than six decimals"),
        ({}, "at least one"),
    ],
)
def test_a_wrong_price_is_named_with_its_value(figures: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        overlay(figures)
