"""The decision: facts → candidates → limits → the cheapest whose quality suffices → fallbacks.

`decide` is the whole of it, as a function of values. It has two halves: `survey` holds for every
call of a kind and may be kept; `choose` looks at one call. `Router` keeps surveys for one snapshot
and is what both the live path and every dry run call, so they cannot differ (C111).
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Protocol

import msgspec

from locavore.core.backend import Backend
from locavore.core.decision import Candidate, Considered, Decision, Facts
from locavore.core.errors import NoCandidate
from locavore.core.estimate import Estimate
from locavore.core.money import Cost, Price, Usage, cost_of
from locavore.core.policy import Policy, Require
from locavore.core.request import Request
from locavore.routing import limits as check
from locavore.routing.latency import forecast_ttft_s
from locavore.routing.names import Resolved
from locavore.routing.quality import Quality
from locavore.routing.reasons import AVAILABILITY, code_of
from locavore.routing.rules import NO_LIMIT, limits_of
from locavore.routing.survey import BELOW_FLOOR, SUFFICES, Option, Survey, survey


class Latency(Protocol):
    """Forecast seconds to the first token; None: unknown."""

    def __call__(self, backend: Backend, facts: Facts) -> Estimate | None: ...


class Prices(Protocol):
    """Cost of a usage at a price."""

    def __call__(self, usage: Usage, price: Price | None) -> Cost: ...


class Call(msgspec.Struct, frozen=True):
    """What the caller adds to a request."""

    decision_id: str
    unavailable: Mapping[str, str] = {}
    """backend id -> why it cannot be reached now."""
    limits: Require = NO_LIMIT
    """The caller's own limits, which only narrow."""
    fallbacks: bool = True
    """False: the caller wants no other backend tried."""


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


class _Row:
    """An option that this call may use, with what it would cost."""

    __slots__ = ("cost_usd", "option", "slow", "ttft_s")

    def __init__(
        self, option: Option, cost_usd: Decimal | None, ttft_s: Estimate | None, *, slow: bool
    ) -> None:
        self.option = option
        self.cost_usd = cost_usd
        self.ttft_s = ttft_s
        self.slow = slow


_ZERO = Decimal(0)


def _rank(row: _Row) -> tuple[int, float, bool, bool, Decimal, int, float, int]:
    """The cheapest that suffices; then the best that is known not to; then the unknown.

    A winner stays the winner under a stricter floor as long as it reaches it, and whoever follows
    it is better: so a stricter posture never lowers the quality.
    """
    option, cost_usd = row.option, row.cost_usd
    share = option.quality
    low = share.low if share is not None else 0.0
    return (
        option.tier,
        -low if option.tier == BELOW_FLOOR else 0.0,
        row.slow,
        cost_usd is None,
        _ZERO if cost_usd is None else cost_usd,
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
    options = found.options
    alone = len(options) == 1 and resolved.named and not found.excluded
    usage = _expected_usage(facts, policy)
    rows: list[_Row] = []
    excluded = list(found.excluded)
    for option in options:
        backend = option.backend
        ttft_s = latency(backend, facts)
        against = _overruns(option, found.limits, request, facts, ttft_s, call, prices)
        if against:
            excluded.append(_refused(option, against, ttft_s))
            continue
        cost_usd = prices(usage, backend.price).usd
        if alone:
            return _settled(option, cost_usd, ttft_s, request, facts, resolved, call, policy)
        slow = ttft_s is not None and ttft_s.mean > policy.patience_s
        rows.append(_Row(option, cost_usd, ttft_s, slow=slow))
    if len(rows) > 1 and not resolved.named:  # a named backend and its fallbacks keep their order
        rows.sort(key=_rank)
    return _decision(rows, excluded, request, facts, resolved, call, policy)


def _settled(
    option: Option,
    cost_usd: Decimal | None,
    ttft_s: Estimate | None,
    request: Request,
    facts: Facts,
    resolved: Resolved,
    call: Call,
    policy: Policy,
) -> Decision:
    """What `_decision` says of one named backend alone: most calls, and nothing to rank."""
    account = Considered(
        id=option.id,
        place=option.place,
        verdict="chosen",
        reasons=option.notes,
        cost_usd=cost_usd,
        quality=option.quality,
        ttft_s=ttft_s,
    )
    return Decision(
        id=call.decision_id,
        requested=request.model,
        resolved=resolved.kind,
        chosen=option.id,
        considered=(account,),
        facts=facts,
        stage=policy.stage,
        posture=policy.posture,
        baseline=policy.baseline,
        policy_version=policy.version,
    )


def _expected_usage(facts: Facts, policy: Policy) -> Usage:
    """An allowance to answer at length is not a long answer: the forecast is cut to the default."""
    return Usage(
        input_tokens=int(facts.input_tokens.mean),
        output_tokens=min(facts.output_tokens, policy.default_output_tokens),
        estimated=True,
    )


def _overruns(
    option: Option,
    limits: Require,
    request: Request,
    facts: Facts,
    ttft_s: Estimate | None,
    call: Call,
    prices: Prices,
) -> list[str]:
    """Reasons against an option that depend on this call's size and on what is reachable now."""
    backend, against = option.backend, []
    if call.unavailable and backend.id in call.unavailable:
        against.append(f"unavailable: {call.unavailable[backend.id]}")
    named = option.named
    window = check.over_window(request, facts, backend, named=named)
    if window is not None:
        against.append(window)
    if not named and request.max_output_tokens is not None:
        output = check.over_output(request, backend)
        if output is not None:
            against.append(output)
    if limits.max_ttft_s is not None and ttft_s is not None and ttft_s.high > limits.max_ttft_s:
        against.append(f"max_ttft: {ttft_s.high:.0f} s forecast, {limits.max_ttft_s:g} s allowed")
    if limits.max_cost_usd is not None:
        most = prices(_largest_usage(facts), backend.price).usd
        if most is None or most > limits.max_cost_usd:
            worst = "unknown" if most is None else f"${most:f}"
            against.append(f"max_cost: up to {worst}, ${limits.max_cost_usd} allowed")
    return against


def _largest_usage(facts: Facts) -> Usage:
    return Usage(
        input_tokens=int(facts.input_tokens.high), output_tokens=facts.output_tokens, estimated=True
    )


def _refused(option: Option, reasons: list[str], ttft_s: Estimate | None) -> Considered:
    return Considered(
        id=option.id,
        place=option.place,
        verdict="excluded",
        reasons=tuple(reasons),
        quality=option.quality,
        ttft_s=ttft_s,
    )


def _decision(
    rows: list[_Row],
    excluded: list[Considered],
    request: Request,
    facts: Facts,
    resolved: Resolved,
    call: Call,
    policy: Policy,
) -> Decision:
    observing = resolved.virtual == "auto" and policy.stage == "observe" and policy.baseline
    would_choose = rows[0].option.id if rows else None
    baseline = None
    if not resolved.named and policy.baseline is not None:
        baseline = next((r for r in rows if r.option.id == policy.baseline), None)
        if observing and baseline is not None and baseline is not rows[0]:
            rows = [baseline, *(r for r in rows if r is not baseline)]
    # The others passed the same limits at this call's size, so any of them may follow (C42).
    fallbacks = min(len(rows) - 1, policy.max_fallbacks) if call.fallbacks else 0
    why = () if resolved.named else _why(rows, baseline, observing=bool(observing))
    considered = [
        _account(row, position, fallbacks, why, allowed=call.fallbacks)
        for position, row in enumerate(rows)
    ]
    return Decision(
        id=call.decision_id,
        requested=request.model,
        resolved=resolved.kind,
        chosen=rows[0].option.id if rows else None,
        fallbacks=tuple(row.option.id for row in rows[1 : 1 + fallbacks]),
        considered=(*considered, *excluded),
        facts=facts,
        stage=policy.stage,
        posture=policy.posture,
        baseline=policy.baseline,
        would_choose=would_choose if observing else None,
        baseline_cost_usd=baseline.cost_usd if baseline is not None else None,
        policy_version=policy.version,
    )


def _why(rows: list[_Row], baseline: _Row | None, *, observing: bool) -> tuple[str, ...]:
    """What the chosen row owes its place to."""
    if not rows:
        return ()
    if observing and baseline is not None:
        return ("baseline",)
    excluded = ("baseline_excluded",) if observing else ()
    if len(rows) == 1:
        return (*excluded, "only_one")
    return (*excluded, "cheapest") if rows[0].option.tier == SUFFICES else excluded


def _account(
    row: _Row, position: int, fallbacks: int, why: tuple[str, ...], *, allowed: bool
) -> Considered:
    notes = row.option.notes
    verdict = "chosen"
    if position == 0:
        notes = why + notes
    elif position <= fallbacks:
        verdict = "fallback"
    else:
        verdict = "allowed"
        notes = (*notes, "over_fallbacks" if allowed else "no_fallback")
    if row.slow:
        notes = (*notes, "slow")
    if row.cost_usd is None:
        notes = (*notes, "cost_unknown")
    return Considered(
        id=row.option.id,
        place=row.option.place,
        verdict=verdict,
        reasons=notes,
        cost_usd=row.cost_usd,
        quality=row.option.quality,
        ttft_s=row.ttft_s,
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
