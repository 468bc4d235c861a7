"""Published rows -> what the fit takes: a point, its measured time, its noise and labels."""

import csv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.planner.solver import Sample
from locavore.planner import throughput
from locavore.planner.coefficients import labels, serving_labels
from locavore.planner.speed_features import decode_features, prefill_features
from locavore.planner.speed_point import Point
from locavore.planner.speed_rows import point_from_row, point_from_serving_row
from locavore.planner.throughput_features import batch_features

NOISE = {"A": 0.10, "B": 0.15, "C": 0.20}
TIMES = ("tpot", "ttft")
"""Metrics measured as times; the others are speeds."""


@dataclass(frozen=True)
class Measured:
    """One row: the point, its metric and tier, and the sample the solver takes."""

    point: Point
    metric: str
    tier: str
    sample: Sample

    @property
    def hardware(self) -> str:
        return self.point.machine.name.lower()

    @property
    def model(self) -> str:
        """One architecture under all of its names: DeepSeek V3 and R1 are the same machine work."""
        shape = self.point.shape
        return f"{shape.layers} layers, {shape.total_b:.2g}"

    @property
    def family(self) -> str:
        """Maker's line of models: the letters that the model's name starts with."""
        name = self.point.shape.name.rsplit("/", 1)[-1].lower().removeprefix("meta-")
        return "".join(c for c in name.split("-")[0] if c.isalpha())


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def speed_rows(rows: list[dict[str, str]], metric: str) -> list[Measured]:
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
        out.append(Measured(point, metric, row["tier"], sample))
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


def serving_rows(rows: list[dict[str, str]], serving: list[dict[str, str]]) -> list[Measured]:
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
    return Measured(point, metric, tier, sample)


def first_token_rows(serving: list[dict[str, str]]) -> list[Measured]:
    out = []
    for row in serving:
        if not row["measured_ttft_ms"]:
            continue
        point = point_from_serving_row(row)
        known = serving_labels(point, "serving")
        cluster = (point.shape.name, point.machine.name, known["path"], point.quant)
        features = throughput.first_token_features(point)
        sample = Sample(features, known, float(row["measured_ttft_ms"]), 0.25, cluster)
        out.append(Measured(point, "ttft", "A", sample))
    return out
