"""Predicted against measured memory on published llama.cpp runs.

    python -m benchmarks.memory.rows --rows dev.csv [--source lhl/strix-halo-testing] [--verbose]

Rows are those with `mem_used_gb`, by default of the one source that controls context and file; in
reports of volunteers neither the allocated context nor what else was on the card is known.
Predicted from the model's name, file size, backend, context and flags, never the measured memory.
Prints median and 90th percentile of the absolute error and how many were more than 2 % too low.
"""

import argparse
import csv
import statistics
from collections.abc import Iterable
from pathlib import Path

from locavore.catalog.load import Catalog, load
from locavore.planner import memory

BACKENDS = {"Vulkan": "vulkan", "ROCm": "rocm", "CUDA": "cuda", "Metal": "metal", "CPU": "cpu"}
QUANTS = {"Q8_0": "Q8_0", "Q4_0": "Q4_0", "F16": "MXFP4_MOE"}
"""How these rows name a file; the size of the file is known, so the mix matters little."""


def predicted(catalog: Catalog, row: dict[str, str], *, always_prefill: bool) -> float | None:
    """Bytes, or None for a model the catalog has no shape of."""
    model = catalog.models.get(row["model"])
    if model is None or model.shape is None:
        return None
    tokens = sum(float(row[name] or 0) for name in ("n_prompt", "n_gen", "depth"))
    setting = memory.Setting(
        quantization=QUANTS.get(row["quant"], "Q4_K_M"),
        context_tokens=int(tokens),
        engine=f"llama.cpp-{BACKENDS.get(row['backend'], 'cuda')}",
        unified=row["hw_class"] in ("apu", "apple"),
        file_bytes=round(float(row["file_gb"]) * 1e9),
        flash_attention="-fa 1" in row["note"],
        prefill=always_prefill or row["metric"] == "prefill",
    )
    return memory.footprint(model.shape, setting).total_bytes


def errors(
    catalog: Catalog, rows: Iterable[dict[str, str]], *, always_prefill: bool, verbose: bool
) -> list[float]:
    """Relative errors; negative: too little was predicted."""
    found = []
    for row in rows:
        value = predicted(catalog, row, always_prefill=always_prefill)
        if value is None:
            continue
        measured = float(row["mem_used_gb"]) * 1e9
        found.append(value / measured - 1)
        if verbose:
            print(
                f"{row['model']:24}{row['quant']:10}{row['backend']:8}{row['metric']:8}"
                f" measured {measured / 1e9:7.2f} GB, predicted {value / 1e9:7.2f}"
                f" ({found[-1]:+.2%})"
            )
    return found


def line(name: str, found: list[float]) -> str:
    if not found:
        return f"{name}: no rows"
    size = sorted(abs(error) for error in found)
    under = sum(error < -0.02 for error in found)
    return (
        f"{name}: {len(found)} rows, median {statistics.median(size):.2%},"
        f" 90th percentile {size[int(0.9 * (len(size) - 1))]:.2%}, {under} more than 2 % too low"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--source", default="lhl/strix-halo-testing")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    with given.rows.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["mem_used_gb"]]
    catalog = load()
    mine = [row for row in rows if row["source"].startswith(given.source)]
    for name, always in (("as run", False), ("prefill always counted", True)):
        verbose = given.verbose and not always
        print(line(name, errors(catalog, mine, always_prefill=always, verbose=verbose)))


if __name__ == "__main__":
    main()
