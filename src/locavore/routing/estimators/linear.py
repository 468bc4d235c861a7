"""Ridge regression on hashed n-grams, solved by conjugate gradients in plain Python.

Each row is the set of its n-grams, weighted by rarity and divided by its length, so that a long
text does not shout (tf-idf with cosine normalisation).
"""

from collections import Counter
from collections.abc import Sequence
from itertools import repeat
from math import log, sqrt
from operator import mul

import msgspec

LEAST = 3
"""Rows that an n-gram must be in to be known."""


class Words(msgspec.Struct, frozen=True, array_like=True):
    """`__call__`: the linear score of a set of n-grams, centred on zero.

    `weight` of a hash is its coefficient times its rarity; `rarity` its squared inverse document
    frequency, for the length of a row.
    """

    weight: dict[int, float]
    rarity: dict[int, float]
    unseen: float
    """Squared rarity of an n-gram never seen."""

    def __call__(self, grams: set[int]) -> float:
        return self.look(grams)[0]

    def known(self, grams: set[int]) -> float:
        """Share of the n-grams that were seen in fitting: how far the text is from its rows."""
        return self.look(grams)[1]

    def look(self, grams: set[int]) -> tuple[float, float]:
        """Score and known share, in one pass."""
        if not grams:
            return 0.0, 0.0
        found = self.rarity.keys() & grams
        if not found:
            return 0.0, 0.0
        norm = sum(map(self.rarity.__getitem__, found)) + self.unseen * (len(grams) - len(found))
        score = sum(map(self.weight.__getitem__, found)) / sqrt(norm)
        return score, len(found) / len(grams)


def fit_words(
    rows: Sequence[set[int]],
    targets: Sequence[float],
    *,
    penalty: float = 4.0,
    least: int = LEAST,
    steps: int = 25,
) -> Words:
    """Least squares with a penalty of `penalty` on the n-grams found in `least` rows or more."""
    seen = Counter(h for row in rows for h in row)
    kept = [h for h, c in seen.items() if c >= least]
    n = len(rows)
    if n < 2 or not kept:
        return Words({}, {}, 1.0)
    index = {h: j for j, h in enumerate(kept)}
    idf = [log((1 + n) / seen[h]) for h in kept]
    unseen = log(1 + n) ** 2
    rarity = {h: idf[j] ** 2 for h, j in index.items()}
    columns = [[index[h] for h in row if h in index] for row in rows]
    scale = [1 / sqrt(sum(map(rarity.get, row, repeat(unseen))) or 1.0) for row in rows]
    mean = sum(targets) / n
    # In the scaled basis X[i, j] = idf[j] * scale[i]; unknowns are u = idf * w.
    w = _solve(columns, scale, idf, [t - mean for t in targets], penalty, steps)
    return Words({h: w[j] * idf[j] for h, j in index.items()}, rarity, unseen)


def _solve(
    columns: list[list[int]],
    scale: list[float],
    idf: list[float],
    targets: list[float],
    ridge: float,
    steps: int,
) -> list[float]:
    """Conjugate gradients on (X'X + ridge) w = X'y."""

    def transposed(values: Sequence[float]) -> list[float]:
        out = [0.0] * len(idf)
        for row, s, v in zip(columns, scale, values, strict=True):
            change = s * v
            for j in row:
                out[j] += change
        return [o * f for o, f in zip(out, idf, strict=True)]

    def normal(p: list[float]) -> list[float]:
        scaled = [a * f for a, f in zip(p, idf, strict=True)]
        of = scaled.__getitem__
        forward = [s * sum(map(of, row)) for row, s in zip(columns, scale, strict=True)]
        return [b + ridge * a for a, b in zip(p, transposed(forward), strict=True)]

    w = [0.0] * len(idf)
    r = transposed(targets)
    p, size = r[:], sum(v * v for v in r)
    first = size
    for _ in range(steps):
        if size <= 1e-6 * first or size == 0:
            break
        q = normal(p)
        step = size / sum(a * b for a, b in zip(p, q, strict=True))
        w = [a + step * b for a, b in zip(w, p, strict=True)]
        r = [a - step * b for a, b in zip(r, q, strict=True)]
        size, before = sum(v * v for v in r), size
        p = [a + size / before * b for a, b in zip(r, p, strict=True)]
    return w


def ridge(rows: Sequence[Sequence[float]], y: Sequence[float], penalty: float) -> list[float]:
    """Coefficients by Gaussian elimination on the normal equations; the first is not penalised."""
    width = len(rows[0])
    columns = list(zip(*rows, strict=True))
    a = [[sum(map(mul, p, q)) for q in columns] for p in columns]
    b = [sum(map(mul, p, y)) for p in columns]
    for k in range(width):
        a[k][k] += penalty if k else 1e-6
    for k in range(width):
        for i in range(k + 1, width):
            f = a[i][k] / a[k][k]
            for j in range(k, width):
                a[i][j] -= f * a[k][j]
            b[i] -= f * b[k]
    w = [0.0] * width
    for k in reversed(range(width)):
        w[k] = (b[k] - sum(a[k][j] * w[j] for j in range(k + 1, width))) / a[k][k]
    return w
