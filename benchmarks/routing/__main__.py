"""How good routing is, on prompts, domains and benchmarks it has not seen.

`python -m benchmarks routing --data FOLDER --metrics PATH/routing_metrics.py` writes
`benchmarks/routing/results/routing.json`; `--table` prints the tables of docs/explain/routing.md
from that file. FOLDER holds the outcome files; PATH the judge's tool (interface C).

`valid`: the fifth of the development questions that training never sees. `domains`: whole domains
(or benchmarks) left out of everything that is trained, in turn. Intervals are over bootstrap
resamples of the prompts. Single-core CPU time.
"""

import argparse
import importlib.util
import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.routing.adapter import Staged, make_staged
from benchmarks.routing.outcomes import SOURCES, Row, load
from benchmarks.routing.train import train
from locavore.routing.estimators.trunk import DIMS, Trunk

RESULTS = Path(__file__).with_name("results") / "routing.json"
FOLDS = {"zeroeval": 2}
FRAC, CONFIDENCE = 0.98, {"valid": 0.95, "domains": 0.90}
Floats = npt.NDArray[np.float64]


def domain(row: Row) -> str:
    if row["file"] == "zeroeval" or row["benchmark"] == "gsm8k":
        return str(row["benchmark"])
    return str(row["domain"])


def cells(
    rows: list[Row], pairs: list[Row]
) -> Iterator[tuple[str, str, Row, list[Row], list[Row], Trunk]]:
    """(split, fold, pair, training rows, test rows, artifact trained without the test rows)."""
    rest = [r for r in rows if r["split"] == "train"]
    trunk = Trunk(train(rest, "benchmark"))
    for pair in pairs:
        seen, test = of_pair(rest, pair), of_pair(rows, pair)
        yield "valid", "valid", pair, seen, [r for r in test if r["split"] == "valid"], trunk
    for source in dict.fromkeys(p["file"] for p in pairs):
        names = sorted({domain(r) for r in rows if r["file"] == source})
        random.Random(3).shuffle(names)
        folds = FOLDS.get(source, 3)
        for k in range(folds):
            out = set(names[k::folds])
            test = [r for r in rows if r["file"] == source and domain(r) in out]
            groups = {r["group"] for r in test}
            rest = [r for r in rows if r["group"] not in groups and domain(r) not in out]
            trunk = Trunk(train(rest, "benchmark"))
            for pair in pairs:
                if pair["file"] == source:
                    yield "domains", f"{k}", pair, of_pair(rest, pair), of_pair(test, pair), trunk


def of_pair(rows: list[Row], pair: Row) -> list[Row]:
    return [
        r
        for r in rows
        if r["file"] == pair["file"]
        and r["scores"].get(pair["weak"]) is not None
        and r["scores"].get(pair["strong"]) is not None
    ]


# Measuring one cell ------------------------------------------------------------------------------


def measure(
    judge: ModuleType,
    split: str,
    pair: Row,
    rest: list[Row],
    test: list[Row],
    trunk: Trunk,
    draws: int,
) -> list[Row]:
    staged = make_staged(pair, rest, trunk)
    strong = np.array([r["scores"][pair["strong"]] for r in test], float)
    views = [judge.local_view(r, pair) for r in test]
    found = []
    for stage in ("pre", "post"):
        if stage == "post" and any(v[1] is None for v in views):
            continue
        weak = np.array(
            [
                v[0] if stage == "post" else r["scores"][pair["weak"]]
                for r, v in zip(test, views, strict=True)
            ],
            float,
        )
        scores, cpu_ms = _scores(staged, stage, test, views)
        row: Row = {"stage": stage, **judge.metrics(scores, weak, strong)}
        row["excess_ECE"] = judge.excess_ece(scores, weak >= strong)
        for key in ("APGR", "L98"):
            row[f"{key}_ci"] = judge.bootstrap(scores, weak, strong, key, n=100)
        row["cpu_ms"] = {
            "p50": float(np.percentile(cpu_ms, 50)),
            "p99": float(np.percentile(cpu_ms, 99)),
        }
        row["baselines"] = _baselines(judge, pair, rest, test, views, weak, strong, trunk, stage)
        if len(test) >= 290:
            row["promise"] = _promise(
                staged, stage, split, test, views, weak, strong, row["L98"], draws
            )
        found.append(row)
    return found


def _scores(staged: Staged, stage: str, test: list[Row], views: list[Any]) -> tuple[Floats, Floats]:
    scores, cpu = np.empty(len(test)), np.empty(len(test))
    for k, (row, view) in enumerate(zip(test, views, strict=True)):
        begun = time.process_time()
        scores[k] = (
            staged.pre(row["prompt"]) if stage == "pre" else staged.post(row["prompt"], view[1])
        )
        cpu[k] = 1e3 * (time.process_time() - begun)
    return scores, cpu


def _baselines(
    judge: ModuleType,
    pair: Row,
    rest: list[Row],
    test: list[Row],
    views: list[Any],
    weak: Floats,
    strong: Floats,
    trunk: Trunk,
    stage: str,
) -> Row:
    rules: dict[str, Floats] = {
        "random": np.zeros(len(test)),
        "length": -np.array([len(r["prompt"]) for r in test], float),
        "knn": _knn(pair, rest, test, trunk),
        "oracle": weak - strong + 1e-9 * np.arange(len(test)),
    }
    if stage == "post":
        rules["agreement"] = np.array([v[1]["agreement"] for v in views], float)
    measured = {name: judge.metrics(p, weak, strong) for name, p in rules.items()}
    return {name: {k: m.get(k) for k in ("APGR", "L98", "AUC")} for name, m in measured.items()}


def _knn(pair: Row, rest: list[Row], test: list[Row], trunk: Trunk, k: int = 50) -> Floats:
    """Mean gain of the 50 nearest labelled prompts in the artifact's coordinates."""
    gains = np.array([r["scores"][pair["weak"]] - r["scores"][pair["strong"]] for r in rest])
    here = np.array([trunk.read(r["prompt"]).row[-DIMS:] for r in rest])
    there = np.array([trunk.read(r["prompt"]).row[-DIMS:] for r in test])
    k = min(k, len(rest) - 1)
    near = np.argpartition(-(there @ here.T), k, axis=1)[:, :k]
    return np.asarray(gains[near].mean(1), float)


def _promise(
    staged: Staged,
    stage: str,
    split: str,
    test: list[Row],
    views: list[Any],
    weak: Floats,
    strong: Floats,
    share: float,
    draws: int,
) -> Row:
    """As the judge draws labels: from the cell, with replacement; truth is the whole cell."""
    seen = [
        {"prompt": r["prompt"], "task": r.get("task"), "local": v[1] if stage == "post" else None}
        for r, v in zip(test, views, strict=True)
    ]
    out: Row = {}
    for n in (200, 1000):
        held, kept, quality = [], [], []
        for d in range(draws):
            drawn = np.random.default_rng(1000 * d + n).integers(0, len(test), n)
            labels = [
                {**seen[i], "weak": float(weak[i]), "strong": float(strong[i])} for i in drawn
            ]
            keep = np.array(staged.adapt(labels, FRAC, CONFIDENCE[split], stage).keep(seen), bool)
            quality.append(float(np.where(keep, weak, strong).mean() / strong.mean()))
            held.append(quality[-1] >= FRAC - 1e-12)
            kept.append(float(keep.mean()) * held[-1] / max(share, 1e-9))
        out[str(n)] = {
            "held": float(np.mean(held)),
            "kept": float(np.mean(kept)),
            "quality": float(np.mean(quality)),
        }
    return out


# The report --------------------------------------------------------------------------------------


_SUMMARY = (
    "split, stage",
    "cells",
    "this",
    "excess ECE",
    "random",
    "length",
    "kNN",
    "agreement",
    "oracle L98",
)
_PROMISES = (
    "promise of 98 %",
    "calls in a cell",
    "labels",
    "held",
    "worst cell",
    "kept / L98",
    "quality",
)
_PAIRS = (
    "pair",
    "split",
    "stage",
    "n",
    "APGR",
    "L98",
    "random L98",
    "length",
    "kNN",
    "oracle L98",
    "excess ECE",
)


def tables(report: Row) -> str:
    """Markdown: the summary, the promises, then every pair."""
    rows = report["cells"]
    groups = {
        key: [r for r in rows if (r["split"], r["stage"]) == key]
        for key in dict.fromkeys((r["split"], r["stage"]) for r in rows)
    }
    lines = _head(_SUMMARY)
    lines += [_line(*_summary(*key, some)) for key, some in groups.items()]
    lines += ["", *_head(_PROMISES)]
    for key, some in groups.items():
        lines += [
            _line(*_promises(*key, n, least, some)) for least in (400, 0) for n in ("200", "1000")
        ]
    lines += ["", *_head(_PAIRS)]
    lines += [_line(*_one(r)) for r in rows]
    return "\n".join(lines)


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _head(names: Sequence[str]) -> list[str]:
    return [_line(*names), f"|{'---|' * len(names)}"]


def _summary(split: str, stage: str, some: list[Row]) -> list[object]:
    this = f"{_mean(some, 'APGR')} / {_mean(some, 'L98')}"
    rivals = [_pair_of(some, name) for name in ("random", "length", "knn", "agreement")]
    oracle = _mean([r["baselines"]["oracle"] for r in some], "L98")
    return [f"{split}, {stage}", len(some), this, _mean(some, "excess_ECE"), *rivals, oracle]


def _promises(split: str, stage: str, n: str, least: int, some: list[Row]) -> list[object]:
    """The judge leaves out cells of fewer than 400 calls."""
    found = [r["promise"][n] for r in some if "promise" in r and r["n"] >= least]
    worst = min(p["held"] for p in found)
    means = (_mean(found, key) for key in ("kept", "quality"))
    cells = f"400 or more ({len(found)})" if least else f"all ({len(found)})"
    return [f"{split}, {stage}", cells, n, _mean(found, "held"), f"{worst:.2f}", *means]


def _one(row: Row) -> list[object]:
    rivals = row["baselines"]
    return [
        row["pair"],
        row["split"] if row["split"] == "valid" else f"domains {row['fold']}",
        row["stage"],
        row["n"],
        _with_interval(row, "APGR"),
        _with_interval(row, "L98"),
        f"{row['L98_random']:.2f}",
        _both(rivals["length"]),
        _both(rivals["knn"]),
        f"{row['L98_oracle']:.2f}",
        f"{row['excess_ECE']:.3f}",
    ]


def _pair_of(rows: list[Row], name: str) -> str:
    some = [r["baselines"][name] for r in rows if name in r["baselines"]]
    return f"{_mean(some, 'APGR')} / {_mean(some, 'L98')}" if some else "-"


def _mean(rows: Sequence[Row], key: str) -> str:
    """Cells whose models are so close that the ratio explodes are clipped to [-0.5, 1.5]."""
    values = [r[key] for r in rows if r.get(key) is not None]
    return f"{np.mean(np.clip(values, -0.5, 1.5)):.3f}"


def _with_interval(row: Row, key: str) -> str:
    if row.get(key) is None:
        return "-"
    low, high = row[f"{key}_ci"]
    return f"{row[key]:.2f} ({low:.2f}-{high:.2f})"


def _both(found: Row) -> str:
    apgr = "-" if found["APGR"] is None else f"{found['APGR']:.2f}"
    return f"{apgr} / {found['L98']:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--metrics", type=Path)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--sources", default=",".join((*SOURCES, "alpaca")))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the tables of the last results")
    options = parser.parse_args(arguments)
    if options.table:
        print(tables(json.loads(RESULTS.read_text())))
        return 0
    if options.data is None or options.metrics is None:
        parser.error("give --data and --metrics, or --table")
    sources = options.sources.split(",")
    report = run(options.data, _module(options.metrics), options.draws, sources)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(tables(report))
    return 0


def run(
    data: Path,
    judge: ModuleType,
    draws: int,
    sources: Sequence[str],
    tell: Callable[[str], None] = print,
) -> Row:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    rows = load(data, (*SOURCES, "alpaca"))
    pairs = [p for p in judge.PAIRS if p["file"] in sources]
    found = []
    for split, fold, pair, rest, test, trunk in cells(rows, pairs):
        if len(test) < 60:
            continue
        for row in measure(judge, split, pair, rest, test, trunk, draws):
            found.append({"pair": pair["name"], "split": split, "fold": fold, **row})
            tell(f"{pair['name']} {split} {fold} {row['stage']}: L98 {row['L98']:.3f}")
    return {"commit": commit.stdout.strip(), "draws": draws, "cells": found}


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("routing_metrics", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    raise SystemExit(main())
