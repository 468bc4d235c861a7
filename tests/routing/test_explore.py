"""Which calls are explored: a fair share, within every limit, and only to watch a promise."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from locavore.core.backend import Backend, Place
from locavore.core.decision import Decision, Explored
from locavore.core.money import Price, Rate
from locavore.core.policy import Policy, Require, Rule, When
from locavore.routing.conversation import Talk
from locavore.routing.estimators import trunk
from locavore.routing.estimators.promised import Entry, Promises
from locavore.routing.explore import draws
from locavore.routing.router import Router
from locavore.wire.formats import FORMATS
from tests.promises import entry as promised

LOCAL, CLOUD = "vllm/small", "openai/large"


def backend(id_: str, place: Place, mtok: str) -> Backend:
    rate = Rate(input_mtok=Decimal(mtok), output_mtok=Decimal(mtok))
    return Backend(
        id=id_,
        provider=id_.split("/")[0],
        model=id_.split("/")[1],
        url="http://127.0.0.1:9/v1",
        dialect="openai",
        place=place,
        context_tokens=8192,
        capabilities=frozenset({"chat"}),
        price=Price(rate=rate, source="test"),
    )


BACKENDS = (backend(CLOUD, Place.PUBLIC_API, "5"), backend(LOCAL, Place.ON_PREM, "0.1"))


@pytest.fixture(scope="module", params=[True, False], ids=["kept", "not_kept"])
def entry(request: pytest.FixtureRequest) -> Entry:
    return promised(LOCAL, CLOUD, keeps=request.param)


def router(entry: Entry | None, share: float = 1.0, **policy: Any) -> Router:
    fields: dict[str, Any] = {
        "posture": "quality_first",
        "stage": "route",
        "baseline": CLOUD,
        "labels": frozenset({"health"}),
        "explore_share": share,
        "aliases": {"gpt-4o": "auto", "fast": LOCAL},
        "fallbacks": {LOCAL: (CLOUD,)},
        "rules": (
            Rule(
                name="stay",
                when=When(label="health"),
                require=Require(farthest=Place.ON_PREM),
            ),
        ),
    }
    found = Policy(**(fields | policy))
    promises = Promises(trunk.load(), [entry] if entry else [])
    return Router(found, BACKENDS, promises=promises)


def decided(router: Router, id_: str = "d", model: str = "auto", **more: Any) -> Decision:
    labels = more.pop("labels", frozenset())
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "ask 9"}]})
    fmt = FORMATS["openai_chat"]
    request = msgspec.structs.replace(fmt.request(body.encode()), labels=labels)
    return router.decide(request, decision_id=id_, talk=Talk(request, fmt.turns), **more)


def test_whichever_side_serves_the_pair_is_explored(entry: Entry) -> None:
    found = decided(router(entry))
    assert found.chosen == (LOCAL if entry.pre.threshold is not None else CLOUD)
    assert found.explored == Explored(local=LOCAL, cloud=CLOUD, promise=entry.id)
    assert found.propensity == 1.0


def test_an_alias_of_auto_is_explored_too(entry: Entry) -> None:
    assert decided(router(entry), model="gpt-4o").explored == decided(router(entry)).explored


def test_the_share_is_kept_and_every_decision_logs_its_propensity(entry: Entry) -> None:
    some = router(entry, share=0.1)
    found = [decided(some, f"d{k}") for k in range(3000)]
    explored = sum(f.explored is not None for f in found)
    assert 220 < explored < 390
    assert {f.propensity for f in found if f.explored} == {0.1}
    assert {f.propensity for f in found if not f.explored} == {0.9}
    assert decided(some, "d7") == found[7]  # C110


def test_c91_a_call_that_must_not_leave_is_never_explored(entry: Entry) -> None:
    found = decided(router(entry), labels=frozenset({"health"}))
    assert found.chosen == LOCAL
    assert (found.explored, found.propensity) == (None, 1.0)


@pytest.mark.parametrize(
    "how",
    [
        {"model": CLOUD},
        {"model": "local"},
        {"model": "fast"},
        {"fallbacks": False},
        {"limits": Require(farthest=Place.ON_PREM)},
        {"unavailable": {CLOUD: "its breaker is open"}},
    ],
    ids=["named", "local", "alias_of_one", "no_fallback", "narrowed", "unavailable"],
)
def test_nothing_is_explored_where_the_other_side_may_not_be_asked(
    entry: Entry, how: dict[str, Any]
) -> None:
    assert decided(router(entry), **how).explored is None


@pytest.mark.parametrize("policy", [{"stage": "observe"}, {"explore_share": 0.0}])
def test_only_a_promise_that_is_being_kept_is_watched(entry: Entry, policy: dict[str, Any]) -> None:
    assert decided(router(entry, **policy)).explored is None
    assert decided(router(None)).explored is None


def test_draws_are_fair_and_repeat() -> None:
    ids = [f"{k:011x}-a-{k:x}" for k in range(20_000)]
    assert 850 < sum(draws(id_, 0.05) for id_ in ids) < 1150
    assert not any(draws(id_, 0.0) for id_ in ids[:100])
    assert all(draws(id_, 1.0) for id_ in ids[:100])


def test_a_promise_that_was_read_back_is_the_same_one(entry: Entry) -> None:
    again = msgspec.json.decode(msgspec.json.encode(entry), type=Entry)
    assert again.id == entry.id
