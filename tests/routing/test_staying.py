"""P(an answer stays local), as counted on labelled calls."""

from hypothesis import given
from hypothesis import strategies as st

from locavore.routing.staying import MOST_GROUPS, count, share_of

calls = st.lists(st.tuples(st.floats(-1, 1), st.booleans(), st.booleans()), max_size=150)


@given(calls, st.floats(-2, 2))
def test_every_call_is_counted_once(found: list[tuple[float, bool, bool]], gain: float) -> None:
    stays = count([g for g, _, _ in found], [kept for _, kept, _ in found])
    assert sum(stays.calls) == len(found)
    assert sum(stays.stayed) == sum(kept for _, kept, _ in found)
    assert len(stays.calls) == len(stays.edges) + 1 <= MOST_GROUPS
    assert list(stays.edges) == sorted(stays.edges)
    told = stays(gain)
    assert 0 <= told.low <= told.mean <= told.high <= 1


@given(calls, st.floats(-2, 2))
def test_a_rule_that_keeps_fewer_never_looks_likelier(
    found: list[tuple[float, bool, bool]], gain: float
) -> None:
    gains = [g for g, _, _ in found]
    lax = count(gains, [one or both for _, one, both in found])
    strict = count(gains, [one and both for _, one, both in found])
    assert strict(gain).mean <= lax(gain).mean


def test_what_the_request_told_tells_the_groups_apart() -> None:
    stays = count([k / 100 for k in range(100)], [k >= 60 for k in range(100)])
    assert stays(0.1).mean == 0
    assert stays(0.9).mean == 1
    assert stays(0.9).n == 20
    assert stays(5.0) == stays(0.9)


def test_nothing_counted_is_nothing_known() -> None:
    told = share_of(0, 0)
    assert (told.mean, told.n) == (0, 0)
    assert told.high > 0.7
