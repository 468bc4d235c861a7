"""What is written down about a call: a line for each attempt, one record when it is finished."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from locavore.core.access import Grant
from locavore.core.backend import Backend
from locavore.core.decision import Decision
from locavore.core.money import Cost, Usage, cost_of
from locavore.core.outcome import Attempt, CallRecord
from locavore.core.request import Request

if TYPE_CHECKING:
    from locavore.serving.attempt import Attempt as RunningAttempt

SHADOW = "shadow"
"""Kind of an attempt, and of a call, that no client waits for."""
LATE = "late"
"""Fault of an attempt that was given up because whoever asked had waited long enough."""
MESSAGE_CHARS = 500
"""An upstream's own words are kept up to here."""


def attempt_record(
    attempt: RunningAttempt,
    mono_s: float,
    usage: Usage | None,
    *,
    fault: str | None = None,
    message: str | None = None,
) -> Attempt:
    """The line of an attempt that was sent and is over."""
    backend = attempt.backend
    # CPython passes more than 15 keywords through a dict: 2 µs. What is rare is added after.
    record = Attempt(
        id=attempt.id,
        backend=backend.id,
        provider=backend.provider,
        model=backend.model,
        place=backend.place.label,
        kind=attempt.kind,
        started_s=attempt.started_s,
        ttft_s=attempt.ttft_s,
        duration_s=mono_s - attempt.started_mono_s,
        status=attempt.status,
        usage=usage,
        cost=_no_usage(fault) if usage is None else cost_of(usage, backend.price),
        weights_sha256=backend.weights_sha256,
        engine_build=backend.engine_build,
    )
    if fault is None:
        return record
    kept = message[:MESSAGE_CHARS] if message else None
    return msgspec.structs.replace(record, fault=fault, message=kept)


def _no_usage(fault: str | None) -> Cost | None:
    """A failed attempt without usage cost nothing we know of: no cost rather than a zero one."""
    return None if fault is not None else Cost(usd=None, source="no usage")


def estimated_usage(decision: Decision, *, output_tokens: int, known: Usage | None) -> Usage:
    """Usage where the upstream told none or only a part of it, marked as ours (C15)."""
    known = known or Usage()
    facts = decision.facts
    input_tokens = known.input_tokens
    output = known.output_tokens
    return Usage(
        input_tokens=round(facts.input_tokens.mean) if input_tokens is None else input_tokens,
        output_tokens=output_tokens if output is None else max(output, output_tokens),
        cache_read_tokens=known.cache_read_tokens,
        cache_write_tokens=known.cache_write_tokens,
        reasoning_tokens=known.reasoning_tokens,
        estimated=True,
    )


def total_cost(attempts: list[Attempt]) -> Decimal | None:
    """Sum over the attempts; None when any attempt that used tokens has an unknown cost."""
    if len(attempts) == 1 and attempts[0].cost is not None:
        return attempts[0].cost.usd
    total = Decimal(0)
    for attempt in attempts:
        if attempt.cost is None:
            continue
        if attempt.cost.usd is None:
            return None
        total += attempt.cost.usd
    return total


def answering(attempts: Sequence[Attempt]) -> Attempt | None:
    """Whose answer was served: the last that has one. A sample only votes."""
    for attempt in reversed(attempts):
        if attempt.fault is None and attempt.kind != "sample":
            return attempt
    return None


def _there(usage: Usage, decision: Decision) -> Usage:
    """The same tokens at the baseline, whose cache would hold what the conversation has sent before
    (`Given.cached_share`): a prompt cache that routing gave up is no saving."""
    share = decision.given.cached_share if decision.given is not None else 0.0
    if not share or usage.input_tokens is None:
        return usage
    cached = max(usage.cache_read_tokens or 0, int(usage.input_tokens * share))
    return msgspec.structs.replace(usage, cache_read_tokens=cached)


def call_record(
    request: Request,
    decision: Decision,
    attempts: list[Attempt],
    *,
    started_s: float,
    duration_s: float,
    outcome: str,
    status: int,
    flags: tuple[str, ...],
    baseline: Backend | None,
    grant: Grant | None = None,
    trace: str | None = None,
) -> CallRecord:
    """The record of a finished call, with what its tokens would have cost on the baseline."""
    served = answering(attempts) if outcome == "served" else None
    baseline_cost = None
    if baseline is not None and served is not None and served.usage is not None:
        if served.backend == baseline.id:
            baseline_cost = served.cost
        else:
            baseline_cost = cost_of(_there(served.usage, decision), baseline.price)
    record = CallRecord(
        id=decision.id,
        format=request.format,
        stream=request.stream,
        started_s=started_s,
        duration_s=duration_s,
        outcome=outcome,
        status=status,
        decision=decision,
        attempts=tuple(attempts),
        key_name=request.key_name,
        session=request.session,
        user=request.user,
        trace=trace,
        flags=flags,
        baseline_cost=baseline_cost,
    )
    if grant is None or not (grant.tenant or grant.team):
        return record
    return msgspec.structs.replace(record, tenant=grant.tenant or None, team=grant.team or None)
