"""Expected cost: what each part adds."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from locavore.core.decision import Charges
from locavore.core.money import Usage, cost_of
from locavore.routing.cost import (
    cascade_charges,
    direct_charges,
    expected_cost_usd,
    total_usd,
)
from tests.routing.test_conversation import priced

money = st.decimals(min_value=0, max_value=1, places=6)
shares = st.floats(0, 1)


def test_the_attempt_and_its_samples_count_in_the_cost() -> None:
    local, cloud = Decimal("0.001"), Decimal("0.01")
    assert expected_cost_usd(0.5, local, cloud, samples=2) == Decimal("0.008")


@given(money, money, shares, st.integers(0, 4))
def test_a_cascade_costs_its_attempts_and_the_expected_escalation(
    local: Decimal, cloud: Decimal, stays: float, samples: int
) -> None:
    charges = cascade_charges(Charges(answer_usd=local), cloud, stays, samples=samples)
    assert total_usd(charges) == expected_cost_usd(stays, local, cloud, samples)
    assert local * (1 + samples) <= total_usd(charges) <= local * (1 + samples) + cloud


@given(shares, shares, st.integers(0, 20_000), st.integers(0, 20_000))
def test_failures_cost_and_a_cache_saves(one: float, two: float, few: int, many: int) -> None:
    backend = priced("cloud/x", "4", "0.4")
    usage = Usage(input_tokens=10_000, output_tokens=100)
    answer_usd = cost_of(usage, backend.price).usd
    assert answer_usd is not None

    def total(failures: float, cached_tokens: int) -> Decimal:
        return total_usd(
            direct_charges(
                answer_usd, usage, backend, cost_of, failures=failures, cached_tokens=cached_tokens
            )
        )

    few, many = sorted((few, many))
    one, two = sorted((one, two))
    assert total(0.0, 0) == answer_usd
    assert total(one, few) <= total(two, few)
    assert total(one, many) <= total(one, few)
    assert total(0.0, many) == answer_usd - min(many, 10_000) * Decimal("3.6") / 10**6
