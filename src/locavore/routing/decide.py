"""The decision: facts → candidates → limits → the cheapest whose quality suffices → fallbacks.

`decide` is the whole of it, as a function of values. It has two halves: `survey` holds for every
call of a kind and may be kept; `choose` looks at one call. `Router` keeps surveys for one snapshot
and is what both the live path and every dry run call, so they cannot differ (C111).
"""

from collections.abc import Sequence
from decimal import Decimal

from locavore.core.decision import (
    Candidate,
    CascadePlan,
    Considered,
    Decision,
    Facts,
    Given,
)
from locavore.core.errors import NoCandidate
from locavore.core.money import cost_of
from locavore.core.policy import Policy
from locavore.core.request import Request
from locavore.routing.cost import Prices, expected_usage
from locavore.routing.latency import forecast_ttft_s
from locavore.routing.names import Resolved
from locavore.routing.quality import Quality
from locavore.routing.reasons import AVAILABILITY, code_of
from locavore.routing.rules import NO_LIMIT, limits_of
from locavore.routing.survey import BELOW_FLOOR, SUFFICES, Survey, survey
from locavore.routing.weighing import Call, Latency, Row, Weigher


def decide(
    request: Request,
    facts: Facts,
    candidates: Sequence[Candidate],
    *,
    resolved: Resolved,
    call: Call,
    policy: Policy,
    quality: Quality,
    latency: Latency = forecast_ttft_s,
    prices: Prices = cost_of,
) -> Decision:
    """The decision for one call; `chosen` is None when nothing is allowed (see `refusal`).

    Pure: the same values give the same decision. Every candidate is accounted for.
    """
    found = survey(
        candidates,
        resolved=resolved,
        limits=limits_of(policy, facts.rules, call.limits),
        needs=request.needs,
        request_format=request.format,
        task=facts.task,
        policy=policy,
        quality=quality,
    )
    return choose(
        found,
        request,
        facts,
        resolved=resolved,
        call=call,
        policy=policy,
        latency=latency,
        prices=prices,
    )


_ZERO = Decimal(0)


def _rank(row: Row) -> tuple[int, float, bool, bool, bool, Decimal, bool, int, float, int]:
    """The cheapest that suffices; then the best that is known not to; then the unknown.

    A winner stays the winner under a stricter floor as long as it reaches it, and whoever follows
    it is better: so a stricter posture never lowers the quality. At equal cost a conversation
    stays where it is.
    """
    option, cost_usd = row.option, row.cost_usd
    share = option.quality
    low = share.low if share is not None else 0.0
    return (
        row.tier,
        -low if row.tier == BELOW_FLOOR else 0.0,
        row.leaves,
        row.slow,
        cost_usd is None,
        _ZERO if cost_usd is None else cost_usd,
        not row.home,
        option.backend.place,
        -low,
        option.order,
    )


def choose(
    found: Survey,
    request: Request,
    facts: Facts,
    resolved: Resolved,
    call: Call,
    *,
    policy: Policy,
    latency: Latency = forecast_ttft_s,
    prices: Prices = cost_of,
) -> Decision:
    """The second half of `decide`."""
    options, named = found.options, resolved.virtual is None
    alone = named and len(options) == 1 and not found.excluded
    usage = expected_usage(facts, policy)
    weigher = Weigher(request, facts, call, found.limits, policy, latency, prices, usage)
    rows: list[Row] = []
    excluded = list(found.excluded)
    for option in options:  # a cascade comes after the two it is made of
        weighed = weigher.direct(option) if option.cloud is None else weigher.cascade(option)
        if isinstance(weighed, Considered):
            excluded.append(weighed)
            continue
        if alone:
            return _settled(weighed, request, facts, resolved, call, policy)
        rows.append(weighed)
    if len(rows) > 1 and not named:  # a named backend and its fallbacks keep their order
        rows.sort(key=_rank)
    return _decision(rows, excluded, request, facts, resolved, call, policy)


def _settled(
    row: Row, request: Request, facts: Facts, resolved: Resolved, call: Call, policy: Policy
) -> Decision:
    """What `_decision` says of one named backend alone: most calls, and nothing to rank."""
    return Decision(
        id=call.decision_id,
        requested=request.model,
        resolved=resolved.kind,
        chosen=row.option.id,
        considered=(_line(row, "chosen", row.notes),),
        facts=facts,
        stage=policy.stage,
        posture=policy.posture,
        baseline=policy.baseline,
        policy_version=policy.version,
        given=_given(call),
    )


def _decision(
    rows: list[Row],
    excluded: list[Considered],
    request: Request,
    facts: Facts,
    resolved: Resolved,
    call: Call,
    policy: Policy,
) -> Decision:
    named = resolved.virtual is None
    observing = resolved.virtual == "auto" and policy.stage == "observe" and policy.baseline
    would_choose = rows[0].option.id if rows else None
    baseline = None
    if not named and policy.baseline is not None:
        for row in rows:
            if row.option.id == policy.baseline:
                baseline = row
                break
        if observing and baseline is not None and baseline is not rows[0]:
            rows = [baseline, *(r for r in rows if r is not baseline)]
    spares = _spares(rows, policy.max_fallbacks) if call.fallbacks else []
    why = () if named else _why(rows, baseline, observing=bool(observing))
    first = rows[0] if rows else None
    asked = _asked(first) if first is not None else ()
    spared = "over_fallbacks" if call.fallbacks else "no_fallback"
    accounts = [_account(row, why, first, asked, spares, spared) for row in rows]
    return Decision(
        id=call.decision_id,
        requested=request.model,
        resolved=resolved.kind,
        chosen=first.option.id if first is not None else None,
        fallbacks=tuple([row.option.id for row in spares]),
        considered=(*accounts, *excluded),
        facts=facts,
        stage=policy.stage,
        posture=policy.posture,
        baseline=policy.baseline,
        would_choose=would_choose if observing else None,
        baseline_cost_usd=baseline.cost_usd if baseline is not None else None,
        policy_version=policy.version,
        cascade=_plan(first) if first is not None else None,
        given=_given(call),
    )


def _spares(rows: list[Row], most: int) -> list[Row]:
    """Fallbacks: single backends that the chosen row does not ask anyway.

    They passed the same limits at this call's size, so any of them may follow (C42).
    """
    if len(rows) < 2:
        return []
    asked = _asked(rows[0])
    rest = [row for row in rows[1:] if row.option.cloud is None and row.option.id not in asked]
    return rest[:most]


def _asked(row: Row) -> tuple[str, ...]:
    """Backends that a choice asks by itself."""
    option = row.option
    return (option.id,) if option.cloud is None else (option.backend.id, option.cloud.id)


def _plan(row: Row) -> CascadePlan | None:
    option = row.option
    if option.cloud is None:
        return None
    return CascadePlan(
        local=option.backend.id,
        cloud=option.cloud.id,
        hold_s=row.hold_s,
        samples=option.promise.samples if option.promise is not None else 0,
    )


def _given(call: Call) -> Given | None:
    """What a replay must be told to decide the same (C110)."""
    limits = None if call.limits is NO_LIMIT or call.limits == NO_LIMIT else call.limits
    if (
        limits is None
        and call.fallbacks
        and not (
            call.unavailable or call.failure_rates or call.late_shares or call.home or call.unjudged
        )
    ):
        return None
    return Given(
        limits=limits,
        fallbacks=call.fallbacks,
        unavailable=dict(call.unavailable),
        failure_rates=dict(call.failure_rates),
        late_shares=dict(call.late_shares),
        home=call.home,
        cached_share=call.cached_share,
        unjudged=call.unjudged,
    )


def _why(rows: list[Row], baseline: Row | None, *, observing: bool) -> tuple[str, ...]:
    """What the chosen row owes its place to."""
    if not rows:
        return ()
    if observing and baseline is not None:
        return ("baseline",)
    excluded = ("baseline_excluded",) if observing else ()
    if len(rows) == 1:
        return (*excluded, "only_one")
    return (*excluded, "cheapest") if rows[0].tier == SUFFICES else excluded


def _account(
    row: Row,
    why: tuple[str, ...],
    first: Row | None,
    asked: tuple[str, ...],
    spares: list[Row],
    spared: str,
) -> Considered:
    option = row.option
    notes = why + row.notes if row is first else row.notes
    verdict = "chosen" if row is first else "fallback" if row in spares else "allowed"
    if verdict == "allowed" and option.cloud is None and option.id not in asked:
        notes = (*notes, spared)
    return _line(row, verdict, notes)


def _line(row: Row, verdict: str, notes: tuple[str, ...]) -> Considered:
    option = row.option
    if row.slow:
        notes = (*notes, "slow")
    if row.cost_usd is None:
        notes = (*notes, "cost_unknown")
    return Considered(
        id=option.id,
        place=option.place,
        verdict=verdict,
        reasons=notes,
        cost_usd=row.cost_usd,
        quality=option.quality,
        ttft_s=row.ttft_s,
        charges=row.charges,
        promise=option.promise,
    )


# Nothing is allowed ------------------------------------------------------------------------------


def refusal(decision: Decision) -> NoCandidate:
    """The error for a decision that chose nothing, naming each excluder.

    503 when a candidate would do if only it could be reached, otherwise 400: asking again changes
    nothing. Never the cloud by default (C56).
    """
    excluded = {c.id: c.reasons for c in decision.considered}
    passing = any(
        reasons and all(code_of(r) in AVAILABILITY for r in reasons)
        for reasons in excluded.values()
    )
    error = NoCandidate(_refusal_text(decision), excluded=excluded, status=503 if passing else 400)
    error.decision = decision
    if excluded and all(
        any(code_of(r) == "context" for r in reasons) for reasons in excluded.values()
    ):
        error.code = "context_length_exceeded"
    return error


def _refusal_text(decision: Decision) -> str:
    lines = "; ".join(f"{c.id}: {', '.join(c.reasons)}" for c in decision.considered)
    what = f"nothing that is allowed can serve {decision.requested!r}"
    bound = f" (rules: {', '.join(decision.facts.rules)})" if decision.facts.rules else ""
    if not lines:
        return f"{what}: there is no backend of that kind; `locavore doctor` says what was found"
    return f"{what}{bound}: {lines}"
