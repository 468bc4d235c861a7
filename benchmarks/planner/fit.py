"""Fit the speed model's coefficients to measured rows, with cross-validation, and write them.

    python benchmarks/planner/fit.py --rows dev.csv --serving serving_dev.csv [--write]

Prints median and 90th percentile absolute error per class next to the goals: fitted, held out by
hardware, by model and by family of models; a few minutes. `--write` stores coefficients, interval
factors (quantiles of held-out errors) and these errors in the package, and the errors in
docs/explain/speed-model.md. Measured rows are read from the flags' files only; the package keeps
coefficients.
"""

import argparse
import datetime
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: threads cost ten times more

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.planner import priors  # noqa: E402
from benchmarks.planner.fit_errors import Errors, Result, Task, measured_paths, report, run  # noqa: E402
from benchmarks.planner.fit_rows import (  # noqa: E402
    first_token_rows,
    read,
    serving_rows,
    speed_rows,
)
from benchmarks.planner.fit_table import write_table  # noqa: E402
from benchmarks.planner.intervals import Bands  # noqa: E402
from benchmarks.planner.solver import Prior  # noqa: E402
from locavore.core.errors import RequestError  # noqa: E402
from locavore.planner import speed_formulas  # noqa: E402
from locavore.planner.coefficients import fitted  # noqa: E402

OUT = ROOT / "src/locavore/planner/data/speed-coefficients.json"
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


def main() -> None:
    args = _arguments()
    rows, serving = read(args.rows), read(args.serving)
    tasks = [
        Task(
            "decode",
            speed_formulas.decode_ms,
            priors.DECODE,
            speed_rows(rows, "decode"),
            priors.SIMPLE_DECODE,
        ),
        Task(
            "prefill",
            speed_formulas.prefill_ms,
            priors.PREFILL,
            speed_rows(rows, "prefill"),
            priors.SIMPLE_PREFILL,
        ),
        Task(
            "serving",
            speed_formulas.tpot_ms,
            priors.SERVING,
            serving_rows(rows, serving),
            priors.SIMPLE_SERVING,
        ),
    ]
    errors: Errors = {}
    bands = Bands()
    results = [_fitted(task, errors, bands) for task in tasks]
    if args.write:  # TTFT builds on the serving coefficients just written
        _write(results, errors, bands, {"ttft": _placeholder(priors.TTFT)})
        fitted.cache_clear()
    first = Task("ttft", speed_formulas.ttft_ms, priors.TTFT, first_token_rows(serving))
    results.append(_fitted(first, errors, bands))
    for view, shares in bands.coverage().items():
        print(f"inside the 80 % interval, held out by {view}: {shares}")
    if args.write:
        _write(results, errors, bands, {})
        write_table(errors)
        print(f"wrote {OUT.relative_to(ROOT)}")


def _fitted(task: Task, errors: Errors, bands: Bands) -> Result:
    result = run(task)
    report(result, errors)
    bands.add(result)
    return result


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="rows like dev.csv")
    parser.add_argument("--serving", type=Path, required=True, help="rows like serving_dev.csv")
    parser.add_argument("--write", action="store_true", help="store the coefficients")
    return parser.parse_args()


def _placeholder(prior: dict[str, Prior]) -> dict[str, Any]:
    return {kind: {"value": float(np.exp(p.center))} for kind, p in prior.items()}


def _write(results: list[Result], errors: Errors, bands: Bands, more: dict[str, Any]) -> None:
    machines = sorted({m.hardware for result in results for m in result.task.rows})
    content = {
        "as_of": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "sources": SOURCES,
        "formulas": {r.task.name: r.fit.table() for r in results} | more,
        "bands": bands.factors(),
        "machines": machines,
        "paths": {m: paths for r in results for m, paths in measured_paths(r.task.rows).items()},
        "errors": errors,
        "coverage": bands.coverage(),
    }
    OUT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except RequestError as error:
        sys.exit(f"error: {error.message}")
