"""Tests of a mean by betting: valid for any bounded outcomes, at any sample size, at any moment.

A gambler stakes a fixed share of the capital on every outcome; were the mean on the wrong side of
zero, the capital would not grow in expectation, so it passes 1/alpha with probability at most
alpha, ever (Ville 1939). Averaging gamblers with different stakes keeps that true. Method:
Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import exp, log, log1p

STAKES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Shares of what can be lost on one outcome. Fixed in advance, so a better outcome never lowers
the capital: that is what makes a stricter promise never keep more."""


class Wager:
    """Capital of gamblers who bet that a mean is above zero, or has become so.

    Starts at 1. One gambler of each stake begins at each outcome, the n-th with 1/n(n+1) of the
    capital, so that a long good time costs a later discovery little: without that, those who began
    at first would have lost everything by then. While the mean of each next outcome is not above
    zero, no share of the capital grows in expectation, so neither does the whole. (A mixture over
    starting times, as in Shin, Ramdas & Rinaldo, "E-detectors", NEJSDS 2024.)

    Outcomes must be at least `-worst`.
    """

    __slots__ = ("_capital", "_stakes", "n")

    def __init__(self, worst: float = 1.0) -> None:
        self._stakes = tuple(s / worst for s in STAKES)
        self._capital = [0.0] * len(STAKES)
        """Of each stake's gamblers who have begun."""
        self.n = 0

    def bet(self, outcome: float) -> float:
        """The capital after one more outcome."""
        self.n += 1
        begin = 1 / (self.n * (self.n + 1))
        self._capital = [
            min((held + begin) * (1 + stake * outcome), _RICHEST)
            for held, stake in zip(self._capital, self._stakes, strict=True)
        ]
        return self.capital()

    def capital(self) -> float:
        """What all have, those included who are still to begin."""
        return sum(self._capital) / len(self._capital) + 1 / (self.n + 1)


_RICHEST = 1e300
"""Nobody asks how rich beyond that."""


def above_zero(outcomes: Iterable[float], alpha: float, *, worst: float = 1.0) -> bool:
    """Whether the mean is above zero, wrongly with probability at most `alpha`."""
    stakes = [s / worst for s in STAKES]
    logs = [0.0] * len(stakes)
    for outcome in outcomes:
        for k, stake in enumerate(stakes):
            logs[k] += log1p(stake * outcome)
    most = max(logs)
    return most + log(sum(exp(v - most) for v in logs) / len(logs)) >= -log(alpha)


Pair = tuple[float, float, float]
"""What was achieved, what the cloud would have achieved, and the weight of it (0 to 1]."""
_MOST = 10.0
"""Ratios above this are not told apart."""


def ratio_interval(pairs: Mapping[Pair, int], alpha: float) -> tuple[float, float]:
    """Where `sum(weight * achieved) / sum(weight * cloud)` lies, with how often each pair came.

    The ratio r is inside as long as no gambler who bets against it is rich: that the mean of
    weight * (achieved - r * cloud) is above zero (r is too low) or below it (too high). Holds at
    any sample size and at all of them together, each side with alpha / 2.
    """
    rich = log(2 / alpha)
    low = _boundary(
        lambda r: _grown([(w * (a / r - s), n) for (a, s, w), n in pairs.items()]) >= rich
    )
    high = _boundary(
        lambda r: _grown([(w * (r * s - a), n) for (a, s, w), n in pairs.items()]) < rich
    )
    return low, high


def _boundary(below: Callable[[float], bool]) -> float:
    """The largest ratio for which `below` holds; it holds up to there and nowhere above."""
    low, high = 1e-9, _MOST
    if not below(low):
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return high


def _grown(outcomes: Sequence[tuple[float, int]]) -> float:
    """Logarithm of the mixture's capital after outcomes of at least -1, each so many times."""
    logs = [sum(n * log1p(stake * x) for x, n in outcomes) for stake in STAKES]
    most = max(logs)
    return most + log(sum(exp(v - most) for v in logs) / len(logs))


def flawless_needed(target: float, alpha: float) -> int:
    """How many calls without any loss it takes before the interval lies above `target`."""
    n = 1
    while _grown([(1 / target - 1, n)]) < log(2 / alpha):
        n = n + max(1, n // 50)
    return n
