"""How good routing is, on prompts, domains and benchmarks it has not seen.

`python -m benchmarks routing --data FOLDER --metrics PATH/routing_metrics.py` writes
`benchmarks/routing/results/routing.json`; `--table` prints the tables of docs/explain/routing.md
from that file. FOLDER holds the outcome files; PATH the judge's tool (interface C).

`valid`: the fifth of the development questions that training never sees. `domains`: whole domains
(or benchmarks) left out of everything that is trained, in turn. `sources`: a pair without any
outcome, by an artifact trained without its whole source. Intervals are over bootstrap resamples of
the prompts. Single-core CPU time. `--jobs` runs parts side by side.
"""

import argparse
import importlib.util
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.routing.adapter import Staged, make_staged
from benchmarks.routing.outcomes import SOURCES, Row, load
from benchmarks.routing.tables import tables
from benchmarks.routing.train import train
from locavore.routing.estimators.pair import Labelled, fit_stages
from locavore.routing.estimators.trunk import DIMS, Trunk
from locavore.routing.estimators.trunk import load as load_trunk

RESULTS = Path(__file__).with_name("results") / "routing.json"
FOLDS = {"zeroeval": 2}
FRAC, CONFIDENCE = 0.98, {"valid": 0.95, "domains": 0.90, "sources": 0.90}
BOOTSTRAPS = 40
Floats = npt.NDArray[np.float64]


def domain(row: Row) -> str:
    if row["file"] == "zeroeval" or row["benchmark"] == "gsm8k":
        return str(row["benchmark"])
    return str(row["domain"])


class Part(msgspec.Struct, frozen=True):
    """Pairs measured with one artifact, which is trained on `rest`."""

    split: str
    fold: str
    source: str
    """Of its pairs; empty: of all."""
    rest: list[Row]
    test: list[Row]


def parts(rows: list[Row], sources: Sequence[str], splits: Sequence[str]) -> Iterator[Part]:
    """Rows of AlpacaEval are among the rest for their own pair; `train` leaves them out."""
    return (p for p in _every_part(rows, sources) if p.split in splits)


def _every_part(rows: list[Row], sources: Sequence[str]) -> Iterator[Part]:
    rest = [r for r in rows if r["split"] == "train"]
    yield Part("valid", "valid", "", rest, [r for r in rows if r["split"] == "valid"])
    for source in sources:
        names = sorted({domain(r) for r in rows if r["file"] == source})
        random.Random(3).shuffle(names)
        folds = FOLDS.get(source, 3)
        for k in range(folds):
            out = set(names[k::folds])
            test = [r for r in rows if r["file"] == source and domain(r) in out]
            groups = {r["group"] for r in test}
            rest = [r for r in rows if r["group"] not in groups and domain(r) not in out]
            yield Part("domains", f"{k}", source, rest, test)
        test = [r for r in rows if r["file"] == source]
        groups = {r["group"] for r in test}
        rest = [r for r in rows if r["file"] != source and r["group"] not in groups]
        yield Part("sources", "all", source, rest, test)


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
            row[f"{key}_ci"] = judge.bootstrap(scores, weak, strong, key, n=BOOTSTRAPS)
        row["cpu_ms"] = {
            "p50": float(np.percentile(cpu_ms, 50)),
            "p99": float(np.percentile(cpu_ms, 99)),
        }
        row["excess_ECE_of"] = _level(judge, scores, weak >= strong, _rate(staged, stage))
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


def _rate(staged: Staged, stage: str) -> float:
    evidence = staged.stages[stage].evidence
    return float(np.mean([e.gain >= 0 for e in evidence])) if evidence else 0.8


def _level(judge: ModuleType, p: Floats, good: npt.NDArray[np.bool_], rate: float) -> Row:
    """What calibration could be: the pair's rate for every call, and our estimates moved to the
    true rate of the calls, which nobody knows without labels."""
    logits = np.log(np.clip(p, 1e-3, 1 - 1e-3) / np.clip(1 - p, 1e-3, 1 - 1e-3))
    low, high = -10.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (
            (middle, high)
            if (1 / (1 + np.exp(-logits - middle))).mean() < good.mean()
            else (low, middle)
        )
    moved = 1 / (1 + np.exp(-logits - low))
    return {
        "rate": judge.excess_ece(np.full(len(p), rate), good),
        "moved": judge.excess_ece(moved, good),
    }


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
    if not rest:
        return np.zeros(len(test))
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


# Running it --------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--metrics", type=Path)
    parser.add_argument("--splits", default="valid,domains", help="of valid, domains, sources")
    parser.add_argument("--jobs", type=int, default=1, help="parts measured side by side")
    parser.add_argument("--draws", type=int, default=20, help="of labels, per cell")
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
    splits = options.splits.split(",")
    report = run(options.data, options.metrics, options.draws, sources, splits, options.jobs)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(tables(report))
    return 0


def run(
    data: Path,
    metrics: Path,
    draws: int,
    sources: Sequence[str],
    splits: Sequence[str],
    jobs: int,
) -> Row:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    many = sum(1 for _ in parts(load(data, (*SOURCES, "alpaca")), sources, splits))
    work = partial(_part, data, metrics, draws, sources, splits)
    with ProcessPoolExecutor(jobs) as pool:
        found = [row for rows in pool.map(work, range(many)) for row in rows]
    order = {"valid": 0, "domains": 1, "sources": 2}
    found.sort(key=lambda r: (order[r["split"]], r["stage"] != "pre"))
    return {"commit": commit.stdout.strip(), "draws": draws, "cpu_ms": cpu(), "cells": found}


def _part(
    data: Path,
    metrics: Path,
    draws: int,
    sources: Sequence[str],
    splits: Sequence[str],
    which: int,
) -> list[Row]:
    """Every cell of one part."""
    judge = _module(metrics)
    part = next(islice(parts(load(data, (*SOURCES, "alpaca")), sources, splits), which, None))
    trunk = Trunk(train(part.rest, "benchmark"))
    found = []
    for pair in judge.PAIRS:
        test = of_pair(part.test, pair)
        if pair["file"] not in ((part.source,) if part.source else sources) or len(test) < 60:
            continue
        for row in measure(judge, part.split, pair, of_pair(part.rest, pair), test, trunk, draws):
            found.append({"pair": pair["name"], "split": part.split, "fold": part.fold, **row})
            sys.stdout.write(f"{pair['name']} {part.split} {part.fold} {row['stage']}\n")
            sys.stdout.flush()
    return found


def cpu(times: int = 2000) -> Row:
    """CPU of one estimate of a 1.5 KB prompt, by a pair's own stage and the shipped artifact."""
    words = ("how", "many", "of", "these", "numbers", "are", "divisible", "by", "seven", "if", "x")
    prompts = [
        " ".join(words[(k * i) % len(words)] + str(i * k % 97) for i in range(220))[:1500]
        for k in range(1, 41)
    ]
    trunk = load_trunk()
    calls = [
        Labelled(prompt=p, reading=trunk.read(p), weak=float(k % 3 > 0), strong=1.0)
        for k, p in enumerate(prompts * 20)
    ]
    staged = Staged(trunk, fit_stages(calls))
    spent = []
    for k in range(times):
        begun = time.process_time()
        staged.pre(prompts[k % len(prompts)])
        spent.append(1e3 * (time.process_time() - begun))
    return {"p50": float(np.percentile(spent, 50)), "p99": float(np.percentile(spent, 99))}


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("routing_metrics", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    raise SystemExit(main())
