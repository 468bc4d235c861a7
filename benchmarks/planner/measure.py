"""Does one calibration run predict another model here, and a longer context?

    python benchmarks/planner/measure.py [--rounds 3] [--long]

Qwen3-0.6B after 256 tokens calibrates; Llama-3.2-1B after 256 tokens is predicted and measured,
with `--long` both models after 1,000 tokens too. All are files of real shape with zero weights,
run by the embedded engine on this machine; half a minute a round, some minutes with `--long`.
Rounds alternate, so that a busy spell hits all runs of a round; the error is the median of the
rounds.
On a shared machine pin it to one core with priority: `taskset -c 3 nice -n -15 python ...`.
Prints JSON.
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

Case = tuple[str, int]
"""(model, prompt tokens) that one calibration predicts."""
SHORT: tuple[Case, ...] = (("Llama-3.2-1B", 256),)
LONG: tuple[Case, ...] = (("Qwen3-0.6B", 1000), ("Llama-3.2-1B", 1000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="also after 1,000 tokens")
    args = parser.parse_args()
    catalog, cases = load(), SHORT + (LONG if args.long else ())
    with tempfile.TemporaryDirectory(prefix="locavore-bench-") as folder:
        rounds = [_round(Path(folder), catalog, cases) for _ in range(args.rounds)]
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
            for case, (model, prompt) in enumerate(cases)
        },
    }
    print(json.dumps(result, indent=1))


Pair = tuple[float, float]
"""(predicted, measured) tokens per second."""


def _round(
    home: Path, catalog: Catalog, cases: tuple[Case, ...]
) -> tuple[Measurement, list[dict[str, Pair]]]:
    """One calibration and all cases, predicted from it."""
    anchor = asyncio.run(speed_measure.measure(home, catalog))
    return anchor, [_case(home, catalog, anchor, *case) for case in cases]


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
