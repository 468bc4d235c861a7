"""Small regression forests, fitted by gradient boosting in plain Python.

A gateway has no numerical library, and a pair of models has a few hundred to a few thousand
labelled calls: histograms over 16 quantile bins, trees of depth 3 and integer gradients fit that
in seconds. Method: Friedman, "Greedy function approximation", 2001.
"""

from bisect import bisect_left
from collections.abc import Sequence
from random import Random

import msgspec

BINS = 16
_SCALE = 1 << 20
_ONE = 1 << 44
"""A histogram cell holds a count above this bit and the sum of the scaled gradients below it."""


class Forest(msgspec.Struct, frozen=True, array_like=True):
    """Sum of trees of depth 3. Each tree: 7 feature indices, 7 cuts, 8 leaf values.

    A row goes right when its value is above the cut.
    """

    start: float
    features: list[tuple[int, ...]]
    cuts: list[tuple[float, ...]]
    leaves: list[tuple[float, ...]]

    def __call__(self, row: Sequence[float]) -> float:
        total = self.start
        for f, c, v in zip(self.features, self.cuts, self.leaves, strict=True):
            node = 2 if row[f[0]] > c[0] else 1
            node = 2 * node + 1 + (row[f[node]] > c[node])
            total += v[2 * (node - 3) + (row[f[node]] > c[node])]
        return total


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """How a forest is grown."""

    trees: int = 110
    rate: float = 0.07
    columns: float = 0.3
    """Share of the features that a tree may use."""
    rows: float = 0.7
    min_leaf: int = 20
    shrink: float = 5.0
    """Rows of the mean that each leaf is pulled towards."""
    seed: int = 0


def grow(rows: Sequence[Sequence[float]], targets: Sequence[float], how: Growth) -> Forest:
    """A forest for `targets`; with fewer rows than two leaves it is their mean."""
    n = len(rows)
    start = sum(targets) / n if n else 0.0
    forest = Forest(start, [], [], [])
    if n < 2 * how.min_leaf:
        return forest
    edges = [_edges(column) for column in zip(*rows, strict=True)]
    columns = [
        bytes(bisect_left(edge, value) for value in column)
        for edge, column in zip(edges, zip(*rows, strict=True), strict=True)
    ]
    usable = [f for f, edge in enumerate(edges) if edge]
    if not usable:
        return forest
    random = Random(how.seed)  # noqa: S311 - subsampling, not a secret
    residual = [t - start for t in targets]
    for _ in range(how.trees):
        some = random.sample(usable, max(1, round(how.columns * len(usable))))
        inside = random.sample(range(n), max(2 * how.min_leaf, round(how.rows * n)))
        tree = _tree(columns, residual, inside, some, how)
        forest.features.append(tree.features)
        forest.cuts.append(
            tuple(
                edges[f][b] if b < len(edges[f]) else float("inf")
                for f, b in zip(tree.features, tree.bins, strict=True)
            )
        )
        forest.leaves.append(tree.leaves)
        _subtract(residual, columns, tree)
    return forest


def _edges(column: Sequence[float]) -> list[float]:
    """Upper edges of quantile bins, without repeats; none for a constant column."""
    ordered = sorted(column)
    n = len(ordered)
    found = {ordered[n * k // BINS] for k in range(1, BINS)}
    found.discard(ordered[-1])
    return sorted(found)


class _Tree(msgspec.Struct, frozen=True):
    features: tuple[int, ...]
    bins: tuple[int, ...]
    leaves: tuple[float, ...]


def _tree(
    columns: list[bytes], residual: list[float], inside: list[int], some: list[int], how: Growth
) -> _Tree:
    features, bins = [some[0]] * 7, [BINS] * 7
    nodes = {0: inside}
    for node in range(7):
        members = nodes.pop(node, [])
        left = right = members[:0]
        if len(members) >= 2 * how.min_leaf:
            found = _split(columns, residual, members, some, how.min_leaf)
            if found is not None:
                features[node], bins[node] = found
        column, cut = columns[features[node]], bins[node]
        left = [i for i in members if column[i] <= cut]
        right = [i for i in members if column[i] > cut]
        nodes[2 * node + 1], nodes[2 * node + 2] = left, right
    leaves = tuple(
        how.rate * sum(residual[i] for i in nodes[k]) / (len(nodes[k]) + how.shrink)
        for k in range(7, 15)
    )
    return _Tree(tuple(features), tuple(bins), leaves)


def _split(
    columns: list[bytes], residual: list[float], members: list[int], some: list[int], least: int
) -> tuple[int, int] | None:
    """Feature and bin with the largest gain; rows with a bin above it go right."""
    packed = [_ONE + round(residual[i] * _SCALE) for i in members]
    total, n = sum(packed) - _ONE * len(members), len(members)
    best, found = total * total / n * (1 + 1e-9) + 1.0, None
    for feature in some:
        cells = [0] * BINS
        for b, q in zip(map(columns[feature].__getitem__, members), packed, strict=True):
            cells[b] += q
        count = below = 0
        for b in range(BINS - 1):
            if not cells[b]:
                continue
            inside = (cells[b] + (_ONE >> 1)) // _ONE
            count += inside
            below += cells[b] - inside * _ONE
            if count < least or n - count < least:
                continue
            gain = below * below / count + (total - below) ** 2 / (n - count)
            if gain > best:
                best, found = gain, (feature, b)
    return found


def _subtract(residual: list[float], columns: list[bytes], tree: _Tree) -> None:
    c = [columns[f] for f in tree.features]
    b, v = tree.bins, tree.leaves
    for i in range(len(residual)):
        node = 2 if c[0][i] > b[0] else 1
        node = 2 * node + 1 + (c[node][i] > b[node])
        residual[i] -= v[2 * (node - 3) + (c[node][i] > b[node])]
