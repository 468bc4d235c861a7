"""A call as a payment: the worst case is set aside before it, the truth is booked after it."""

import math
from collections.abc import Sequence
from decimal import Decimal

from locavore.core.access import Grant
from locavore.core.backend import Backend
from locavore.core.decision import Decision
from locavore.core.outcome import Attempt
from locavore.core.request import Request
from locavore.ledger.budgets import Authorizer, Refusal, Reservation, worst_case_usd
from locavore.serving.record import LATE, total_cost


def reserve(
    limits: Authorizer,
    request: Request,
    grant: Grant | None,
    decision: Decision,
    plan: Sequence[Backend],
) -> Reservation | Refusal:
    """Set aside what the plan may cost at most: every planned backend once, at its full price.

    A second try at the same backend follows an answer that is never billed. A cascade may use the
    tokens of several answers: the local one, its samples, and the cloud's.
    """
    facts = decision.facts
    input_tokens = math.ceil(facts.input_tokens.high)
    output_tokens = facts.output_tokens * request.n
    answers = 1
    if decision.cascade is not None:
        samples = decision.cascade.samples
        answers = 2 + samples
        plan = [*[plan[0]] * samples, *plan]
    tokens = answers * (input_tokens + output_tokens)
    worst = Decimal(0)
    for backend in plan:
        most = worst_case_usd(backend.price, input_tokens=input_tokens, output_tokens=output_tokens)
        if most is None:
            return limits.reserve(grant, request.user, None, tokens)
        worst += most
    return limits.reserve(grant, request.user, worst, tokens)


def settle(limits: Authorizer, reservation: Reservation, attempts: list[Attempt]) -> None:
    """Book what the attempts used; what is unknown is booked at its worst case."""
    if not attempts:
        limits.release(reservation)
        return
    usd = None if any(_maybe_billed(a) for a in attempts) else total_cost(attempts)
    limits.settle(reservation, usd, total_tokens(attempts))


def _maybe_billed(attempt: Attempt) -> bool:
    """It failed half-way and told no usage: the provider may charge for it all the same."""
    if attempt.cost is not None or attempt.fault is None:
        return False
    refused = attempt.status is not None and attempt.status >= 400
    return not refused and attempt.fault not in ("connect", "connect_timeout")


def total_tokens(attempts: Sequence[Attempt]) -> int | None:
    """Over all attempts; None when the one that answered did not say."""
    total = 0
    for attempt in attempts:
        usage = attempt.usage
        if usage is None:
            if attempt.fault is None:
                return None
            continue
        if attempt.fault == LATE:
            return None  # it was given up half-way, and nobody knows how far it was
        total += (usage.input_tokens or 0) + (usage.output_tokens or 0)
    return total
