"""The outcome data: which files there are, and what a gateway would see of a local answer."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from locavore.routing.estimators.signals import Signals

SOURCES = ("mmlupro", "rgym", "zeroeval", "routellm", "dcrouter")
"""What may be shipped. AlpacaEval (non-commercial) is only ever evaluated on."""
Row = dict[str, Any]


def load(folder: Path, sources: Sequence[str] = SOURCES) -> list[Row]:
    """Outcome rows with their source's name as `file`."""
    rows = []
    for name in sources:
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows += [{**json.loads(line), "file": name} for line in lines]
    return rows


PEERS = {
    "mmlupro": ("mathstral-7B", "Phi-3-mini-4k-instruct", "Mistral-7B-Instruct-v0.2"),
    "zeroeval": ("Qwen2-7B-Instruct", "gemma-2-9b-it", "Phi-3.5-mini-instruct"),
}
"""Small local models whose agreement with the local answer is a signal."""


def local_view(row: Row, weak: str) -> tuple[float, Signals] | None:
    """Score of the served local answer and what is seen of it; None where nothing is recorded.

    rgym: the most common of three samples; elsewhere: the answer itself beside its peers'.
    """
    out_tok = int((row.get("out_tok") or {}).get(weak) or 0)
    if row["file"] == "rgym":
        sample = row["samples"][weak]
        answers = sample["ans"]
        best = max(sorted(set(answers)), key=answers.count)
        share = answers.count(best) / len(answers) if best != -1 else 0.0
        score: float = sample["scores"][answers.index(best)]
        return score, Signals(agreement=share, no_answer=best == -1, out_tok=out_tok)
    if row["file"] not in PEERS:
        return None
    given = row.get("ans") or {}
    mine = given.get(weak, -1)
    peers = [given[m] for m in PEERS[row["file"]] if given.get(m) is not None]
    share = sum(a == mine for a in peers) / len(peers) if peers and mine != -1 else 0.0
    return row["scores"][weak], Signals(agreement=share, no_answer=mine == -1, out_tok=out_tok)
