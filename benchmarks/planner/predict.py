"""Predict speeds for rows that describe a situation, for comparison with measurements.

    python benchmarks/planner/predict.py --rows rows.csv --out predictions.csv

Reads description columns only: those of dev.csv (metric, hardware, model shape, quantization,
engine, load) give `id,predicted,low80,high80` in tokens per second; those of serving_dev.csv
(isl, osl, conc, tp_size, ...) give times in ms. A row that cannot be predicted has empty fields.
"""

import argparse
import csv
import math
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src")]

from locavore.core.errors import RequestError  # noqa: E402
from locavore.core.estimate import Estimate  # noqa: E402
from locavore.planner.speed import predict_decode, predict_prefill  # noqa: E402
from locavore.planner.speed_rows import point_from_row, point_from_serving_row  # noqa: E402
from locavore.planner.throughput import (  # noqa: E402
    predict_batched,
    predict_throughput,
    predict_tpot,
    predict_ttft,
)

SPEED_COLUMNS = ["id", "predicted", "low80", "high80"]
SERVING_COLUMNS = [
    "id",
    "predicted_ttft_ms",
    "ttft_low80",
    "ttft_high80",
    "predicted_tpot_ms",
    "tpot_low80",
    "tpot_high80",
]
PREDICTORS: dict[str, Callable[..., Estimate]] = {
    "decode": predict_decode,
    "prefill": predict_prefill,
    "decode_batched": predict_batched,
    "throughput_out": predict_throughput,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with args.rows.open(newline="") as file:
        reader = csv.DictReader(file)
        serving = "isl" in (reader.fieldnames or [])
        lines = [_serving_line(row) if serving else _speed_line(row) for row in reader]
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(SERVING_COLUMNS if serving else SPEED_COLUMNS)
        writer.writerows(lines)
    missed = sum(1 for line in lines if not line[1])
    print(f"{len(lines)} rows, {missed} not predicted", file=sys.stderr)


def _speed_line(row: dict[str, str]) -> list[str]:
    predictor = PREDICTORS.get((row.get("metric") or "").strip())
    tier = (row.get("tier") or "").strip()

    def predict() -> list[Estimate]:
        if predictor is None:
            raise RequestError(f"metric is {row.get('metric')!r}; known: {', '.join(PREDICTORS)}")
        return [predictor(point_from_row(row), tier=tier)]

    return [row.get("id") or "", *_fields(predict, 3)]


def _serving_line(row: dict[str, str]) -> list[str]:
    def predict() -> list[Estimate]:
        point = point_from_serving_row(row)
        return [predict_ttft(point), predict_tpot(point)]

    return [row.get("id") or "", *_fields(predict, 6)]


def _fields(predict: Callable[[], list[Estimate]], count: int) -> list[str]:
    """Values with low and high; empty fields, and the reason on stderr, when it cannot be done."""
    try:
        estimates = predict()
    except (RequestError, ArithmeticError, ValueError) as error:
        print(f"not predicted: {error}", file=sys.stderr)
        return [""] * count
    values = [v for e in estimates for v in (e.mean, e.low, e.high)]
    if not all(math.isfinite(v) and v > 0 for v in values):
        print(f"not predicted: figures are {values!r}; check the row's numbers", file=sys.stderr)
        return [""] * count
    return [f"{v:.6g}" for v in values]


if __name__ == "__main__":
    main()
