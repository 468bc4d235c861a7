"""Fit the speed model's coefficients to measured rows, with cross-validation, and write them.

    python benchmarks/planner/fit.py --rows dev.csv --serving serving_dev.csv [--write]

Prints median and 90th percentile absolute error per class next to the goals: fitted, held out by
hardware, held out by model. `--write` stores coefficients, interval factors (quantiles of held-out
errors) and these errors in the package. Measured rows are read from the flags' files only; the
package keeps coefficients.
"""

import argparse
import csv
import datetime
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: threads cost ten times more

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.planner import priors  # noqa: E402
from benchmarks.planner.solver import Array, Fit, Formula, Prior, Sample, cross_validate  # noqa: E402
from locavore.core.errors import RequestError  # noqa: E402
from locavore.planner import speed_formulas, throughput  # noqa: E402
from locavore.planner.coefficients import class_keys, labels, serving_labels  # noqa: E402
from locavore.planner.speed_features import decode_features, prefill_features  # noqa: E402
from locavore.planner.speed_point import Point  # noqa: E402
from locavore.planner.speed_rows import point_from_row, point_from_serving_row  # noqa: E402
from locavore.planner.throughput_features import batch_features  # noqa: E402

OUT = ROOT / "src/locavore/planner/data/speed-coefficients.json"
NOISE = {"A": 0.10, "B": 0.15, "C": 0.20}
SMALLEST_BAND = 25
FEWEST_ELSEWHERE = 10
FEWEST_GROUPS = 1.6
SOURCES = [
    "XiongjieDai/GPU-Benchmarks-on-LLM-Inference@aa72e0ec86c3 (figures)",
    "kyuz0/amd-strix-halo-toolboxes@d1a34bee0900 (figures)",
    "lhl/strix-halo-testing@5ee14b5b0ecf (Apache-2.0)",
    "AUGMXNT/llm-tracker.info-vault@b56234c471c2 (figures)",
    "ikawrakow/ik_llama.cpp discussion 164 (MIT)",
    "cjpais/LocalScore@ef2c21fa13d4 (Apache-2.0)",
    "geerlingguy/ai-benchmarks@bdf94413f5f2 (MIT)",
    "AlexsJones/llmfit@3f44fd30a43d (MIT)",
    "LottoLottoLotto/4x3090-llm-benchmarks@bd222811dbbd (figures)",
    "AlexHiesch/apple-silicon-llm-bench@c230ae411c00 (figures)",
    "raullenchai/Rapid-MLX@7222ca776c02 (Apache-2.0)",
    "local-inference-lab/rtx6kpro@e2c2b9577c93 (figures)",
    "mlcommons/inference_results_v5.1@965182b03376 (figures)",
    "NVIDIA/TensorRT-LLM perf-overview@03e27c7d5ff0 (Apache-2.0)",
    "LambdaLabsML/vllm-benchmark@0e8fc5d0f986 (figures)",
    "ai-dynamo/aiconfigurator silicon_sample.csv@095f58a51c4c (Apache-2.0)",
]


@dataclass(frozen=True)
class Measured:
    """One row: the point, its metric and tier, and the sample the solver takes."""

    point: Point
    metric: str
    tier: str
    model: str
    sample: Sample


@dataclass(frozen=True)
class Task:
    """One formula with its rows."""

    name: str
    formula: Formula
    prior: dict[str, Prior]
    rows: list[Measured]
    simple: dict[str, Prior] | None = None
    """The simple model to compare with; None: no comparison."""


def main() -> None:
    args = _arguments()
    rows, serving = _read(args.rows), _read(args.serving)
    decode, prefill = _speed_rows(rows, "decode"), _speed_rows(rows, "prefill")
    load = _serving_rows(rows, serving)
    tasks = [
        Task("decode", speed_formulas.decode_ms, priors.DECODE, decode, priors.SIMPLE_DECODE),
        Task("prefill", speed_formulas.prefill_ms, priors.PREFILL, prefill, priors.SIMPLE_PREFILL),
        Task("serving", speed_formulas.tpot_ms, priors.SERVING, load, priors.SIMPLE_SERVING),
    ]
    tables: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    bands = _Bands()
    for task in tasks:
        tables[task.name] = _run(task, errors, bands)
    if args.write:  # TTFT builds on the serving coefficients just written
        _write(tables | {"ttft": _placeholder(priors.TTFT)}, errors, bands, tasks)
        _forget()
    first = Task("ttft", speed_formulas.ttft_ms, priors.TTFT, _first_token_rows(serving))
    tables["ttft"] = _run(first, errors, bands)
    for view, shares in bands.coverage().items():
        print(f"inside the 80 % interval, held out by {view}: {shares}")
    if args.write:
        _write(tables, errors, bands, [*tasks, first])
        print(f"wrote {OUT.relative_to(ROOT)}")


def _forget() -> None:
    """Forget the coefficients read before this fit."""
    from locavore.planner.coefficients import fitted

    fitted.cache_clear()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="rows like dev.csv")
    parser.add_argument("--serving", type=Path, required=True, help="rows like serving_dev.csv")
    parser.add_argument("--write", action="store_true", help="store the coefficients")
    return parser.parse_args()


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _speed_rows(rows: list[dict[str, str]], metric: str) -> list[Measured]:
    features = decode_features if metric == "decode" else prefill_features
    out = []
    for row in rows:
        if row["metric"] != metric:
            continue
        point = point_from_row(row)
        sample = Sample(
            features=features(point),
            labels={**labels(point), "group": _simple_group(point)},
            value=1000 / float(row["value_tps"]),
            noise=NOISE[row["tier"]],
            cluster=(row["source"], row["hardware"], row["engine"], row["model"]),
        )
        out.append(Measured(point, metric, row["tier"], row["model"], sample))
    return out


def _simple_group(point: Point) -> str:
    """The few groups of backends that the simple model has coefficients for."""
    path = point.path
    if path == "llamacpp-cuda-old":
        return "cuda-old-hbm" if point.hbm else path
    for word, group in (("metal", "metal"), ("rocm", "amd"), ("vulkan", "amd"), ("cpu", "cpu")):
        if word in path:
            return group
    if path.startswith("mlx"):
        return "mlx"
    return "server" if path in ("vllm", "exl", "trtllm") else path


def _serving_rows(rows: list[dict[str, str]], serving: list[dict[str, str]]) -> list[Measured]:
    out = [_load_row(r) for r in rows if r["metric"] in ("throughput_out", "decode_batched")]
    for row in serving:
        if row["measured_tpot_ms"]:
            point = point_from_serving_row(row)
            batch, _ = throughput.admitted(point)
            value = float(row["measured_tpot_ms"])
            out.append(_batch_row(point, "serving", "A", batch_features(point, batch), value))
    return out


def _load_row(row: dict[str, str]) -> Measured:
    point, speed = point_from_row(row), float(row["value_tps"])
    if row["metric"] == "decode_batched":
        batch = max(point.load.batch, 1)
        features = throughput.generation_features(point, batch)
        return _batch_row(point, row["metric"], row["tier"], features, 1000 * batch / speed)
    sequences, copies = throughput.full_load(point)
    features = batch_features(point, sequences)
    value = 1000 * sequences * copies / speed
    return _batch_row(point, row["metric"], row["tier"], features, value)


def _batch_row(
    point: Point, workload: str, tier: str, features: dict[str, float], value: float
) -> Measured:
    known = serving_labels(point, workload)
    cluster = (workload, point.shape.name, point.machine.name, known["path"], point.quant)
    sample = Sample(features, known, value, 0.12 if workload == "serving" else 0.15, cluster)
    metric = "tpot" if workload == "serving" else workload
    return Measured(point, metric, tier, point.shape.name, sample)


def _first_token_rows(serving: list[dict[str, str]]) -> list[Measured]:
    out = []
    for row in serving:
        if not row["measured_ttft_ms"]:
            continue
        point = point_from_serving_row(row)
        known = serving_labels(point, "serving")
        cluster = (point.shape.name, point.machine.name, known["path"], point.quant)
        features = throughput.first_token_features(point)
        sample = Sample(features, known, float(row["measured_ttft_ms"]), 0.25, cluster)
        out.append(Measured(point, "ttft", "A", point.shape.name, sample))
    return out


# --- errors ---------------------------------------------------------------------------------


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


def _run(task: Task, errors: dict[str, Any], bands: "_Bands") -> dict[str, Any]:
    samples = [m.sample for m in task.rows]
    fit = Fit(task.formula, task.prior, samples)
    views = {"fitted": fit.predict(samples)}
    groups: dict[str, list[Hashable]] = {
        "hardware": [m.point.machine.name.lower() for m in task.rows],
        "model": [m.model for m in task.rows],
    }
    for name, group in groups.items():
        views[name] = cross_validate(task.formula, task.prior, samples, group)
        if task.simple:
            views[f"simple, {name}"] = cross_validate(task.formula, task.simple, samples, group)
    known = set(known_paths(task.rows, "hardware"))
    elsewhere = np.array([i in known for i in range(len(samples))])
    for name in ("hardware", "simple, hardware"):
        if name in views:
            views[f"{name}, known path"] = np.where(elsewhere, views[name], np.nan)
    for label, goal, member in CLASSES:
        _report(label, goal, [member(m) for m in task.rows], task.rows, views, errors)
    bands.add(task.rows, views)
    bands.add_anchored(task.rows, views)
    return fit.table()


def _report(
    label: str,
    goal: str,
    chosen: Sequence[bool],
    rows: Sequence[Measured],
    views: dict[str, Array],
    errors: dict[str, Any],
) -> None:
    mask = np.array(chosen)
    if not mask.any():
        return
    measured = np.array([m.sample.value for m in rows])[mask]
    timed = rows[int(np.argmax(mask))].metric in ("tpot", "ttft")
    parts = []
    for name, predicted in views.items():
        ratio = predicted[mask] / measured
        error = 100 * np.abs((ratio if timed else 1 / ratio) - 1)
        error = error[~np.isnan(error)]
        if not len(error):
            continue
        pair = [round(float(np.median(error)), 1), round(float(np.quantile(error, 0.9)), 1)]
        errors.setdefault(label, {"goal": goal, "n": int(mask.sum())})[name] = pair
        parts.append(f"{name} {pair[0]:5.1f} / {pair[1]:6.1f}")
    print(f"{label:40s} n={mask.sum():5d}  goal {goal:8s}  " + "   ".join(parts))


class _Bands:
    """Collects held-out log errors by class and turns them into 80 % factors.

    A class counts when its rows come from several machines and models, and falls back to a more
    general one if not.
    """

    def __init__(self) -> None:
        self.errors: dict[str, list[tuple[float, Hashable, Hashable]]] = {}
        self.held: list[tuple[str, str, float, list[str]]] = []

    def add(self, rows: Sequence[Measured], views: dict[str, Array]) -> None:
        for view, known in (("hardware", False), ("model", True)):
            for i in range(len(rows)):
                m = rows[i]
                sign = -1.0 if m.metric in ("tpot", "ttft") else 1.0
                error = sign * float(np.log(views[view][i] / m.sample.value))
                entry = (error, m.point.machine.name.lower(), m.model)
                keys = class_keys(m.metric, m.point, m.tier, known=known)
                self.held.append((view, m.metric, error, keys))
                for key in keys:
                    self.errors.setdefault(key, []).append(entry)

    def coverage(self) -> dict[str, dict[str, float]]:
        """view -> metric (or `all`) -> % of held-out measurements inside their interval."""
        bands = self.factors()
        inside: dict[str, dict[str, list[bool]]] = {}
        for view, metric, error, keys in self.held:
            band = next((bands[k] for k in reversed(keys) if k in bands), bands["all"])
            found = bool(band["low"] <= np.exp(-error) <= band["high"])
            for name in (metric, "all"):
                inside.setdefault(view, {}).setdefault(name, []).append(found)
        return {
            view: {name: round(100 * float(np.mean(found)), 1) for name, found in metrics.items()}
            for view, metrics in inside.items()
        }

    def add_anchored(self, rows: Sequence[Measured], views: dict[str, Array]) -> None:
        """Errors when another model's run on the same machine and engine scales a prediction.

        Controlled runs only: a calibration here is one.
        """
        held = views["hardware"]
        situations: dict[Hashable, list[int]] = {}
        for i in known_paths(rows, "hardware"):
            m = rows[i]
            if m.tier == "A" and m.metric in ("decode", "prefill") and m.point.setting.devices == 1:
                key = (m.metric, m.point.machine.name, m.point.setting.engine)
                situations.setdefault(key, []).append(i)
        for members in situations.values():
            for i in members:
                other = next((j for j in members if rows[j].model != rows[i].model), None)
                if other is None:
                    continue
                scale = rows[other].sample.value / held[other]
                error = float(np.log(held[i] * scale / rows[i].sample.value))
                entry = (error, rows[i].point.machine.name.lower(), rows[i].model)
                self.errors.setdefault(f"anchored/{rows[i].metric}", []).append(entry)

    def factors(self) -> dict[str, dict[str, float]]:
        """Prediction x factor: the middle 80 % of a class's held-out errors."""
        out = {}
        for key, entries in sorted(self.errors.items()):
            if key != "all" and not _diverse(entries):
                continue
            error = np.array([e for e, _, _ in entries])
            low, high = np.quantile(-error, (0.1, 0.9))
            out[key] = {
                "low": float(f"{min(np.exp(low), 0.95):.3g}"),
                "high": float(f"{max(np.exp(high), 1.05):.3g}"),
                "n": len(entries),
            }
        return out


def known_paths(rows: Sequence[Measured], view: str) -> list[int]:
    """Rows whose code path other hardware (or models) measured at least ten times."""
    paths = [m.sample.labels["path"] for m in rows]
    groups = [m.point.machine.name.lower() if view == "hardware" else m.model for m in rows]
    on_path = Counter(paths)
    in_group = Counter(zip(paths, groups, strict=True))
    return [
        i
        for i, (path, group) in enumerate(zip(paths, groups, strict=True))
        if on_path[path] - in_group[path, group] >= FEWEST_ELSEWHERE
    ]


def _diverse(entries: Sequence[tuple[float, Hashable, Hashable]]) -> bool:
    """Enough rows, and no one machine or model dominates (inverse Simpson index)."""
    if len(entries) < SMALLEST_BAND:
        return False
    shares = [Counter(entry[i] for entry in entries) for i in (1, 2)]
    return all(
        len(entries) ** 2 / sum(n * n for n in count.values()) >= FEWEST_GROUPS for count in shares
    )


def _placeholder(prior: dict[str, Prior]) -> dict[str, Any]:
    return {kind: {"value": float(np.exp(p.center))} for kind, p in prior.items()}


def _write(
    tables: dict[str, Any], errors: dict[str, Any], bands: _Bands, tasks: Sequence[Task]
) -> None:
    machines = sorted({m.point.machine.name.lower() for task in tasks for m in task.rows})
    content = {
        "as_of": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "sources": SOURCES,
        "formulas": tables,
        "bands": bands.factors(),
        "machines": machines,
        "errors": errors,
        "coverage": bands.coverage(),
    }
    OUT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except RequestError as error:
        sys.exit(f"error: {error.message}")
