"""What is chosen, what is not, and the reasons."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from locavore.core.backend import Backend, Capability, Place
from locavore.core.decision import Decision
from locavore.core.errors import RequestError
from locavore.core.estimate import Estimate
from locavore.core.money import Price, Rate
from locavore.core.policy import Policy, Require, Rule, When
from locavore.core.request import Request, Turn
from locavore.routing.conversation import Talk, said
from locavore.routing.decide import refusal
from locavore.routing.reasons import CODES, code_of
from locavore.routing.router import Router

CHAT = frozenset({"chat"})


def score(value: float) -> Estimate:
    return Estimate.exact(value, source="test")


def backend(name: str, place: Place = Place.PUBLIC_API, **changes: Any) -> Backend:
    provider, _, model = name.partition("/")
    chat = changes.pop("chat", None)
    usd = changes.pop("usd", None)
    price = None
    if usd is not None:
        price = Price(rate=Rate(input_mtok=Decimal(usd), output_mtok=Decimal(usd)), source="test")
    fields: dict[str, Any] = {
        "url": "http://127.0.0.1:1/v1",
        "dialect": "openai",
        "capabilities": CHAT,
        "price": price,
        "context_tokens": 100_000,
        "quality": {} if chat is None else {"chat": score(chat)},
    }
    return Backend(id=name, provider=provider, model=model, place=place, **(fields | changes))


BIG = backend("cloud/big", usd="8", chat=0.90)
SMALL = backend("cloud/small", usd="1", chat=0.75)
GOOD = backend("home/good", Place.ON_PREM, usd="0.5", chat=0.74)
WEAK = backend("home/weak", Place.ON_PREM, usd="0", chat=0.40)
NEW = backend("home/new", Place.EMBEDDED, usd="0")
ALL = (BIG, SMALL, GOOD, WEAK, NEW)
ROUTE = Policy(stage="route", baseline="cloud/big", labels=frozenset({"health", "secret"}))


def request(model: str = "auto", **changes: Any) -> Request:
    fields: dict[str, Any] = {"format": "openai_chat", "body": b"{}", "prompt_bytes": 400}
    return Request(model=model, **(fields | changes))


def decide(
    asked: Request,
    policy: Policy = ROUTE,
    backends: tuple[Backend, ...] = ALL,
    **options: Any,
) -> Decision:
    router = Router(policy, backends)
    return router.decide(asked, decision_id="d", talk=said(asked, "hello"), **options)


def with_rule(policy: Policy = ROUTE, **require: Any) -> Policy:
    return msgspec.structs.replace(policy, rules=(Rule(name="r", require=Require(**require)),))


def reasons(decision: Decision) -> Mapping[str, tuple[str, ...]]:
    return {c.id: c.reasons for c in decision.considered}


def codes(decision: Decision, name: str) -> set[str]:
    return {code_of(r) for r in reasons(decision)[name]}


# Objective ---------------------------------------------------------------------------------------


def test_the_cheapest_that_suffices_is_chosen() -> None:
    found = decide(request())
    assert found.chosen == "home/good"
    assert reasons(found)["home/good"] == ("cheapest",)
    assert found.fallbacks[:2] == ("cloud/small", "cloud/big")
    assert found.baseline_cost_usd is not None


@pytest.mark.parametrize(
    ("posture", "chosen"),
    [
        ("local_only", "home/new"),  # any quality does, and the embedded one is nearest
        ("local_first", "home/good"),
        ("balanced", "cloud/big"),
        ("quality_first", "cloud/big"),
    ],
)
def test_posture_is_the_floor(posture: Any, chosen: str) -> None:
    policy = msgspec.structs.replace(ROUTE, posture=posture)
    assert decide(request(), policy).chosen == chosen


def test_unknown_quality_suffices_only_when_nothing_else_is_allowed() -> None:
    assert decide(request(), backends=(NEW, BIG)).chosen == "cloud/big"
    assert decide(request("local"), backends=(NEW, BIG)).chosen == "home/new"
    assert decide(request("local"), backends=(NEW, WEAK, BIG)).chosen == "home/weak"


def test_local_only_never_leaves_the_house() -> None:
    policy = msgspec.structs.replace(ROUTE, posture="local_only")
    for name in ("auto", "cloud", "cloud/big"):
        found = decide(request(name), policy, (BIG, SMALL))
        assert found.chosen is None
        assert codes(found, "cloud/big") == {"place"}


def test_without_a_baseline_the_best_candidate_is_the_measure() -> None:
    policy = Policy(stage="route")
    assert decide(request(), policy).chosen == "home/good"
    strict = Policy(stage="route", posture="quality_first")
    assert decide(request(), strict).chosen == "cloud/big"


def test_an_unknown_price_is_never_the_cheapest() -> None:
    unpriced = backend("cloud/unpriced", chat=0.9)
    found = decide(request(), backends=(unpriced, SMALL))
    assert found.chosen == "cloud/small"
    assert "cost_unknown" in codes(found, "cloud/unpriced")
    only = decide(request(), Policy(stage="route"), (unpriced,))
    assert only.chosen == "cloud/unpriced"
    assert only.considered[0].cost_usd is None


def test_slow_prefill_comes_last_unless_it_is_all_there_is() -> None:
    slow = msgspec.structs.replace(GOOD, prefill_tokens_s=10.0)
    long = request(prompt_bytes=40_000)
    found = decide(long, backends=(slow, BIG))
    assert found.chosen == "cloud/big"
    assert "slow" in codes(found, "home/good")
    assert decide(long, backends=(slow,)).chosen == "home/good"
    assert decide(request(), backends=(slow, BIG)).chosen == "home/good"


# Stage -------------------------------------------------------------------------------------------

OBSERVE = msgspec.structs.replace(ROUTE, stage="observe")


def test_observe_sends_auto_to_the_baseline_and_records_the_choice() -> None:
    found = decide(request(), OBSERVE)
    assert (found.chosen, found.would_choose) == ("cloud/big", "home/good")
    assert reasons(found)["cloud/big"] == ("baseline",)


def test_observe_limits_still_bind() -> None:
    policy = msgspec.structs.replace(
        OBSERVE,
        rules=(Rule(name="r", when=When(label="health"), require=Require(farthest=Place.ON_PREM)),),
    )
    found = decide(request(labels=frozenset({"health"})), policy)
    assert (found.chosen, found.would_choose) == ("home/good", "home/good")
    assert "baseline_excluded" in codes(found, "home/good")
    assert codes(found, "cloud/big") == {"place"}
    assert found.facts.rules == ("r",)


def test_observe_leaves_other_names_alone() -> None:
    assert decide(request("local"), OBSERVE).chosen == "home/good"
    assert decide(request("cloud"), OBSERVE).chosen == "cloud/small"
    assert decide(request("cloud"), OBSERVE).would_choose is None


def test_observe_without_a_baseline_decides() -> None:
    assert decide(request(), Policy(stage="observe")).chosen == "home/good"


def test_a_baseline_only_a_wildcard_serves_competes() -> None:
    template = msgspec.structs.replace(BIG, id="openai/*", provider="openai", model="*")
    policy = Policy(stage="observe", baseline="openai/gpt-9")
    router = Router(policy, (WEAK,), wildcards={"openai": template})
    found = router.decide(request(), decision_id="d", talk=said(request(), "hi"))
    assert found.chosen == "openai/gpt-9"
    assert router.backend("openai/gpt-9").model == "gpt-9"


# Limits ------------------------------------------------------------------------------------------


def test_jurisdiction() -> None:
    german = backend("eu/de", usd="9", jurisdiction="DE", chat=0.9)
    american = backend("us/x", usd="1", jurisdiction="US", chat=0.9)
    somewhere = backend("x/y", usd="1", chat=0.9)
    found = decide(
        request(),
        with_rule(jurisdictions=frozenset({"EU"})),
        (german, american, somewhere, GOOD),
    )
    assert codes(found, "us/x") == codes(found, "x/y") == {"jurisdiction"}
    assert {found.chosen, *found.fallbacks} == {"eu/de", "home/good"}


def test_listed_backends() -> None:
    found = decide(request(), with_rule(backends=frozenset({"cloud/big"})))
    assert (found.chosen, found.fallbacks) == ("cloud/big", ())


def test_c62_an_unknown_price_is_refused_under_a_cost_limit() -> None:
    unpriced = backend("cloud/unpriced", chat=0.9)
    found = decide(request(), with_rule(max_cost_usd=Decimal(1)), (unpriced, BIG))
    assert codes(found, "cloud/unpriced") == {"price_unknown"}
    assert found.chosen == "cloud/big"


def test_a_cost_limit_counts_the_safe_side() -> None:
    asked = request(prompt_bytes=40_000, max_output_tokens=1000)
    # 40,000 bytes are 10,000 tokens at the mean: 11,000 × $8 / 10⁶ = $0.088, but more at worst.
    found = decide(asked, with_rule(max_cost_usd=Decimal("0.09")), (BIG,))
    assert found.chosen is None
    assert codes(found, "cloud/big") == {"max_cost"}
    assert decide(asked, with_rule(max_cost_usd=Decimal("0.20")), (BIG,)).chosen == "cloud/big"


def test_a_cost_limit_counts_every_answer_that_is_asked_for() -> None:
    asked = request(max_output_tokens=1000)
    limited = with_rule(max_cost_usd=Decimal("0.02"))
    assert decide(asked, limited, (BIG,)).chosen == "cloud/big"
    several = msgspec.structs.replace(asked, n=8)
    assert codes(decide(several, limited, (BIG,)), "cloud/big") == {"max_cost"}


def test_the_caller_can_only_narrow() -> None:
    found = decide(request(), with_rule(farthest=Place.ON_PREM), limits=Require(max_ttft_s=1))
    assert found.chosen == "home/good"
    wide = decide(
        request("cloud/big"),
        with_rule(farthest=Place.ON_PREM),
        limits=Require(farthest=Place.PUBLIC_API),
    )
    assert wide.chosen is None


def test_max_ttft_refuses_a_slow_prefill() -> None:
    slow = msgspec.structs.replace(GOOD, prefill_tokens_s=50.0)
    asked = request(prompt_bytes=60_000)
    found = decide(asked, with_rule(max_ttft_s=30.0), (slow,))
    assert codes(found, "home/good") == {"max_ttft"}
    assert decide(request(), with_rule(max_ttft_s=30.0), (slow,)).chosen == "home/good"


def test_min_quality_is_a_limit_not_a_wish() -> None:
    found = decide(request("local"), with_rule(min_quality=0.9))
    assert found.chosen is None
    assert all("min_quality" in codes(found, c.id) for c in found.considered)


def test_c25_a_capability_that_is_missing_is_never_ignored() -> None:
    lacking = msgspec.structs.replace(GOOD, lacks=frozenset({"tool_choice"}))
    able = msgspec.structs.replace(BIG, capabilities=CHAT | {"tool_choice"})
    asked = request(needs=frozenset({Capability.TOOL_CHOICE}))
    found = decide(asked, backends=(lacking, able))
    assert (found.chosen, found.fallbacks) == ("cloud/big", ())
    assert codes(found, "home/good") == {"capability_missing"}
    named = decide(msgspec.structs.replace(asked, model="home/good"), backends=(lacking, able))
    assert named.chosen is None
    assert refusal(named).status == 400
    assert "tool_choice" in refusal(named).message


def test_an_unchecked_capability_serves_only_who_names_the_backend() -> None:
    asked = request("home/good", needs=frozenset({Capability.TOOLS}))
    named = decide(asked)
    assert named.chosen == "home/good"
    assert "capability_unchecked" in codes(named, "home/good")
    found = decide(msgspec.structs.replace(asked, model="auto"))
    assert found.chosen is None
    assert "capability_unknown" in codes(found, "home/good")


def test_c28_a_hop_that_cannot_hold_the_schema_is_skipped() -> None:
    strict = frozenset({Capability.JSON_SCHEMA})
    able = [msgspec.structs.replace(b, capabilities=CHAT | strict) for b in (GOOD, BIG)]
    found = decide(request(needs=strict), backends=(SMALL, *able))
    assert {found.chosen, *found.fallbacks} == {"home/good", "cloud/big"}


def test_what_a_protocol_cannot_say_is_routed_elsewhere() -> None:
    native = backend("anthropic/x", usd="1", dialect="anthropic", chat=0.9)
    native = msgspec.structs.replace(native, capabilities=CHAT | {"logprobs"})
    other = msgspec.structs.replace(BIG, capabilities=CHAT | {"logprobs"})
    found = decide(request(needs=frozenset({Capability.LOGPROBS})), backends=(native, other))
    assert codes(found, "anthropic/x") == {"untranslatable"}
    assert found.chosen == "cloud/big"


def test_c43_output_budget_counts_against_the_window() -> None:
    # 1,000 ASCII bytes are at most 400 tokens and their template; the figures are in the facts.
    prompt = int(decide(request(prompt_bytes=1000)).facts.input_tokens.high)
    for spare, fits in ((0, True), (-1, False)):
        window = msgspec.structs.replace(BIG, context_tokens=prompt + 500 + spare)
        found = decide(request(prompt_bytes=1000, max_output_tokens=500), backends=(window,))
        assert (found.chosen == "cloud/big") is fits
    default = msgspec.structs.replace(ROUTE, default_output_tokens=500)
    tight = msgspec.structs.replace(BIG, context_tokens=2000)
    assert decide(request(prompt_bytes=1000), default, (tight,)).chosen == "cloud/big"


def test_c42_no_fallback_has_a_window_too_small_for_this_request() -> None:
    narrow = msgspec.structs.replace(GOOD, context_tokens=8192)
    asked = request(prompt_bytes=60_000)
    found = decide(asked, backends=(BIG, SMALL, narrow))
    assert {found.chosen, *found.fallbacks} == {"cloud/small", "cloud/big"}
    assert codes(found, "home/good") == {"context"}
    policy = msgspec.structs.replace(ROUTE, fallbacks={"cloud/big": ("home/good", "cloud/small")})
    named = decide(msgspec.structs.replace(asked, model="cloud/big"), policy, (BIG, SMALL, narrow))
    assert (named.chosen, named.fallbacks) == ("cloud/big", ("cloud/small",))


def test_an_engine_of_unknown_window_gets_no_long_prompt_by_itself() -> None:
    unknown = msgspec.structs.replace(GOOD, context_tokens=None)
    assert decide(request(prompt_bytes=40_000), backends=(unknown,)).chosen is None
    assert decide(request(), backends=(unknown,)).chosen == "home/good"
    named = request("home/good", prompt_bytes=40_000)
    assert decide(named, backends=(unknown,)).chosen == "home/good"


def test_a_named_backend_is_refused_only_what_cannot_fit() -> None:
    window = msgspec.structs.replace(GOOD, context_tokens=3000)
    assert decide(request("home/good", prompt_bytes=8000), backends=(window,)).chosen == "home/good"
    found = decide(request("home/good", prompt_bytes=80_000), backends=(window,))
    assert found.chosen is None
    assert refusal(found).code == "context_length_exceeded"
    assert refusal(found).status == 400


def test_longer_answers_than_a_model_gives() -> None:
    short = msgspec.structs.replace(GOOD, max_output_tokens=100)
    found = decide(request(max_output_tokens=101), backends=(short, BIG))
    assert found.chosen == "cloud/big"
    assert codes(found, "home/good") == {"output"}


# Embeddings --------------------------------------------------------------------------------------


def embedder(name: str, family: str | None, **changes: Any) -> Backend:
    return backend(
        name,
        capabilities=frozenset({"embeddings"}),
        embedding_family=family,
        **({"usd": "1"} | changes),
    )


def test_c57_embeddings_never_cross_families() -> None:
    first = embedder("home/bge", "bge-m3/1024/l2", place=Place.ON_PREM)
    same = embedder("cloud/bge", "bge-m3/1024/l2", usd="2")
    other = embedder("cloud/ada", "ada/1536", usd="0")
    asked = request(format="openai_embeddings")
    found = decide(asked, backends=(BIG, first, same, other))
    assert {found.chosen, *found.fallbacks} == {"home/bge", "cloud/bge"}
    assert codes(found, "cloud/ada") == {"embedding_family"}
    assert codes(found, "cloud/big") >= {"capability_missing"}
    down = decide(asked, backends=(first, other), unavailable={"home/bge": "breaker_open"})
    assert down.chosen is None
    assert refusal(down).status == 503


def test_c57_undeclared_families_are_each_their_own() -> None:
    asked = request("a/x", format="openai_embeddings")
    policy = msgspec.structs.replace(ROUTE, fallbacks={"a/x": ("b/x",)})
    found = decide(asked, policy, (embedder("a/x", None), embedder("b/x", None)))
    assert (found.chosen, found.fallbacks) == ("a/x", ())


def test_an_embedder_answers_no_chat() -> None:
    found = decide(request(), backends=(embedder("home/bge", None), BIG))
    assert found.chosen == "cloud/big"
    assert codes(found, "home/bge") == {"capability_missing"}


# Names and fallbacks -----------------------------------------------------------------------------


def test_a_named_backend_has_no_fallbacks_unless_configured() -> None:
    found = decide(request("home/good"))
    assert (found.chosen, found.fallbacks, len(found.considered)) == ("home/good", (), 1)
    policy = msgspec.structs.replace(ROUTE, fallbacks={"home/good": ("cloud/small", "gone/x")})
    found = decide(request("home/good"), policy)
    assert found.fallbacks == ("cloud/small",)
    assert codes(found, "cloud/small") == {"configured_fallback"}


@pytest.mark.parametrize(
    "state",
    [
        {"failure_rates": {"home/good": 0.5}},
        {"limits": Require(max_cost_usd=Decimal(1))},
        {"fallbacks": False},
        {"unavailable": {"home/weak": "breaker_open"}},
    ],
    ids=lambda state: next(iter(state)),
)
def test_c110_a_named_backend_alone_is_accounted_for_like_one_with_a_fallback(
    state: dict[str, Any],
) -> None:
    policy = msgspec.structs.replace(ROUTE, fallbacks={"home/good": ("cloud/small",)})
    alone = decide(request("home/good"), **state)
    followed = decide(request("home/good"), policy, **state)
    assert alone.considered == followed.considered[:1]
    assert alone.given is not None
    assert alone.given == followed.given
    assert decide(request("home/good"), given=alone.given) == alone


def test_what_is_doubtful_about_a_named_backend_is_noted_when_it_is_alone() -> None:
    odd = backend("home/odd", Place.ON_PREM, prefill_tokens_s=1.0)
    found = decide(request("home/odd"), backends=(odd,))
    assert codes(found, "home/odd") == {"named", "slow", "cost_unknown"}


def test_c56_configured_fallbacks_stay_within_the_limits() -> None:
    policy = msgspec.structs.replace(
        with_rule(farthest=Place.ON_PREM), fallbacks={"home/good": ("cloud/small", "home/weak")}
    )
    found = decide(request("home/good"), policy)
    assert found.fallbacks == ("home/weak",)


def test_the_caller_can_refuse_fallbacks() -> None:
    found = decide(request(), fallbacks=False)
    assert (found.chosen, found.fallbacks) == ("home/good", ())
    assert "no_fallback" in codes(found, "cloud/big")


def test_the_number_of_fallbacks_is_bounded() -> None:
    policy = msgspec.structs.replace(ROUTE, max_fallbacks=1)
    found = decide(request(), policy)
    assert len(found.fallbacks) == 1
    assert sum(c.verdict == "allowed" for c in found.considered) == 3


def test_the_test_model_is_never_a_fallback() -> None:
    test = backend("embedded/test", Place.EMBEDDED, usd="0", is_test=True)
    found = decide(request(), backends=(BIG, test), unavailable={"cloud/big": "down"})
    assert found.chosen is None
    assert codes(found, "embedded/test") == {"test_model"}
    alone = decide(request(), Policy(stage="route"), (test,))
    assert alone.chosen == "embedded/test"
    assert "test_model_only" in codes(alone, "embedded/test")
    assert decide(request("embedded/test"), backends=(BIG, test)).chosen == "embedded/test"
    policy = msgspec.structs.replace(ROUTE, fallbacks={"cloud/big": ("embedded/test",)})
    assert decide(request("cloud/big"), policy, (BIG, test)).fallbacks == ()


# Refusal -----------------------------------------------------------------------------------------


def test_c56_no_eligible_backend_fails_closed_with_a_4xx() -> None:
    found = decide(request(), with_rule(farthest=Place.EMBEDDED), (BIG, GOOD))
    error = refusal(found)
    assert (found.chosen, error.status, error.code) == (None, 400, "no_candidate")
    assert set(error.excluded) == {"cloud/big", "home/good"}
    for part in ("cloud/big", "home/good", "on_prem is farther than embedded", "rules: r"):
        assert part in error.message


def test_c55_what_cannot_be_reached_makes_a_503_naming_each() -> None:
    down = {"cloud/big": "breaker_open: connect, next try in 9 s", "home/good": "gone"}
    found = decide(request(), backends=(BIG, GOOD), unavailable=down)
    error = refusal(found)
    assert error.status == 503
    assert "next try in 9 s" in error.message
    partly = decide(
        request(),
        with_rule(farthest=Place.ON_PREM),
        (BIG, GOOD),
        unavailable={"cloud/big": "down"},
    )
    assert partly.chosen == "home/good"


def test_no_backend_of_that_kind() -> None:
    found = decide(request("cloud"), Policy(stage="route"), (GOOD,))
    assert found.chosen is None
    assert "locavore doctor" in refusal(found).message


def test_an_unknown_label_is_a_400_that_names_the_known_ones() -> None:
    with pytest.raises(RequestError) as caught:
        decide(request(labels=frozenset({"helth"})))
    assert (caught.value.status, caught.value.code) == (400, "unknown_label")
    assert "'helth'" in caught.value.message
    assert "health, secret" in caught.value.message


def test_c92_labels_of_the_session_bind() -> None:
    policy = msgspec.structs.replace(
        ROUTE,
        rules=(Rule(name="r", when=When(label="health"), require=Require(farthest=Place.ON_PREM)),),
    )
    found = decide(request(), policy, session_labels=frozenset({"health"}))
    assert found.facts.labels == {"health"}
    assert all(i.startswith("home/") for i in (found.chosen or "", *found.fallbacks))


def test_rules_that_look_at_the_task_work_for_named_backends() -> None:
    policy = msgspec.structs.replace(
        ROUTE, rules=(Rule(name="r", when=When(task="code"), require=Require(farthest=Place(1))),)
    )
    router = Router(policy, ALL)
    asked = request("cloud/big")
    code = router.decide(asked, decision_id="d", talk=said(asked, "debug this python"))
    assert code.chosen is None
    hello = router.decide(asked, decision_id="d", talk=said(asked, "hello"))
    assert hello.chosen == "cloud/big"


def test_a_named_model_does_not_pay_for_the_ask() -> None:
    def unread(_: bytes) -> list[Turn]:
        raise AssertionError("read the ask of a call that named its model")

    asked = request("cloud/big")
    found = Router(ROUTE, ALL).decide(asked, decision_id="d", talk=Talk(asked, unread))
    assert (found.chosen, found.facts.task) == ("cloud/big", "unread")


def test_every_code_is_documented() -> None:
    seen = set()
    for decision in (
        decide(request(), OBSERVE),
        decide(request(prompt_bytes=600_000)),
        decide(request(needs=frozenset({"vision"}))),
        decide(request("home/good"), unavailable={"home/good": "x"}),
    ):
        for considered in decision.considered:
            seen |= {code_of(reason) for reason in considered.reasons}
    assert seen
    assert seen <= CODES.keys()
