"""Errors of a fit by class, next to the goals: fitted, and held out in whole groups."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.planner.fit_rows import TIMES, Measured
from benchmarks.planner.solver import Array, Fit, Formula, Prior, chosen, cross_validate

FEWEST_ELSEWHERE = 10

Errors = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """One formula with its rows."""

    name: str
    formula: Formula
    prior: dict[str, Prior]
    rows: list[Measured]
    simple: dict[str, Prior] | None = None
    """The simple model to compare with; None: no comparison."""


@dataclass(frozen=True)
class Result:
    """A fitted task, and what it predicts for its rows in each view."""

    task: Task
    fit: Fit
    views: dict[str, Array]


CLASSES: list[tuple[str, str, Callable[[Measured], bool]]] = [
    ("decode, one device, no CPU", "9 / 35", lambda m: _is(m, "decode") and not m.point.on_cpu),
    (
        "decode, one device, no CPU, controlled",
        "6 / 25",
        lambda m: _is(m, "decode") and not m.point.on_cpu and m.tier == "A",
    ),
    (
        "decode, several devices",
        "15 / 50",
        lambda m: m.metric == "decode" and m.point.setting.devices > 1,
    ),
    ("decode, CPU", "25 / 60", lambda m: _is(m, "decode") and m.point.on_cpu),
    ("prefill", "18 / 50", lambda m: m.metric == "prefill"),
    ("prefill, no CPU", "", lambda m: m.metric == "prefill" and not m.point.on_cpu),
    ("throughput at full load", "20 / 50", lambda m: m.metric == "throughput_out"),
    ("batched decode", "", lambda m: m.metric == "decode_batched"),
    ("TPOT", "15 / 40", lambda m: m.metric == "tpot"),
    ("TTFT", "", lambda m: m.metric == "ttft"),
]


def _is(m: Measured, metric: str) -> bool:
    return m.metric == metric and m.point.setting.devices == 1


def run(task: Task) -> Result:
    """Fit a task on all rows, and predict each row by fits that saw nothing of its group.

    The strength of the shrinkage is chosen again inside every fit, by folds of its own rows.
    """
    samples = [m.sample for m in task.rows]
    groups: dict[str, list[Hashable]] = {
        "hardware": [m.hardware for m in task.rows],
        "model": [m.model for m in task.rows],
        "family": [m.family for m in task.rows],
    }
    prior = chosen(task.formula, task.prior, samples, groups["hardware"], groups["model"])
    fit = Fit(task.formula, prior, samples)
    views = {"fitted": fit.predict(samples)}
    for name, group in groups.items():
        views[name] = cross_validate(task.formula, task.prior, samples, group, nested=True)
        if task.simple and name != "family":
            views[f"simple, {name}"] = cross_validate(task.formula, task.simple, samples, group)
    return Result(task, fit, _with_known_paths(task.rows, views))


def _with_known_paths(rows: Sequence[Measured], views: dict[str, Array]) -> dict[str, Array]:
    """Adds views of the rows whose code path other hardware measured too."""
    known = set(known_paths(rows))
    elsewhere = np.array([i in known for i in range(len(rows))])
    more = {
        f"{name}, known path": np.where(elsewhere, views[name], np.nan)
        for name in ("hardware", "simple, hardware")
        if name in views
    }
    return views | more


def known_paths(rows: Sequence[Measured]) -> list[int]:
    """Rows whose code path other hardware measured at least ten times."""
    paths = [m.sample.labels["path"] for m in rows]
    on_path = Counter(paths)
    in_group = Counter((path, m.hardware) for path, m in zip(paths, rows, strict=True))
    return [
        i
        for i, (path, m) in enumerate(zip(paths, rows, strict=True))
        if on_path[path] - in_group[path, m.hardware] >= FEWEST_ELSEWHERE
    ]


def measured_paths(rows: Sequence[Measured]) -> dict[str, list[str]]:
    """metric -> code paths with at least ten rows."""
    count = Counter((m.metric, m.sample.labels["path"]) for m in rows)
    out: dict[str, list[str]] = {}
    for (metric, path), n in sorted(count.items()):
        if n >= FEWEST_ELSEWHERE:
            out.setdefault(metric, []).append(path)
    return out


def report(result: Result, errors: Errors) -> None:
    """Print median and 90th percentile by class, and add them to `errors`."""
    rows = result.task.rows
    for label, goal, member in CLASSES:
        mask = np.array([member(m) for m in rows])
        if not mask.any():
            continue
        entry = errors.setdefault(label, {"goal": goal, "n": int(mask.sum())})
        for name, predicted in result.views.items():
            if pair := _pair(rows, mask, predicted):
                entry[name] = pair
        shown = {k: f"{v[0]:.1f} / {v[1]:.1f}" for k, v in entry.items() if isinstance(v, list)}
        print(f"{label:40s} n={entry['n']:5d}  goal {goal:8s}  {shown}")


def _pair(rows: Sequence[Measured], mask: Array, predicted: Array) -> list[float]:
    """[median, 90th percentile] of the absolute error in % of the measured figure."""
    measured = np.array([m.sample.value for m in rows])[mask]
    ratio = predicted[mask] / measured
    if rows[int(np.argmax(mask))].metric not in TIMES:
        ratio = 1 / ratio
    error = 100 * np.abs(ratio - 1)
    error = error[~np.isnan(error)]
    if not len(error):
        return []
    return [round(float(np.median(error)), 1), round(float(np.quantile(error, 0.9)), 1)]
