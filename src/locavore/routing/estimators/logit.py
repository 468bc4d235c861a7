"""Logistic regression with a known offset, normal priors and one shrunken effect per group.

The maximum of the posterior by Newton's method; the covariance of its normal approximation
(Laplace) is kept, so that a mean of fitted probabilities comes with its variance. Groups are
eliminated from each step (Schur complement): hundreds of them cost no more than a handful.
"""

from collections.abc import Sequence
from math import exp, log
from operator import mul

import msgspec

STEPS = 8
_LONGEST = 3.0
"""No coefficient moves further than this in one step."""


def probability(logit: float) -> float:
    return 1 / (1 + exp(-min(max(logit, -30.0), 30.0)))


def logit(p: float) -> float:
    p = min(max(p, 1e-3), 1 - 1e-3)
    return log(p / (1 - p))


class Case(msgspec.Struct, frozen=True):
    """One row: P(target) = probability(offset + line * row + effect of the group)."""

    row: tuple[float, ...]
    offset: float
    target: float
    """In [0, 1]."""
    group: int = -1
    """Index of the group; -1: none."""
    weight: float = 1.0


class Prior(msgspec.Struct, frozen=True):
    """Standard deviations around zero."""

    line: tuple[float, ...]
    group: float
    groups: int = 0


class Fit(msgspec.Struct, frozen=True):
    """The posterior's maximum and its curvature there."""

    line: list[float]
    effects: list[float]
    inverse: list[list[float]]
    """Of the curvature in the line, groups eliminated."""
    within: list[float]
    """Curvature of each group's effect."""
    across: list[list[float]]
    """Curvature between each group's effect and the line."""

    def logit(self, case: Case) -> float:
        effect = self.effects[case.group] if case.group >= 0 else 0.0
        straight: float = sum(map(mul, self.line, case.row))
        return case.offset + effect + straight

    def variance(self, line: Sequence[float], effects: Sequence[float]) -> float:
        """Of the combination of coefficients with these weights."""
        found = 0.0
        rest = list(line)
        for share, within, across in zip(effects, self.within, self.across, strict=True):
            if share:
                found += share * share / within
                rest = [r - share / within * a for r, a in zip(rest, across, strict=True)]
        for share, row in zip(rest, self.inverse, strict=True):
            found += share * sum(map(mul, row, rest))
        return found


def fit(cases: Sequence[Case], prior: Prior, start: Fit | None = None, steps: int = STEPS) -> Fit:
    """`start`: a fit to nearly the same cases, to save steps."""
    line = list(start.line) if start else [0.0] * len(prior.line)
    effects = list(start.effects) if start else [0.0] * prior.groups
    columns = [list(c) for c in zip(*(c.row for c in cases), strict=True)] or [[] for _ in line]
    members: list[list[int]] = [[] for _ in effects]
    for k, case in enumerate(cases):
        if case.group >= 0:
            members[case.group].append(k)
    at = Fit(line, effects, [], [], [])
    for _ in range(steps):
        slopes, curves = _derivatives(cases, at)
        step = _step(columns, members, slopes, curves, at, prior)
        moves, shifts = step.line, step.effects
        longest = max(map(abs, (*moves, *shifts)), default=0.0)
        share = min(1.0, _LONGEST / longest) if longest else 1.0
        at = Fit(
            [a + share * m for a, m in zip(at.line, moves, strict=True)],
            [a + share * m for a, m in zip(at.effects, shifts, strict=True)],
            step.inverse,
            step.within,
            step.across,
        )
        if longest < 1e-4:
            break
    return at


def _derivatives(cases: Sequence[Case], at: Fit) -> tuple[list[float], list[float]]:
    slopes, curves = [], []
    for case in cases:
        p = probability(at.logit(case))
        slopes.append(case.weight * (case.target - p))
        curves.append(case.weight * p * (1 - p))
    return slopes, curves


def _step(
    columns: list[list[float]],
    members: list[list[int]],
    slopes: list[float],
    curves: list[float],
    at: Fit,
    prior: Prior,
) -> Fit:
    """Newton's step as a `Fit`: line and effects hold the moves."""
    tight = [1 / s**2 for s in prior.line]
    weighted = [list(map(mul, curves, c)) for c in columns]
    matrix = [[sum(map(mul, w, c)) for c in columns] for w in weighted]
    right = [
        sum(map(mul, slopes, c)) - t * a for c, t, a in zip(columns, tight, at.line, strict=True)
    ]
    for k, t in enumerate(tight):
        matrix[k][k] += t
    loose = 1 / prior.group**2
    within, across, pulls = [], [], []
    for inside, effect in zip(members, at.effects, strict=True):
        within.append(loose + sum(map(curves.__getitem__, inside)))
        across.append([sum(map(w.__getitem__, inside)) for w in weighted])
        pulls.append(sum(map(slopes.__getitem__, inside)) - loose * effect)
        b, d = across[-1], within[-1]
        for k, v in enumerate(b):
            right[k] -= v * pulls[-1] / d
            matrix[k] = [m - v * u / d for m, u in zip(matrix[k], b, strict=True)]
    inverse = _inverse(matrix)
    moves = [sum(map(mul, row, right)) for row in inverse]
    shifts = [
        (pull - sum(map(mul, b, moves))) / d
        for pull, b, d in zip(pulls, across, within, strict=True)
    ]
    return Fit(moves, shifts, inverse, within, across)


def _inverse(matrix: list[list[float]]) -> list[list[float]]:
    """Gauss-Jordan; the matrix is positive definite and small."""
    n = len(matrix)
    work = [[*row, *(float(k == j) for j in range(n))] for k, row in enumerate(matrix)]
    for k in range(n):
        pivot = work[k][k]
        work[k] = [v / pivot for v in work[k]]
        for j in range(n):
            if j != k and work[j][k]:
                share = work[j][k]
                work[j] = [a - share * b for a, b in zip(work[j], work[k], strict=True)]
    return [row[n:] for row in work]
