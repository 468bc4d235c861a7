"""Watches a promise while it is kept, and withdraws it when it no longer holds.

Valid at any moment: however often it is looked at, a promise that holds is withdrawn with
probability at most `alpha` over its whole life (see `locavore.routing.bounds`).
"""

from locavore.core.estimate import Estimate
from locavore.routing.bounds import Wager

_Z = 1.96


class Monitor:
    """Fed with calls that were explored: both models answered and both answers were judged.

    `floor` is the smallest share of calls explored; calls explored more often count for less, so
    that the estimate stays that of the traffic (inverse propensity, bounded by one).
    """

    def __init__(self, target: float, *, alpha: float = 0.05, floor: float = 0.01) -> None:
        if not 0 < target <= 1 or not 0 < alpha < 1 or not 0 < floor <= 1:
            raise ValueError(f"target {target!r}, alpha {alpha!r}, floor {floor!r}: not in (0, 1]")
        self.target = target
        self.withdrawn = False
        self._alpha = alpha
        self._floor = floor
        self._wager = Wager(worst=1.0)
        self._weight = self._achieved = self._cloud = self._square = self._squares = 0.0

    def observe(self, *, kept: bool, weak: float, strong: float, propensity: float) -> bool:
        """Take one explored call; True when the promise is (or stays) withdrawn."""
        if propensity < self._floor:
            raise ValueError(f"propensity {propensity!r} is below the floor {self._floor!r}")
        weight = self._floor / propensity
        achieved = weak if kept else strong
        shortfall = self.target * strong - achieved
        self._weight += weight
        self._achieved += weight * achieved
        self._cloud += weight * strong
        self._square += weight * shortfall
        self._squares += (weight * shortfall) ** 2
        if self._wager.bet(weight * shortfall) >= 1 / self._alpha:
            self.withdrawn = True
        return self.withdrawn

    @property
    def n(self) -> int:
        return self._wager.n

    def achieved(self) -> Estimate | None:
        """Achieved quality as a share of the cloud model's; None before any evidence."""
        if self._cloud <= 0:
            return None
        ratio = self._achieved / self._cloud
        mean = self._square / self.n
        spread = max(self._squares / self.n - mean * mean, 1.0 / self.n**2) ** 0.5
        half = _Z * spread * self.n**0.5 / self._cloud
        return Estimate(
            mean=ratio,
            low=max(ratio - half, 0.0),
            high=ratio + half,
            n=self.n,
            source="explored calls",
            unit="share of the cloud model's quality",
        )
