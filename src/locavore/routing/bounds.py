"""Tests of a mean by betting: valid for any bounded outcomes, at any sample size, at any moment.

A gambler stakes a fixed share of the capital on every outcome; were the mean on the wrong side of
zero, the capital would not grow in expectation, so it passes 1/alpha with probability at most
alpha, ever (Ville 1939). Averaging gamblers with different stakes keeps that true. Method:
Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024.
"""

from collections.abc import Iterable
from math import exp, log, log1p

STAKES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Shares of what can be lost on one outcome. Fixed in advance, so a better outcome never lowers
the capital: that is what makes a stricter promise never keep more."""


class Wager:
    """Capital of a mixture of gamblers who bet that a mean is above zero.

    Outcomes must be at least `-worst`; starts at 1. `best` is the largest capital so far.
    """

    __slots__ = ("_logs", "_stakes", "best", "n")

    def __init__(self, worst: float = 1.0) -> None:
        self._stakes = tuple(s / worst for s in STAKES)
        self._logs = [0.0] * len(STAKES)
        self.best = 1.0
        self.n = 0

    def bet(self, outcome: float) -> float:
        """The capital after one more outcome."""
        logs = self._logs
        for k, stake in enumerate(self._stakes):
            logs[k] += log1p(stake * outcome)
        self.n += 1
        capital = self.capital()
        self.best = max(self.best, capital)
        return capital

    def capital(self) -> float:
        most = max(self._logs)
        if most > 600:
            return exp(600.0)
        return exp(most) * sum(exp(v - most) for v in self._logs) / len(self._logs)


def above_zero(outcomes: Iterable[float], alpha: float, *, worst: float = 1.0) -> bool:
    """Whether the mean is above zero, wrongly with probability at most `alpha`."""
    stakes = [s / worst for s in STAKES]
    logs = [0.0] * len(stakes)
    for outcome in outcomes:
        for k, stake in enumerate(stakes):
            logs[k] += log1p(stake * outcome)
    most = max(logs)
    return most + log(sum(exp(v - most) for v in logs) / len(logs)) >= -log(alpha)
