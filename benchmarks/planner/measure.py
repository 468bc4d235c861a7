"""Does one calibration run predict another model here? Qwen3-0.6B calibrates, Llama-3.2-1B tests.

    python benchmarks/planner/measure.py [--rounds 3]

Both are files of real shape with zero weights, run by the embedded engine on this machine; about
a minute a round, best of the rounds. Prints measured and predicted decode and prefill as JSON.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src")]

from locavore.catalog.load import load  # noqa: E402
from locavore.planner import machines, speed_measure  # noqa: E402
from locavore.planner.speed_measure import Measurement  # noqa: E402
from locavore.planner.speed_report import Ask, report  # noqa: E402

TESTED = "Llama-3.2-1B"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    catalog = load()
    with tempfile.TemporaryDirectory(prefix="locavore-bench-") as folder:
        home = Path(folder)
        anchors, truths = [], []
        for _ in range(args.rounds):  # alternating: a busy spell hits both
            anchors.append(asyncio.run(speed_measure.measure(home, catalog)))
            truths.append(asyncio.run(speed_measure.measure(home, catalog, model=TESTED)))
        anchor, truth = _best(anchors), _best(truths)
        ask = Ask(
            prompt_tokens=truth.prompt_tokens,
            generate_tokens=truth.generated_tokens,
            context_tokens=truth.prompt_tokens + truth.generated_tokens // 2,
        )
        target = machines.target(catalog, "this")
        found = report(catalog, catalog.model(TESTED), target, ask, home=home, anchor=anchor)
    result = {
        "machine": anchor.machine,
        "engine": anchor.engine_build,
        "rounds": args.rounds,
        "calibration_decode_tps": [round(m.decode_tps, 2) for m in anchors],
        "tested_decode_tps": [round(m.decode_tps, 2) for m in truths],
        "decode": _line(found.decode.mean, truth.decode_tps),
        "prefill": _line(found.prefill.mean, truth.prefill_tps),
    }
    print(json.dumps(result, indent=1))


def _best(runs: list[Measurement]) -> Measurement:
    """Fastest decode and prefill of all rounds: other processes only slow a run down."""
    return msgspec.structs.replace(
        runs[0],
        decode_tps=max(run.decode_tps for run in runs),
        prefill_tps=max(run.prefill_tps for run in runs),
    )


def _line(predicted: float, measured: float) -> dict[str, float]:
    return {
        "predicted": round(predicted, 2),
        "measured": round(measured, 2),
        "error_percent": round(100 * (predicted / measured - 1), 1),
    }


if __name__ == "__main__":
    main()
