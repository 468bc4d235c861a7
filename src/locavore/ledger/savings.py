"""What routing saved against the named baseline: net, and with the error of what is estimated.

    net = baseline - everything paid: answers, retries, samples, judges, shadows
    low, high = net -+ (TOKENIZERS x (baseline - exact - guessed) + GUESSED x guessed)

The errors of single calls are taken to go the same way, so the interval is wide rather than narrow.
It leaves out that another model would have answered at another length: nobody can know.
"""

from decimal import Decimal

import msgspec

from locavore.ledger.query import Line

TOKENIZERS = Decimal("0.2")
"""By so much the tokens of one text differ between tokenizers: o200k, cl100k, Qwen2.5 and Llama 3
on European languages; 1 % on English and code (benchmarks/routing/tokens/result.json, 2026-11)."""
GUESSED = Decimal("0.6")
"""By so much our estimate from bytes may miss: mean to fewest bytes per token of ASCII text
(`routing.facts`, the same benchmark)."""


class Savings(msgspec.Struct, frozen=True, kw_only=True):
    """US dollars over the compared calls. Negative: we paid more than the baseline would cost."""

    calls: int
    """Calls with a known cost and a known price on the baseline."""
    baseline_usd: Decimal
    paid_usd: Decimal
    """Everything; `retries_usd` and `beside_usd` are parts of it."""
    retries_usd: Decimal
    beside_usd: Decimal
    net_usd: Decimal
    low_usd: Decimal | None
    """None: judges or shadows have an unknown cost, so nobody knows how little was saved."""
    high_usd: Decimal


def savings(line: Line) -> Savings:
    """Of one line of a report, or of its total."""
    foreign = line.baseline_usd - line.exact_baseline_usd - line.guessed_baseline_usd
    error = TOKENIZERS * foreign + GUESSED * line.guessed_baseline_usd
    net = line.baseline_usd - line.compared_cost_usd
    return Savings(
        calls=line.compared,
        baseline_usd=line.baseline_usd,
        paid_usd=line.compared_cost_usd,
        retries_usd=line.retries_usd,
        beside_usd=line.beside_usd,
        net_usd=net,
        low_usd=None if line.beside_unknown else net - error,
        high_usd=net + error,
    )
