"""What is written down about a call: its attempts while it runs, one record when it is finished."""

from decimal import Decimal

from locavore.core.access import Grant
from locavore.core.backend import Backend
from locavore.core.decision import Decision
from locavore.core.money import Cost, Usage, cost_of
from locavore.core.outcome import Attempt, CallRecord
from locavore.core.request import Request

MESSAGE_CHARS = 500
"""An upstream's own words are kept up to here."""


class AttemptLog:
    """One attempt while it runs; `finish` makes the record."""

    __slots__ = ("backend", "id", "kind", "started_mono_s", "started_s", "status", "ttft_s")

    def __init__(
        self, id_: str, backend: Backend, kind: str, started_s: float, started_mono_s: float
    ) -> None:
        self.id = id_
        self.backend = backend
        self.kind = kind
        self.started_s = started_s
        self.started_mono_s = started_mono_s
        self.status: int | None = None
        self.ttft_s: float | None = None

    def first_content(self, mono_s: float) -> None:
        if self.ttft_s is None:
            self.ttft_s = mono_s - self.started_mono_s

    def finish(
        self, mono_s: float, *, usage: Usage | None, fault: str | None, message: str | None
    ) -> Attempt:
        backend = self.backend
        return Attempt(
            id=self.id,
            backend=backend.id,
            provider=backend.provider,
            model=backend.model,
            place=backend.place.label,
            kind=self.kind,
            started_s=self.started_s,
            ttft_s=self.ttft_s,
            duration_s=mono_s - self.started_mono_s,
            status=self.status,
            fault=fault,
            message=message[:MESSAGE_CHARS] if message else None,
            usage=usage,
            cost=_no_usage(fault) if usage is None else cost_of(usage, backend.price),
            weights_sha256=backend.weights_sha256,
            engine_build=backend.engine_build,
        )


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
) -> CallRecord:
    """The record of a finished call, with what its tokens would have cost on the baseline."""
    served = attempts[-1] if attempts and outcome == "served" else None
    baseline_cost = None
    if baseline is not None and served is not None and served.usage is not None:
        if served.backend == baseline.id:
            baseline_cost = served.cost
        else:
            baseline_cost = cost_of(served.usage, baseline.price)
    return CallRecord(
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
        tenant=(grant.tenant or None) if grant else None,
        team=(grant.team or None) if grant else None,
        flags=flags,
        baseline_cost=baseline_cost,
    )
