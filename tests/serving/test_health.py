"""Rates that the objective is told: tries that failed, answers that came too late."""

from hypothesis import given
from hypothesis import strategies as st

from locavore.core.errors import Fault
from locavore.serving.health import Breakers
from locavore.serving.snapshot import BreakerPolicy

TARGET = "home"


def failed(breakers: Breakers, fault: Fault = Fault.CONNECT) -> None:
    breakers.failure(TARGET, fault, 0.0, local=True, retry_after_s=None)


def test_a_target_that_never_failed_has_no_rate() -> None:
    breakers = Breakers(BreakerPolicy())
    breakers.success(TARGET)
    assert (breakers.rates, breakers.lates) == ({}, {})


def test_the_rate_is_near_the_share_that_fails() -> None:
    breakers = Breakers(BreakerPolicy())
    seen = []
    for k in range(2000):
        failed(breakers) if k % 4 == 0 else breakers.success(TARGET)
        seen.append(breakers.rates.get(TARGET, 0.0))
    assert abs(sum(seen[-400:]) / 400 - 0.25) < 0.02


def test_one_failure_is_forgotten_after_a_while() -> None:
    breakers = Breakers(BreakerPolicy())
    failed(breakers)
    assert 0 < breakers.rates[TARGET] < 0.05
    for _ in range(200):
        breakers.success(TARGET)
    assert breakers.rates == {}


def test_what_says_nothing_about_the_target_does_not_count() -> None:
    breakers = Breakers(BreakerPolicy())
    failed(breakers, Fault.CONTEXT_OVERFLOW)
    assert breakers.rates == {}


def test_late_answers_open_no_breaker_and_are_forgotten_in_time() -> None:
    breakers = Breakers(BreakerPolicy())
    for _ in range(10):
        breakers.late(TARGET, 0.0)
    assert breakers.late_share(TARGET, 0.0) > 0.85
    assert breakers.blocked(TARGET, 0.0) is None
    assert breakers.late_share(TARGET, 3600.0) < 0.01
    assert breakers.late_share("other", 0.0) == 0.0


def test_answers_in_time_make_up_for_late_ones() -> None:
    breakers = Breakers(BreakerPolicy())
    for _ in range(10):
        breakers.late(TARGET, 0.0)
    for _ in range(30):
        breakers.success(TARGET)
    assert breakers.lates == {}


@given(st.lists(st.tuples(st.booleans(), st.floats(-100, 1e6)), max_size=50))
def test_c85_shares_stay_shares_whatever_the_clock_does(
    calls: list[tuple[bool, float]],
) -> None:
    breakers = Breakers(BreakerPolicy())
    for late, at_s in calls:
        breakers.late(TARGET, at_s) if late else breakers.success(TARGET)
        assert 0 <= breakers.late_share(TARGET, at_s) <= 1
