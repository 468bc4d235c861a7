"""What a choice is expected to cost, all told: US dollars of one call.

    direct    answer + retries - cache,      retries = answer × f / (1 - f)
    cascade   direct(local) + (1 - P(stays)) × direct(cloud)

`f` is the share of tries that failed lately, each counted as paid for: providers bill an answer
that was cut and do not bill a refusal, so this errs on the dear side. `cache` is the discount for
the part of the prompt that the conversation's home still holds; moving elsewhere loses it, because
the same tokens are then charged in full.
"""

from decimal import Decimal
from math import ceil
from typing import Protocol

from locavore.core.backend import Backend
from locavore.core.decision import Charges, Facts
from locavore.core.money import Cost, Price, Usage
from locavore.core.policy import Policy

MOST_FAILURES = 0.9
"""Beyond this a target's breaker is open."""
_ZERO = Decimal(0)


class Prices(Protocol):
    """Cost of a usage at a price."""

    def __call__(self, usage: Usage, price: Price | None) -> Cost: ...


def expected_usage(facts: Facts, policy: Policy) -> Usage:
    """An allowance to answer at length is not a long answer: the forecast is cut to the default."""
    return Usage(
        input_tokens=int(facts.input_tokens.mean),
        output_tokens=min(facts.output_tokens, policy.default_output_tokens),
        estimated=True,
    )


def largest_usage(facts: Facts, answers: int) -> Usage:
    """What a cost limit and a reservation count, of a request for so many answers at once."""
    return Usage(
        input_tokens=ceil(facts.input_tokens.high),
        output_tokens=facts.output_tokens * answers,
        estimated=True,
    )


def direct_charges(
    answer_usd: Decimal,
    usage: Usage,
    backend: Backend,
    prices: Prices,
    *,
    failures: float,
    cached_tokens: int,
) -> Charges:
    """Of an answer by one backend that costs `answer_usd` with nothing cached."""
    rate = min(failures, MOST_FAILURES)
    retries_usd = answer_usd * _decimal(rate / (1 - rate)) if rate else _ZERO
    cached_usd = _ZERO
    if cached_tokens:
        cached = Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=min(cached_tokens, usage.input_tokens or 0),
            estimated=True,
        )
        less_usd = prices(cached, backend.price).usd
        cached_usd = _ZERO if less_usd is None else min(_ZERO, less_usd - answer_usd)
    return Charges(answer_usd=answer_usd, retries_usd=retries_usd, cached_usd=cached_usd)


def total_usd(charges: Charges) -> Decimal:
    return charges.answer_usd + charges.retries_usd + charges.escalation_usd + charges.cached_usd


def cascade_charges(
    local: Charges, cloud_usd: Decimal, stays: float, *, samples: int = 0
) -> Charges:
    """`cloud_usd`: expected cost of a direct answer by the cloud."""
    return Charges(
        answer_usd=local.answer_usd * (1 + samples),
        retries_usd=local.retries_usd * (1 + samples),
        cached_usd=local.cached_usd,
        escalation_usd=expected_cost_usd(stays, _ZERO, cloud_usd),
    )


def expected_cost_usd(
    stays: float, local_usd: Decimal, cloud_usd: Decimal, samples: int = 0
) -> Decimal:
    """Of a cascade whose answer stays local with probability `stays`: attempt and escalation."""
    return local_usd * (1 + samples) + _decimal(1 - stays) * cloud_usd


def _decimal(share: float) -> Decimal:
    return Decimal(str(round(share, 6)))
