"""Errors and interval coverage of predictions against measured rows.

python benchmarks/planner/score.py --rows dev.csv --predictions predictions.csv
"""

import argparse
import csv
import statistics
from collections import defaultdict
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, required=True)
    args = parser.parse_args()
    rows, made = _read(args.rows), _read(args.predictions)
    found: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for row, prediction in zip(rows, made, strict=True):
        for metric, value, fields in _pairs(row, prediction):
            if not prediction[fields[0]]:
                found[metric].append((float("inf"), False))
                continue
            predicted, low, high = (float(prediction[f]) for f in fields)
            found[metric].append((abs(predicted / value - 1), low <= value <= high))
    for metric, results in found.items():
        _print(metric, results)
    _print("all", [r for results in found.values() for r in results])


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _pairs(row: dict[str, str], prediction: dict[str, str]) -> list[tuple[str, float, list[str]]]:
    if "predicted" in prediction:
        return [(row["metric"], float(row["value_tps"]), ["predicted", "low80", "high80"])]
    return [
        (m, float(row[f"measured_{m}_ms"]), [f"predicted_{m}_ms", f"{m}_low80", f"{m}_high80"])
        for m in ("ttft", "tpot")
        if row[f"measured_{m}_ms"]
    ]


def _print(metric: str, results: list[tuple[float, bool]]) -> None:
    errors = sorted(100 * e for e, _ in results)
    inside = 100 * sum(i for _, i in results) / len(results)
    p90 = errors[int(0.9 * (len(errors) - 1))]
    print(
        f"{metric:16s} n={len(errors):5d}  median {statistics.median(errors):6.1f} %  "
        f"p90 {p90:7.1f} %  in 80 % interval {inside:5.1f} %"
    )


if __name__ == "__main__":
    main()
