"""Costs are exact, charge every token once, and never take the unknown for zero."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locavore.core.money import FREE, Price, Rate, Usage, cost_of

D = Decimal
PLAIN = Price(rate=Rate(input_mtok=D("2"), output_mtok=D("8")), source="test")
rates = st.decimals(min_value=0, max_value=1000, places=4)
counts = st.integers(min_value=0, max_value=10_000_000)


def usd(usage: Usage, price: Price | None) -> Decimal | None:
    return cost_of(usage, price).usd


def test_plain_call() -> None:
    assert usd(Usage(input_tokens=1000, output_tokens=500), PLAIN) == D("0.006")


def test_c62_unknown_price_is_not_zero() -> None:
    usage = Usage(input_tokens=1, output_tokens=1)
    assert usd(usage, None) is None
    assert usd(usage, Price(rate=Rate(), source="test")) is None
    assert usd(usage, Price(rate=Rate(input_mtok=D(1)), source="test")) is None
    assert usd(Usage(input_tokens=0, output_tokens=0), Price(rate=Rate(), source="t")) is None


def test_c67_missing_usage_is_unknown_and_explicit_zero_is_zero() -> None:
    assert usd(Usage(), PLAIN) is None
    assert usd(Usage(input_tokens=10), PLAIN) is None
    assert usd(Usage(output_tokens=10), PLAIN) is None
    assert usd(Usage(input_tokens=0, output_tokens=0), PLAIN) == 0


def test_free_price_costs_nothing_even_without_counts() -> None:
    zero = Price(rate=Rate(input_mtok=D(0), output_mtok=D(0)), source="config")
    for free in (zero, FREE, Price(rate=Rate(), source="free")):
        assert usd(Usage(), free) == 0
        assert usd(Usage(input_tokens=9, output_tokens=9), free) == 0


def test_embeddings_have_no_output_side() -> None:
    price = Price(rate=Rate(input_mtok=D("0.02")), source="test")
    assert usd(Usage(input_tokens=1_000_000), price) == D("0.02")


def test_c64_cached_tokens_are_charged_once_at_their_own_rate() -> None:
    price = Price(
        rate=Rate(
            input_mtok=D(10), output_mtok=D(0), cache_read_mtok=D(1), cache_write_mtok=D("12.5")
        ),
        source="test",
    )
    usage = Usage(input_tokens=100, output_tokens=0, cache_read_tokens=60, cache_write_tokens=30)
    assert usd(usage, price) == (10 * D(10) + 60 * D(1) + 30 * D("12.5")) / 1_000_000


def test_cached_audio_is_not_charged_twice() -> None:
    price = Price(
        rate=Rate(
            input_mtok=D(1), output_mtok=D(1), cache_read_mtok=D("0.5"), input_audio_mtok=D(40)
        ),
        source="test",
    )
    usage = Usage(input_tokens=100, output_tokens=0, cache_read_tokens=90, input_audio_tokens=100)
    assert usd(usage, price) == (90 * D("0.5") + 10 * D(40)) / 1_000_000


def test_output_audio_has_its_own_rate() -> None:
    price = Price(rate=Rate(input_mtok=D(1), output_mtok=D(2), output_audio_mtok=D(80)), source="t")
    usage = Usage(input_tokens=0, output_tokens=10, output_audio_tokens=4)
    assert usd(usage, price) == (6 * D(2) + 4 * D(80)) / 1_000_000


@pytest.mark.parametrize(("tokens", "rate"), [(199_999, 1), (200_000, 3), (1_000_000, 5)])
def test_a_tier_charges_the_whole_call(tokens: int, rate: int) -> None:
    free = D(0)
    price = Price(
        rate=Rate(input_mtok=D(1), output_mtok=free),
        tiers=(
            (200_000, Rate(input_mtok=D(3), output_mtok=free)),
            (500_000, Rate(input_mtok=D(5), output_mtok=free)),
        ),
        source="test",
    )
    assert usd(Usage(input_tokens=tokens, output_tokens=0), price) == D(tokens * rate) / 1_000_000
    assert usd(Usage(output_tokens=0), price) is None


def test_flat_fee_and_marks_are_carried() -> None:
    price = Price(rate=Rate(input_mtok=D(1), output_mtok=D(1), request_usd=D("0.01")), source="s")
    cost = cost_of(Usage(input_tokens=0, output_tokens=0, estimated=True), price)
    assert (cost.usd, cost.estimated, cost.source) == (D("0.01"), True, "s")


def test_c71_ten_million_micro_charges_sum_exactly() -> None:
    price = Price(rate=Rate(input_mtok=D("0.0001"), output_mtok=D("0.0003")), source="test")
    one = usd(Usage(input_tokens=1, output_tokens=1), price)
    assert one is not None
    assert one * 10_000_000 == D("0.004")


@given(counts, counts, counts, counts, rates, rates, rates, rates)
def test_cost_is_the_exact_sum_over_kinds(
    fresh: int, read: int, write: int, out: int, i: Decimal, r: Decimal, w: Decimal, o: Decimal
) -> None:
    price = Price(
        rate=Rate(input_mtok=i, output_mtok=o, cache_read_mtok=r, cache_write_mtok=w), source="t"
    )
    usage = Usage(
        input_tokens=fresh + read + write,
        output_tokens=out,
        cache_read_tokens=read,
        cache_write_tokens=write,
    )
    expected = (
        fresh * Fraction(i) + read * Fraction(r) + write * Fraction(w) + out * Fraction(o)
    ) / 1_000_000
    got = usd(usage, price)
    assert got is not None
    assert Fraction(got) == expected


@given(counts, counts, rates, rates)
def test_more_tokens_never_cost_less(tokens: int, more: int, i: Decimal, o: Decimal) -> None:
    price = Price(rate=Rate(input_mtok=i, output_mtok=o), source="t")
    less = usd(Usage(input_tokens=tokens, output_tokens=tokens), price)
    most = usd(Usage(input_tokens=tokens + more, output_tokens=tokens + more), price)
    assert less is not None
    assert most is not None
    assert less <= most
