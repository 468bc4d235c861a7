"""Monotone maps from a score to a probability (pool adjacent violators, then straight lines)."""

from bisect import bisect_right
from collections.abc import Sequence

import msgspec


class Curve(msgspec.Struct, frozen=True, array_like=True):
    """Strictly increasing through its knots, flat-ish beyond them: the order of scores is kept."""

    x: list[float]
    y: list[float]

    def __call__(self, score: float) -> float:
        x, y = self.x, self.y
        if not x:
            return 0.5
        k = bisect_right(x, score)
        if k == 0:
            return _squash(y[0], score - x[0])
        if k == len(x):
            return _squash(y[-1], score - x[-1])
        share = (score - x[k - 1]) / (x[k] - x[k - 1])
        return y[k - 1] + share * (y[k] - y[k - 1])


def _squash(y: float, beyond: float) -> float:
    """A little past the end knot, so that ties do not arise."""
    slope = 1e-3 * beyond / (1.0 + abs(beyond))
    return min(max(y + slope * min(y, 1 - y), 0.0), 1.0)


def fit_curve(scores: Sequence[float], good: Sequence[float], *, cells: int = 20) -> Curve:
    """Through the means of `cells` equal groups of neighbours; `good` in [0, 1]."""
    n = len(scores)
    if n == 0:
        return Curve([], [])
    order = sorted(range(n), key=scores.__getitem__)
    cells = max(1, min(cells, n // 25))
    pooled: list[list[float]] = []
    for k in range(cells):
        some = order[k * n // cells : (k + 1) * n // cells]
        pooled.append([sum(scores[i] for i in some), sum(good[i] for i in some), len(some)])
        while len(pooled) > 1 and pooled[-2][1] * pooled[-1][2] >= pooled[-1][1] * pooled[-2][2]:
            last = pooled.pop()
            pooled[-1] = [a + b for a, b in zip(pooled[-1], last, strict=True)]
    x: list[float] = []
    y: list[float] = []
    for total, right, many in pooled:
        at = total / many
        if not x or at > x[-1] + 1e-9:
            x.append(at)
            y.append((right + 0.5) / (many + 1.0))
    for k in range(1, len(y)):
        y[k] = max(y[k], y[k - 1] + 1e-6)
    return Curve(x, y)
