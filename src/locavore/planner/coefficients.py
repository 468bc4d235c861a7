"""Fitted coefficients: dated data, chosen by the labels of a point, with a fallback for each.

A coefficient is a pooled value times one factor per label that the fit has seen (`path`,
`generation`, `machine`, ...). An unseen label has factor one: the pooled value.
"""

import functools
import importlib.resources
from collections.abc import Mapping
from typing import Any

import msgspec

from locavore.planner.speed_families import generation, software, vendor
from locavore.planner.speed_point import Point
from locavore.planner.throughput_features import ONE_NODE


class Coefficient(msgspec.Struct, frozen=True):
    """`value` times the factors of the labels that apply."""

    value: float
    by: dict[str, dict[str, float]] = {}

    def at(self, labels: Mapping[str, str]) -> float:
        result = self.value
        for name, factors in self.by.items():
            result *= factors.get(labels.get(name, ""), 1.0)
        return result


class Band(msgspec.Struct, frozen=True):
    """80 % interval as factors of the prediction, and how many measurements it was read from."""

    low: float
    high: float
    n: int


class Fitted(msgspec.Struct, frozen=True):
    """The content of `data/speed-coefficients.json`."""

    as_of: str
    sources: list[str]
    formulas: dict[str, dict[str, Coefficient]]
    """formula name -> coefficient name -> value and factors."""
    bands: dict[str, Band]
    """`metric/class/...` from general to special -> interval."""
    machines: list[str]
    """Hardware names with measurements of their own."""
    paths: dict[str, list[str]] = {}
    """metric -> code paths with at least ten measurements."""
    errors: dict[str, Any] = {}
    """Cross-validated errors by class, as `fit.py` printed them."""
    coverage: dict[str, dict[str, float]] = {}
    """Share of held-out measurements inside their interval, %, by what was held out and metric."""


@functools.cache
def fitted() -> Fitted:
    data = importlib.resources.files("locavore.planner").joinpath("data/speed-coefficients.json")
    return msgspec.json.decode(data.read_bytes(), type=Fitted)


def values(formula: str, labels: Mapping[str, str]) -> dict[str, float]:
    """Every coefficient of a formula for these labels."""
    return {name: c.at(labels) for name, c in fitted().formulas[formula].items()}


def labels(point: Point) -> dict[str, str]:
    """What the fit may tell apart about a point on its own."""
    path, quant = point.path, point.quant
    stored = "bf16" if "bf16" in point.setting.quant.lower() else quant
    chip = "cpu" if point.on_cpu else generation(point.machine.name, point.machine.hw_class)
    return {
        "path": path,
        "software": software(path),
        "vendor": vendor(chip),
        "engine": f"{path}:{point.setting.engine.strip().lower()}",
        "kernel": f"{path}:{stored}",
        "quant": ("cpu-" if point.on_cpu else "") + quant,
        "type": f"{path}:{point.setting.quant.lower()}" if point.on_cpu else "",
        "class": point.machine.hw_class,
        "generation": chip,
        "machine": point.machine.name.lower(),
    }


def serving_labels(point: Point, workload: str) -> dict[str, str]:
    """The same for a batch: `workload` is `serving`, `throughput_out` or `decode_batched`."""
    engine = point.setting.engine.lower()
    path = "sglang" if "sglang" in engine else point.path
    if "vllm 0.5" in engine or "vllm 0.4" in engine:
        path = "vllm-old"  # before the rewrite of its scheduler, each sequence cost ten times more
    if point.setting.devices > ONE_NODE:
        path += "-wide"  # experts and sequences spread over servers: other exchanges, other limits
    return {
        "path": path,
        "kernel": f"{path}:{point.quant}",
        "quant": point.quant,
        "generation": generation(point.machine.name, point.machine.hw_class),
        "machine": point.machine.name.lower(),
        "workload": workload,
    }


def band(keys: list[str]) -> Band:
    """The interval of the most special key that was measured often enough; keys from general on."""
    bands = fitted().bands
    return next((bands[key] for key in reversed(keys) if key in bands), bands["all"])


def anchored_band(metric: str) -> Band:
    """The interval of a prediction scaled by one run of another model on the same machine."""
    return fitted().bands[f"anchored/{metric}"]


def band_keys(metric: str, point: Point, tier: str = "") -> list[str]:
    """Interval classes of a point, from general to special.

    tier: `A` controlled, `B` documented application, `C` crowd; empty: controlled.
    """
    data = fitted()
    path = serving_labels(point, "")["path"] if metric in BATCHED else point.path
    known = "new"
    if point.machine.name.lower() in data.machines:
        known = "seen"
    elif path in data.paths.get(metric, ()):
        known = "path"
    return class_keys(metric, point, tier or "A", known)


BATCHED = ("decode_batched", "throughput_out", "tpot", "ttft")


def class_keys(metric: str, point: Point, tier: str, known: str) -> list[str]:
    """known: `seen` (this machine was measured), `path` (only its code path was) or `new`."""
    device = "cpu" if point.on_cpu else ("many" if point.setting.devices > 1 else "one")
    if metric in BATCHED:
        return ["all", metric, f"{metric}/{known}"]
    general = ["all"] if point.on_cpu else ["all", metric]  # CPUs differ more than GPUs do
    return [
        *general,
        f"{metric}/{device}",
        f"{metric}/{device}/{known}",
        f"{metric}/{device}/{known}/{tier}",
    ]
