"""What a score says of losing and of gaining by staying local, before any label of a workload."""

from collections.abc import Sequence
from math import sqrt

import msgspec

from locavore.routing.estimators.curve import Curve, fit_curve
from locavore.routing.estimators.logit import Case, Prior, fit, logit, probability


class Odds(msgspec.Struct, frozen=True, kw_only=True):
    """A call kept local loses with probability `1 - kept(score)` and gains by another line.

    Where scores are partial, probabilities are mean losses and mean gains.
    """

    kept: Curve
    middle: float
    """Mean of the logits of `kept` where it was fitted, and their standard deviation."""
    width: float
    gain: tuple[float, float]
    """Logit of gaining: level, and change per `width`."""

    def place(self, score: float) -> float:
        """How far a score lies above the middle, in widths."""
        if not self.kept.x:
            return score
        return (logit(self.kept(score)) - self.middle) / self.width

    def logits(self, place: float, noise: float = 0.0) -> tuple[float, float]:
        """(losing, gaining), as verdicts show them of which a share of `noise` is wrong."""
        losing = -(self.middle + self.width * place)
        gaining = self.gain[0] + self.gain[1] * place
        if not noise:
            return losing, gaining
        lost, won = probability(losing), probability(gaining)
        kept, turned = (1 - noise) ** 2, noise**2
        even = max(1 - lost - won, 0.0) * noise * (1 - noise)
        return logit(kept * lost + turned * won + even), logit(kept * won + turned * lost + even)


UNKNOWN = Odds(kept=Curve([], []), middle=1.0, width=1.0, gain=(-2.5, 0.0))
"""Where nothing is known of a score but that more of it is better."""


def fit_odds(scores: Sequence[float], gains: Sequence[float], *, cells: int = 20) -> Odds:
    """From calls scored by something that had not seen them, and what each gained locally."""
    if not scores:
        return UNKNOWN
    kept = fit_curve(scores, [1 - max(-g, 0.0) for g in gains], cells=cells)
    logits = [logit(kept(s)) for s in scores]
    n = len(logits)
    middle = sum(logits) / n
    width = sqrt(sum((v - middle) ** 2 for v in logits) / n) + 0.1
    rows = [
        Case((1.0, (v - middle) / width), 0.0, max(g, 0.0))
        for v, g in zip(logits, gains, strict=True)
    ]
    level, change = fit(rows, Prior((100.0, 1.0), 1.0)).line
    return Odds(kept=kept, middle=middle, width=width, gain=(level, change))
