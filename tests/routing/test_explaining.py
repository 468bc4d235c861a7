"""What an explanation says, and that acting on it changes the decision as it said."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locavore.core.backend import Place
from locavore.core.decision import Decision, Explored
from locavore.core.policy import Policy, Require, Rule
from locavore.routing.conversation import said
from locavore.routing.explaining import Change, Explanation, explain, lines
from locavore.routing.router import Router
from tests.properties.test_policy import asked_of, fleets, policies, requests
from tests.routing.test_decide import BIG, GOOD, NEW, ROUTE, WEAK, backend, request
from tests.routing.test_judging import (
    CASCADE,
    CLOUD,
    EASY,
    HARD,
    LOCAL,
    decide,
    entry,
    router,
)


def found(backends: Any, policy: Policy = ROUTE, **options: Any) -> Decision:
    asked = request()
    return Router(policy, backends).decide(
        asked, decision_id="d", talk=said(asked, "hello"), **options
    )


def changes(explanation: Explanation, candidate: str) -> dict[str, Change]:
    return {c.kind: c for c in explanation.changes if c.candidate == candidate}


def at_price(name: str, usd: Decimal, **fields: Any) -> Any:
    return backend(name, usd=str(usd), **fields)


# Prices ------------------------------------------------------------------------------------------

GOOD_AT = {"chat": 0.74, "place": Place.ON_PREM}


def test_the_price_at_which_it_flips_is_where_it_flips() -> None:
    told = explain(found((BIG, GOOD)))
    assert told.chosen == GOOD.id
    flip = changes(told, BIG.id)["price"].at
    mine = next(c for c in found((BIG, GOOD)).considered if c.id == GOOD.id).cost_usd
    assert flip == mine
    assert found((at_price(BIG.id, Decimal("0.51"), chat=0.9), GOOD)).chosen == GOOD.id
    assert found((at_price(BIG.id, Decimal("0.49"), chat=0.9), GOOD)).chosen == BIG.id


def test_what_is_free_tells_what_it_may_cost() -> None:
    free = at_price("home/good", Decimal(0), **GOOD_AT)
    told = explain(found((BIG, free)))
    limit = changes(told, BIG.id)["price"]
    assert "is free" in limit.says
    cost = next(c for c in found((BIG, free)).considered if c.id == BIG.id).cost_usd
    assert limit.at == cost


# Floors, labels, limits --------------------------------------------------------------------------


def test_the_floor_that_binds_is_told_with_both_figures() -> None:
    told = explain(found((BIG, WEAK, NEW)))
    floor = changes(told, WEAK.id)["floor"]
    assert floor.at == pytest.approx(0.40 / 0.90)
    assert "asks for 0.80" in floor.says
    assert "0.44" in floor.says
    assert "locavore calibrate" in changes(told, NEW.id)["labels"].says


def test_each_excluder_is_told() -> None:
    policy = msgspec.structs.replace(
        ROUTE, rules=(Rule(name="r", require=Require(farthest=Place.ON_PREM)),)
    )
    told = explain(found((BIG, WEAK, GOOD), policy, unavailable={WEAK.id: "breaker_open"}))
    assert changes(told, BIG.id)["limit"].says.startswith("farther away than")
    assert "breaker_open" in changes(told, WEAK.id)["availability"].says


def test_nothing_allowed_is_explained_too() -> None:
    policy = msgspec.structs.replace(ROUTE, limits=Require(farthest=Place.EMBEDDED))
    told = explain(found((BIG, GOOD), policy))
    assert told.chosen is None
    assert {c.candidate for c in told.changes} == {BIG.id, GOOD.id}


def test_observe_tells_what_route_would_do() -> None:
    told = explain(found((BIG, GOOD), msgspec.structs.replace(ROUTE, stage="observe")))
    assert changes(told, GOOD.id)["policy"].says == 'with stage = "route" it would be home/good'


# Promises ----------------------------------------------------------------------------------------


def test_the_claim_states_target_confidence_basis_and_labels() -> None:
    told = explain(decide(router(found=entry(looks=False)), EASY.format(5)))
    (claim,) = told.claims
    assert (claim.candidate, claim.cloud, claim.labels) == (LOCAL, CLOUD, 200)
    assert "at least 98.0% of cloud/big's quality" in claim.says
    assert "95% confidence" in claim.says
    assert "not in expectation only" in claim.says
    assert claim.estimate is not None
    assert claim.estimate.low < claim.estimate.mean < claim.estimate.high
    estimate = changes(told, LOCAL)["estimate"]
    assert estimate.at == claim.threshold
    assert "go to the cloud below" in estimate.says


def test_what_would_keep_a_call_local_is_told() -> None:
    told = explain(decide(router(found=entry(looks=False)), HARD.format(5)))
    assert told.chosen == CLOUD
    assert "stay local at an estimate of" in changes(told, LOCAL)["estimate"].says


def test_a_cascade_tells_its_odds_and_its_price() -> None:
    decision = decide(router(), EASY.format(5))
    told = explain(decision)
    assert told.chosen == CASCADE
    (claim,) = told.claims
    assert claim.stays is not None
    assert "looked at" in claim.says
    assert any("within 30 s" in note for note in told.notes)
    assert "price" in changes(told, CLOUD)
    text = "\n".join(lines(told))
    for word in ("P(the answer stays local)", "rests on 200 labelled calls", "what would change"):
        assert word in text


def test_too_few_labels_say_what_is_missing() -> None:
    nothing = msgspec.structs.replace(
        entry(looks=False).pre, basis="none", threshold=None, labels=4, missing="26 more calls"
    )
    poor = msgspec.structs.replace(entry(looks=False), pre=nothing)
    told = explain(decide(router(found=poor), EASY.format(5)))
    assert "nothing is promised" in told.claims[0].says
    assert "26 more calls" in changes(told, LOCAL)["labels"].says


def test_exploration_is_told_with_its_probability() -> None:
    decision = decide(router(), EASY.format(5))
    explored = msgspec.structs.replace(
        decision, explored=Explored(local=LOCAL, cloud=CLOUD, promise="p"), propensity=0.02
    )
    assert any("both answer, with probability 0.02" in note for note in explain(explored).notes)
    spared = msgspec.structs.replace(decision, propensity=0.98)
    assert any("not explored, with probability 0.98" in note for note in explain(spared).notes)


@given(fleets(), policies(), requests)
def test_c111_every_decision_explains_itself(fleet: Any, policy: Policy, asked: Any) -> None:
    """From its bytes alone, naming only what it considered."""
    asked = asked_of(fleet, asked)
    decision = Router(policy, fleet).decide(asked, decision_id="d", talk=said(asked, "hello"))
    told = explain(decision)
    read = msgspec.json.decode(msgspec.json.encode(decision), type=Decision)
    assert explain(read) == told
    assert told.because
    known = {c.id for c in decision.considered}
    assert {c.candidate for c in told.changes} <= known
    assert {c.candidate for c in told.claims} <= known
    excluded = {c.id for c in decision.considered if c.verdict == "excluded"}
    if decision.resolved != "backend":
        assert excluded <= {c.candidate for c in told.changes}


prices = st.decimals(min_value=Decimal("0.01"), max_value=20, places=2)


@given(prices, prices, st.sampled_from([Decimal("0.9"), Decimal("1.1")]))
def test_moving_a_price_past_the_flip_moves_the_choice(
    one: Decimal, two: Decimal, past: Decimal
) -> None:
    fleet = [at_price("cloud/a", one, chat=0.9), at_price("cloud/b", two, chat=0.9)]
    decision = found(fleet, Policy(stage="route"))
    told = explain(decision)
    (other,) = {"cloud/a", "cloud/b"} - {decision.chosen}
    flip = changes(told, other)["price"].at
    cost = next(c for c in decision.considered if c.id == other).cost_usd
    assert isinstance(flip, Decimal)
    assert cost is not None
    scale = flip * past / cost
    moved = [
        at_price(
            b.id, (one if b.id == "cloud/a" else two) * (scale if b.id == other else 1), chat=0.9
        )
        for b in fleet
    ]
    assert (found(moved, Policy(stage="route")).chosen == other) is (past < 1)
