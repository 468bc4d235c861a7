"""Watches a promise while it is kept, and withdraws it when it no longer holds.

Valid at any moment: however often it is looked at, a promise that holds is withdrawn with
probability at most `alpha` over its whole life (see `locavore.routing.bounds`).
"""

from collections import Counter
from math import log1p

from locavore.core.estimate import Estimate
from locavore.routing.bounds import Pair, Wager, ratio_interval

_CUSUM_STAKE = 0.2
CONFIDENCE = 0.95
"""Of intervals that are shown."""


class Monitor:
    """Fed with calls that were explored: both models answered and both answers were judged."""

    def __init__(self, target: float, *, alpha: float = 0.05) -> None:
        if not 0 < target <= 1 or not 0 < alpha < 1:
            raise ValueError(f"target {target!r}, alpha {alpha!r}: not in (0, 1]")
        self.target = target
        self.withdrawn = False
        self._alpha = alpha
        self._wager = Wager(worst=1.0)
        self._pairs: Counter[Pair] = Counter()
        self._falling: Counter[Pair] = Counter()
        """Since the moment from which on the promise looks most broken (Page's CUSUM)."""
        self._fall = 0.0

    def observe(self, *, kept: bool, weak: float, strong: float, weight: float = 1.0) -> bool:
        """Take one explored call; True when the promise is (or stays) withdrawn.

        `weight`: how many calls of the traffic it stands for, relative to the one that stands for
        most (the inverse of its propensity, scaled to at most one). It may follow from anything
        but this call's scores.
        """
        if not 0 < weight <= 1:
            raise ValueError(f"weight {weight!r}: not in (0, 1]")
        achieved = weak if kept else strong
        pair = (achieved, strong, weight)
        shortfall = weight * (self.target * strong - achieved)
        self._pairs[pair] += 1
        self._fall += log1p(_CUSUM_STAKE * shortfall)
        if self._fall <= 0:
            self._fall = 0.0
            self._falling.clear()
        else:
            self._falling[pair] += 1
        if self._wager.bet(shortfall) >= 1 / self._alpha:
            self.withdrawn = True
        return self.withdrawn

    @property
    def n(self) -> int:
        return self._wager.n

    def achieved(self) -> Estimate | None:
        """Achieved quality as a share of the cloud model's; None before any evidence."""
        return share_of_cloud(self._pairs, "explored calls")

    def fallen(self) -> Estimate | None:
        """The same since it began to fall: what a withdrawal is about. That moment was chosen by
        looking, so the interval is of these calls and no bound for others."""
        return share_of_cloud(self._falling, "explored calls since it began to fall")


def share_of_cloud(pairs: Counter[Pair], source: str) -> Estimate | None:
    """Achieved quality as a share of the cloud model's, with an interval that holds however often
    one looks; None where the cloud model got nothing right."""
    cloud = sum(w * s * n for (_, s, w), n in pairs.items())
    if cloud <= 0:
        return None
    mean = sum(w * a * n for (a, _, w), n in pairs.items()) / cloud
    low, high = ratio_interval(pairs, 1 - CONFIDENCE)
    return Estimate(
        mean=mean,
        low=min(low, mean),
        high=max(high, mean),
        n=pairs.total(),
        source=source,
        unit="share of the cloud model's quality",
    )
