"""The tables of docs/explain/routing.md, from the figures of `python -m benchmarks routing`."""

from collections.abc import Sequence

import numpy as np

from benchmarks.routing.outcomes import Row

_CLOSE = 0.02
"""Between the models' means: closer, and a share of the gap is noise."""
_RIVALS = ("random", "length", "knn", "agreement")
_SUMMARY = (
    "split, stage",
    "cells",
    "this",
    "excess ECE",
    "of the pair's rate",
    "at the true rate",
    "random",
    "length",
    "kNN",
    "agreement",
    "best of all",
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
    spent = report["cpu_ms"]
    lines += ["", f"CPU of an estimate, prompt of 1.5 KB: p50 {spent['p50']:.2f} ms,"]
    lines[-1] += f" p99 {spent['p99']:.2f} ms."
    lines += ["", *_head(_PAIRS)]
    lines += [_line(*_one(r)) for r in rows]
    return "\n".join(lines)


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _head(names: Sequence[str]) -> list[str]:
    return [_line(*names), f"|{'---|' * len(names)}"]


def _summary(split: str, stage: str, some: list[Row]) -> list[object]:
    this = f"{_mean(some, 'APGR')} / {_mean(some, 'L98')}"
    rivals = [_both_of(_named(some, name)) for name in _RIVALS]
    best = [_best([_named([r], name) for name in _RIVALS], r) for r in some]
    errors = [_mean([r["excess_ECE_of"] for r in some], key) for key in ("rate", "moved")]
    oracle = _mean([r["baselines"]["oracle"] for r in some], "L98")
    excess = _mean(some, "excess_ECE")
    return [f"{split}, {stage}", len(some), this, excess, *errors, *rivals, _both_of(best), oracle]


def _named(rows: list[Row], name: str) -> list[Row]:
    """What a baseline reaches, with the means of the cell."""
    return [
        {**r["baselines"][name], "weak": r["weak"], "strong": r["strong"]}
        for r in rows
        if name in r["baselines"]
    ]


def _best(rivals: list[list[Row]], row: Row) -> Row:
    """The best rule of a cell, chosen knowing the answers: no choice between them can do better."""
    rules = [row, *(r for some in rivals for r in some)]
    best = {
        key: max((r[key] for r in rules if r.get(key) is not None), default=None)
        for key in ("APGR", "L98")
    }
    return {**row, **best}


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
        f"domains {row['fold']}" if row["split"] == "domains" else row["split"],
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


def _both_of(rows: list[Row]) -> str:
    return f"{_mean(rows, 'APGR')} / {_mean(rows, 'L98')}" if rows else "-"


def _mean(rows: Sequence[Row], key: str) -> str:
    """Clipped to [-0.5, 1.5]; without the APGR of cells whose models are too close (`_CLOSE`)."""
    values = [
        r[key]
        for r in rows
        if r.get(key) is not None and (key != "APGR" or abs(r["weak"] - r["strong"]) >= _CLOSE)
    ]
    return f"{np.mean(np.clip(values, -0.5, 1.5)):.3f}"


def _with_interval(row: Row, key: str) -> str:
    if row.get(key) is None:
        return "-"
    low, high = row[f"{key}_ci"]
    return f"{row[key]:.2f} ({low:.2f}-{high:.2f})"


def _both(found: Row) -> str:
    apgr = "-" if found["APGR"] is None else f"{found['APGR']:.2f}"
    return f"{apgr} / {found['L98']:.2f}"
