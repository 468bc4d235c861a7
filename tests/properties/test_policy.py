"""What must hold for every decision, whatever the backends, the rules and the request."""

from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from locavore.core.backend import Backend, Place
from locavore.core.decision import Decision
from locavore.core.estimate import Estimate
from locavore.core.money import Price, Rate
from locavore.core.policy import QUALITY_FLOOR, Policy, Require, Rule, When
from locavore.core.request import Request
from locavore.routing.conversation import said
from locavore.routing.decide import decide, refusal
from locavore.routing.quality import Priors
from locavore.routing.reasons import CODES, EXCLUDES, code_of
from locavore.routing.router import Router
from locavore.routing.rules import NO_LIMIT, narrow
from locavore.routing.weighing import Call

IDS = [f"p{i}/m" for i in range(6)]
LABELS = frozenset({"health", "secret"})
NEEDS = ("tools", "json_schema", "vision", "logprobs")
ASKS = ("hello", "translate this", "debug this python", "")

shares = st.floats(min_value=0.0, max_value=1.0)
some_needs = st.frozensets(st.sampled_from(NEEDS), max_size=2)
money = st.decimals(min_value=0, max_value=50, places=2)


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    low, mean, high = sorted(draw(st.tuples(shares, shares, shares)))
    return Estimate(mean=mean, low=low, high=high, source="test")


@st.composite
def backends(draw: st.DrawFn, name: str) -> Backend:
    usd = draw(st.none() | money)
    known = draw(some_needs)
    kind = draw(st.sampled_from([{"chat"}, {"chat"}, {"embeddings"}, {"chat", "embeddings"}]))
    return Backend(
        id=name,
        provider=name.partition("/")[0],
        model="m",
        url="http://127.0.0.1:1/v1",
        dialect=draw(st.sampled_from(["openai", "anthropic"])),
        place=draw(st.sampled_from(Place)),
        jurisdiction=draw(st.sampled_from([None, "DE", "US"])),
        context_tokens=draw(st.sampled_from([None, 2048, 8192, 200_000])),
        max_output_tokens=draw(st.sampled_from([None, 512, 8192])),
        capabilities=known | frozenset(kind),
        lacks=draw(some_needs) - known,
        price=None
        if usd is None
        else Price(rate=Rate(input_mtok=usd, output_mtok=usd), source="test"),
        quality=draw(st.dictionaries(st.sampled_from(["chat", "code"]), estimates())),
        prefill_tokens_s=draw(st.sampled_from([None, 20.0, 5000.0])),
        embedding_family=draw(st.sampled_from([None, "bge", "ada"])),
        is_test=draw(st.integers(0, 9)) == 0,
    )


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Backend, ...]:
    names = draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=6, unique=True))
    return tuple(draw(backends(name)) for name in names)


requires = st.builds(
    Require,
    farthest=st.none() | st.sampled_from(Place),
    jurisdictions=st.none() | st.frozensets(st.sampled_from(["EU", "DE", "US"]), min_size=1),
    backends=st.none() | st.frozensets(st.sampled_from(IDS), min_size=1),
    capabilities=some_needs,
    max_cost_usd=st.none() | st.just(Decimal("0.05")) | st.just(Decimal("0.001")),
    max_ttft_s=st.none() | st.just(1.0) | st.just(60.0),
    min_quality=st.none() | shares,
    known_price=st.booleans(),
)
whens = st.builds(
    When,
    label=st.none() | st.sampled_from(sorted(LABELS)),
    task=st.none() | st.sampled_from(["chat", "code"]),
    model=st.none() | st.sampled_from(["auto", "local"]),
    key=st.none() | st.just("team"),
)


@st.composite
def rules(draw: st.DrawFn, name: str) -> Rule:
    return Rule(
        name=name,
        when=draw(whens),
        require=draw(requires),
        set_labels=draw(st.frozensets(st.sampled_from(sorted(LABELS)), max_size=1)),
    )


@st.composite
def policies(draw: st.DrawFn, /, **fixed: Any) -> Policy:
    fields: dict[str, Any] = {
        "posture": draw(st.sampled_from(sorted(QUALITY_FLOOR))),
        "stage": draw(st.sampled_from(["observe", "route"])),
        "baseline": draw(st.none() | st.sampled_from(IDS)),
        "rules": tuple(draw(rules(f"r{i}")) for i in range(draw(st.integers(0, 2)))),
        "labels": LABELS,
        "fallbacks": draw(st.sampled_from([{}, {IDS[0]: tuple(IDS[1:3])}])),
        "max_fallbacks": draw(st.integers(0, 6)),
    }
    return Policy(**(fields | fixed))


requests = st.builds(
    Request,
    format=st.sampled_from(
        ["openai_chat", "openai_chat", "anthropic_messages", "openai_embeddings"]
    ),
    model=st.sampled_from(["auto", "auto", "local", "cloud", *IDS[:2]]),
    body=st.sampled_from([b"{}", "{é}".encode()]),
    max_output_tokens=st.none() | st.sampled_from([16, 4096]),
    needs=some_needs,
    labels=st.frozensets(st.sampled_from(sorted(LABELS)), max_size=1),
    key_name=st.none() | st.just("team"),
    prompt_bytes=st.sampled_from([10, 5_000, 30_000, 400_000]),
    images=st.integers(0, 2),
)
outages = st.dictionaries(st.sampled_from(IDS), st.just("breaker_open"), max_size=2)


def asked_of(fleet: tuple[Backend, ...], request: Request) -> Request:
    """A request for a name that exists."""
    known = {"auto", "local", "cloud", *(b.id for b in fleet)}
    return request if request.model in known else msgspec.structs.replace(request, model="auto")


def run(
    fleet: tuple[Backend, ...], policy: Policy, request: Request, ask: str = "hello", **options: Any
) -> Decision:
    router = Router(policy, fleet)
    asked = asked_of(fleet, request)
    return router.decide(asked, decision_id="d", talk=said(asked, ask), **options)


def usable(decision: Decision) -> set[str]:
    return {c.id for c in decision.considered if c.verdict != "excluded"}


@given(fleets(), policies(), requests, outages)
def test_every_candidate_is_accounted_for(
    fleet: tuple[Backend, ...], policy: Policy, request: Request, down: dict[str, str]
) -> None:
    router = Router(policy, fleet)
    asked = asked_of(fleet, request)
    found = router.decide(asked, decision_id="d", talk=said(asked, "hello"), unavailable=down)
    candidates = [c.id for c in router.route(asked.model).candidates]
    assert sorted(c.id for c in found.considered) == sorted(candidates)
    verdicts = {c.id: c.verdict for c in found.considered}
    assert [i for i, v in verdicts.items() if v == "chosen"] == [found.chosen] * bool(found.chosen)
    assert tuple(i for i, v in verdicts.items() if v == "fallback") == found.fallbacks
    assert len(found.fallbacks) <= policy.max_fallbacks
    for considered in found.considered:
        codes = {code_of(r) for r in considered.reasons}
        assert codes <= CODES.keys()
        assert bool(codes & EXCLUDES.keys()) is (considered.verdict == "excluded")
    if found.chosen is None:
        error = refusal(found)
        assert error.status in (400, 503)
        assert set(error.excluded) == set(candidates)
        assert all(name in error.message for name in candidates)


@given(fleets(), policies(), requests, rules("extra"), outages)
def test_adding_a_rule_never_widens_the_choice(
    fleet: tuple[Backend, ...], policy: Policy, request: Request, rule: Rule, down: dict[str, str]
) -> None:
    narrower = msgspec.structs.replace(policy, rules=(*policy.rules, rule))
    before = run(fleet, policy, request, unavailable=down)
    after = run(fleet, narrower, request, unavailable=down)
    assert usable(after) <= usable(before)


@given(fleets(), policies(), requests, requires)
def test_the_callers_limits_never_widen_the_choice(
    fleet: tuple[Backend, ...], policy: Policy, request: Request, limits: Require
) -> None:
    assert usable(run(fleet, policy, request, limits=limits)) <= usable(run(fleet, policy, request))


@given(fleets(), policies(), requests, st.sampled_from(sorted(LABELS)))
def test_a_label_never_widens_the_choice(
    fleet: tuple[Backend, ...], policy: Policy, request: Request, label: str
) -> None:
    labelled = msgspec.structs.replace(request, labels=request.labels | {label})
    assert usable(run(fleet, policy, labelled)) <= usable(run(fleet, policy, request))


@given(fleets(), policies(), st.lists(requests, min_size=1, max_size=4), outages)
def test_c110_c111_the_same_input_gives_the_same_decision_on_every_path(
    fleet: tuple[Backend, ...], policy: Policy, asked: list[Request], down: dict[str, str]
) -> None:
    """A router that has served other calls decides like a fresh one and like the plain function."""
    busy = Router(policy, fleet)
    for request in asked * 2:
        request = asked_of(fleet, request)
        options: dict[str, Any] = {
            "decision_id": "d",
            "talk": said(request, "hi"),
            "unavailable": down,
        }
        live = busy.decide(request, **options)
        assert live == Router(policy, fleet).decide(request, **options)
        route = busy.route(request.model)
        plain = decide(
            request,
            live.facts,
            route.candidates,
            resolved=route.resolved,
            call=Call(decision_id="d", unavailable=down),
            policy=policy,
            quality=Priors(busy.names.competing, busy.baseline),
        )
        assert plain == live


@given(fleets(), policies(), requests)
def test_c110_a_recorded_decision_replays_from_its_bytes(
    fleet: tuple[Backend, ...], policy: Policy, request: Request
) -> None:
    found = run(fleet, policy, request)
    read = msgspec.json.decode(msgspec.json.encode(found), type=Decision)
    kept_policy = msgspec.msgpack.decode(msgspec.msgpack.encode(policy), type=Policy)
    kept_fleet = msgspec.msgpack.decode(msgspec.msgpack.encode(fleet), type=tuple[Backend, ...])
    assert run(kept_fleet, kept_policy, request) == found == read


@given(fleets(), policies(stage="route"), requests, st.sampled_from(ASKS))
def test_a_stricter_posture_never_lowers_the_quality(
    fleet: tuple[Backend, ...], policy: Policy, request: Request, ask: str
) -> None:
    lows = []
    for posture in ("local_first", "balanced", "quality_first"):
        found = run(fleet, msgspec.structs.replace(policy, posture=posture), request, ask)
        chosen = next((c for c in found.considered if c.verdict == "chosen"), None)
        if chosen is None:
            return
        lows.append(-1.0 if chosen.quality is None else chosen.quality.low)
    assert lows == sorted(lows)


@given(fleets(), policies(), requests)
def test_nothing_allowed_is_farther_than_any_limit_says(
    fleet: tuple[Backend, ...], policy: Policy, request: Request
) -> None:
    found = run(fleet, policy, request)
    places = {b.id: b.place for b in fleet}
    for rule in policy.rules:
        if rule.name in found.facts.rules and rule.require.farthest is not None:
            assert all(places[i] <= rule.require.farthest for i in usable(found))
    if policy.posture == "local_only":
        assert all(places[i].local for i in usable(found))


@given(fleets(), policies(), requests)
def test_c57_what_may_serve_an_embedding_is_of_one_family(
    fleet: tuple[Backend, ...], policy: Policy, request: Request
) -> None:
    found = run(fleet, policy, msgspec.structs.replace(request, format="openai_embeddings"))
    families = {b.embedding_family or b.id for b in fleet if b.id in usable(found)}
    assert len(families) <= 1


@given(fleets(), policies(), requests, outages)
def test_the_test_model_is_never_a_fallback(
    fleet: tuple[Backend, ...], policy: Policy, request: Request, down: dict[str, str]
) -> None:
    found = run(fleet, policy, request, unavailable=down)
    tests = {b.id for b in fleet if b.is_test}
    assert not tests & set(found.fallbacks)
    if found.chosen in tests:
        assert len(found.considered) == 1 or found.requested == found.chosen


@given(requires, requires, requires)
def test_limits_add_up_the_same_in_any_order(a: Require, b: Require, c: Require) -> None:
    assert narrow(a, b) == narrow(b, a)
    assert narrow(narrow(a, b), c) == narrow(a, narrow(b, c))
    assert narrow(a, a) == a == narrow(a, NO_LIMIT)
