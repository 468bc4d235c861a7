"""Fit of a formula's coefficients: pooled values and shrunken factors per label, robustly.

Each coefficient is exp(center + pooled + sum of deviations of the labels that apply). Deviations
are pulled to zero by a prior, so a label seen once moves little. Gauss-Newton with step control
on a pseudo-Huber loss of log errors; numpy only.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Formula = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Prior:
    """Log-normal prior of one coefficient: center, spread, and spread of each label's factor."""

    center: float
    spread: float
    by: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Slot:
    """One free number: a coefficient's pooled value (label empty) or one label's deviation."""

    kind: str
    name: str
    label: str
    spread: float


@dataclass(frozen=True)
class Sample:
    """One measurement: features, labels, measured value (a time), noise (log) and weight."""

    features: dict[str, float]
    labels: dict[str, str]
    value: float
    noise: float
    cluster: Hashable


class Fit:
    """Coefficients of one formula, fitted to samples."""

    def __init__(
        self, formula: Formula, priors: dict[str, Prior], samples: Sequence[Sample]
    ) -> None:
        self.formula, self.priors = formula, priors
        self.slots = _slots(priors, samples)
        self.theta = np.zeros(len(self.slots))
        self._solve(samples)

    def predict(self, samples: Sequence[Sample]) -> Array:
        """Predicted values (times), one per sample."""
        return np.exp(self._log(self.theta, _columns(samples), self._indicator(samples)))

    def table(self) -> dict[str, dict[str, Any]]:
        """coefficient -> {value, by: {label name: {label: factor}}}, factors near one left out."""
        out: dict[str, dict[str, Any]] = {}
        for slot, theta in zip(self.slots, self.theta, strict=True):
            entry = out.setdefault(slot.kind, {"value": 1.0, "by": {}})
            if not slot.name:
                entry["value"] = float(f"{np.exp(self.priors[slot.kind].center + theta):.4g}")
            elif abs(theta) > 0.003:
                factor = float(f"{np.exp(theta):.4g}")
                entry["by"].setdefault(slot.name, {})[slot.label] = factor
        return out

    def _indicator(self, samples: Sequence[Sample]) -> Array:
        names = {slot.name for slot in self.slots if slot.name}
        known = {name: np.array([s.labels.get(name, "") for s in samples]) for name in names}
        matrix = np.ones((len(samples), len(self.slots)))
        for j, slot in enumerate(self.slots):
            if slot.name:
                matrix[:, j] = known[slot.name] == slot.label
        return matrix

    def _coefficients(self, theta: Array, indicator: Array) -> dict[str, Array]:
        out = {}
        for kind, prior in self.priors.items():
            columns = [j for j, slot in enumerate(self.slots) if slot.kind == kind]
            out[kind] = np.exp(prior.center + indicator[:, columns] @ theta[columns])
        return out

    def _log(self, theta: Array, f: dict[str, Array], indicator: Array) -> Array:
        c = self._coefficients(theta, indicator)
        return np.asarray(np.log(self.formula(f, c)) + np.log(c["machine"]))

    def _solve(self, samples: Sequence[Sample], rounds: int = 60, knee: float = 1.5) -> None:
        f, indicator = _columns(samples), self._indicator(samples)
        y = np.log([s.value for s in samples])
        noise = np.array([s.noise for s in samples])
        weight = _weights(samples)
        spread = np.array([slot.spread for slot in self.slots])

        def residual(theta: Array) -> Array:
            return np.asarray((self._log(theta, f, indicator) - y) / noise)

        def cost(theta: Array, r: Array) -> float:
            loss = 2 * knee**2 * (np.sqrt(1 + (r / knee) ** 2) - 1)
            return float(np.sum(weight * loss) + np.sum((theta / spread) ** 2))

        theta, damping = self.theta, 1e-3
        r = residual(theta)
        current = cost(theta, r)
        for _ in range(rounds):
            jacobian = self._jacobian(theta, f, indicator) / noise[:, None]
            robust = weight / np.sqrt(1 + (r / knee) ** 2)
            normal = jacobian.T @ (jacobian * robust[:, None]) + np.diag(spread**-2.0)
            gradient = jacobian.T @ (robust * r) + theta / spread**2
            before = current
            for _ in range(12):
                damped = normal + damping * np.diag(np.diag(normal))
                step = np.clip(-np.linalg.solve(damped, gradient), -1.0, 1.0)
                r_new = residual(theta + step)
                after = cost(theta + step, r_new)
                if after < current:
                    theta, r, current = theta + step, r_new, after
                    damping = max(damping / 5, 1e-8)
                    break
                damping *= 4
            if before - current < 1e-4 * before:
                break
        self.theta = theta

    def _jacobian(self, theta: Array, f: dict[str, Array], indicator: Array) -> Array:
        """d log(prediction) / d theta: one finite difference per coefficient, spread to slots."""
        c = self._coefficients(theta, indicator)
        base = np.log(self.formula(f, c)) + np.log(c["machine"])
        slope: dict[str, Array] = {}
        for kind in self.priors:
            moved = {**c, kind: c[kind] * np.exp(1e-4)}
            changed = np.log(self.formula(f, moved)) + np.log(moved["machine"])
            slope[kind] = (changed - base) / 1e-4
        columns = [slope[slot.kind] for slot in self.slots]
        return np.asarray(np.stack(columns, axis=1) * indicator)


def _slots(priors: dict[str, Prior], samples: Sequence[Sample]) -> list[Slot]:
    slots = []
    for kind, prior in priors.items():
        slots.append(Slot(kind, "", "", prior.spread))
        for name, spread in prior.by.items():
            seen = sorted({s.labels[name] for s in samples} - {""})
            slots.extend(Slot(kind, name, label, spread) for label in seen)
    return slots


def _columns(samples: Sequence[Sample]) -> dict[str, Array]:
    return {k: np.array([s.features[k] for s in samples]) for k in samples[0].features}


def _weights(samples: Sequence[Sample]) -> Array:
    """Many runs of one situation count as their square root."""
    count = Counter(s.cluster for s in samples)
    return np.array([count[s.cluster] ** -0.5 for s in samples])


def folds(groups: Sequence[Hashable], count: int = 10) -> list[int]:
    """A fold per sample; all samples of one group in one fold; folds of similar size."""
    size = Counter(groups)
    load = [0] * min(count, len(size))
    where: dict[Hashable, int] = {}
    for group in sorted(size, key=lambda g: (-size[g], str(g))):
        where[group] = load.index(min(load))
        load[where[group]] += size[group]
    return [where[g] for g in groups]


def cross_validate(
    formula: Formula,
    priors: dict[str, Prior],
    samples: Sequence[Sample],
    groups: Sequence[Hashable],
    *,
    nested: bool = False,
) -> Array:
    """Predictions of every sample by a fit that saw nothing of its group.

    nested: the priors' widths are chosen again for every fold, from its training rows alone.
    """
    fold = folds(groups)
    out = np.full(len(samples), np.nan)
    for k in range(max(fold) + 1):
        train = [i for i, f in enumerate(fold) if f != k]
        test = [i for i, f in enumerate(fold) if f == k]
        seen = [samples[i] for i in train]
        used = chosen(formula, priors, seen, [groups[i] for i in train]) if nested else priors
        out[test] = Fit(formula, used, seen).predict([samples[i] for i in test])
    return out


WIDTHS = (0.5, 1.0, 2.0)
"""Factors on the width of every label's deviation that `chosen` tries."""
INNER_FOLDS = 4
CLEARLY_BETTER = 0.03
"""Part of the loss that another width must save: smaller differences are noise of the folds."""


def chosen(
    formula: Formula,
    priors: dict[str, Prior],
    samples: Sequence[Sample],
    *groupings: Sequence[Hashable],
) -> dict[str, Prior]:
    """The priors, or those with other widths that predict held-out groups clearly better.

    Better by mean absolute log error.
    """
    options = [_widened(priors, factor) for factor in WIDTHS]
    losses = [sum(_held_out_loss(formula, p, samples, g) for g in groupings) for p in options]
    best = int(np.argmin(losses))
    usual = WIDTHS.index(1.0)
    return options[best if losses[best] < (1 - CLEARLY_BETTER) * losses[usual] else usual]


def _widened(priors: dict[str, Prior], factor: float) -> dict[str, Prior]:
    return {
        kind: Prior(p.center, p.spread, {name: factor * width for name, width in p.by.items()})
        for kind, p in priors.items()
    }


def _held_out_loss(
    formula: Formula,
    priors: dict[str, Prior],
    samples: Sequence[Sample],
    groups: Sequence[Hashable],
) -> float:
    """Weighted mean absolute log error over folds; many runs of one group count as their root."""
    fold = folds(groups, INNER_FOLDS)
    size = Counter(groups)
    loss = weight = 0.0
    for k in range(max(fold) + 1):
        train = [s for s, f in zip(samples, fold, strict=True) if f != k]
        test = [i for i, f in enumerate(fold) if f == k]
        predicted = Fit(formula, priors, train).predict([samples[i] for i in test])
        for i, value in zip(test, predicted, strict=True):
            share = size[groups[i]] ** -0.5
            loss += share * abs(float(np.log(value / samples[i].value)))
            weight += share
    return loss / weight
