"""Does one calibration run predict other models and contexts here?

    python benchmarks/planner/measure.py [--rounds 3]

Qwen3-0.6B after 256 tokens calibrates; Llama-3.2-1B after 256 and both after 3,000 tokens are then
predicted and measured. All are files of real shape with zero weights, run by the embedded engine
on this machine; about two minutes a round. Rounds alternate, so that a busy spell hits all runs of
a round; the error is the median of the rounds. Prints JSON.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src")]

from locavore.catalog.load import Catalog, load  # noqa: E402
from locavore.planner import machines, speed_measure  # noqa: E402
from locavore.planner.speed_measure import Measurement  # noqa: E402
from locavore.planner.speed_report import Ask, report  # noqa: E402

CASES = (("Llama-3.2-1B", 256), ("Qwen3-0.6B", 3000), ("Llama-3.2-1B", 3000))
"""(model, prompt tokens) that one calibration predicts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    catalog = load()
    with tempfile.TemporaryDirectory(prefix="locavore-bench-") as folder:
        rounds = [_round(Path(folder), catalog) for _ in range(args.rounds)]
    anchors = [anchor for anchor, _ in rounds]
    result = {
        "machine": anchors[0].machine,
        "engine": anchors[0].engine_build,
        "rounds": args.rounds,
        "calibration_decode_tps": [round(a.decode_tps, 2) for a in anchors],
        "predicted": {
            f"{model}, {prompt} tokens": {
                metric: _line([lines[case][metric] for _, lines in rounds])
                for metric in ("decode", "prefill")
            }
            for case, (model, prompt) in enumerate(CASES)
        },
    }
    print(json.dumps(result, indent=1))


Pair = tuple[float, float]
"""(predicted, measured) tokens per second."""


def _round(home: Path, catalog: Catalog) -> tuple[Measurement, list[dict[str, Pair]]]:
    """One calibration and all cases, predicted from it."""
    anchor = asyncio.run(speed_measure.measure(home, catalog))
    return anchor, [_case(home, catalog, anchor, *case) for case in CASES]


def _case(
    home: Path, catalog: Catalog, anchor: Measurement, model: str, prompt: int
) -> dict[str, Pair]:
    truth = asyncio.run(speed_measure.measure(home, catalog, model=model, prompt_tokens=prompt))
    ask = Ask(
        prompt_tokens=prompt,
        generate_tokens=truth.generated_tokens,
        context_tokens=prompt + truth.generated_tokens // 2,
    )
    target = machines.target(catalog, "this")
    found = report(catalog, catalog.model(model), target, ask, home=home, anchor=anchor)
    return {
        "decode": (found.decode.mean, truth.decode_tps),
        "prefill": (found.prefill.mean, truth.prefill_tps),
    }


def _line(pairs: list[Pair]) -> dict[str, float]:
    """Medians of the rounds, and the median of their errors in %."""
    return {
        "predicted_tps": round(statistics.median(p for p, _ in pairs), 2),
        "measured_tps": round(statistics.median(m for _, m in pairs), 2),
        "error_percent": round(statistics.median(100 * (p / m - 1) for p, m in pairs), 1),
    }


if __name__ == "__main__":
    main()
