"""Train the shipped routing artifact: `python -m benchmarks.routing.train DATA_FOLDER`.

DATA_FOLDER holds the outcome files (`mmlupro.jsonl.gz`, ...). AlpacaEval is refused: its licence
forbids shipping what is made of it. Needs numpy (a development dependency).
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.routing.outcomes import PEERS, SOURCES, Row, load, local_view
from locavore.routing.estimators import features
from locavore.routing.estimators.boost import Forest, Growth, grow
from locavore.routing.estimators.looks import score_of
from locavore.routing.estimators.odds import UNKNOWN, Odds, fit_odds
from locavore.routing.estimators.pair import unlabelled, unlabelled_post
from locavore.routing.estimators.signals import numbers
from locavore.routing.estimators.trunk import DIMS, SHIPPED, Contents, Trunk, dump

LEAST = 6
"""An n-gram is kept when this many prompts have it."""
PAIRS_PER_SOURCE = 5
ROWS_PER_PAIR = 1000
Floats = npt.NDArray[np.float32]


def train(rows: Iterable[Row], note: str) -> Contents:
    """The artifact for outcome rows; rows of AlpacaEval are left out."""
    rows = [r for r in rows if r["file"] in SOURCES]
    prompts = sorted({r["prompt"] for r in rows})
    index = {p: k for k, p in enumerate(prompts)}
    grams = [features.ngrams(features.read(p)) for p in prompts]
    seen = Counter(h for g in grams for h in g)
    kept = sorted(h for h, c in seen.items() if c >= LEAST)
    idf = np.log((1 + len(prompts)) / np.array([seen[h] for h in kept], np.float64))
    table = _topics(grams, kept, idf.astype(np.float32))
    scale = 127 / np.abs(table).max(0)
    rounded = np.clip(np.rint(table * scale), -127, 127)
    dense = [
        features.dense(features.read(p), len(p), g) for p, g in zip(prompts, grams, strict=True)
    ]
    contents = Contents(
        hashes=np.array(kept, "<u4").tobytes(),
        rows=(rounded + 128).astype(np.uint8).tobytes(),
        scale=[float(s) for s in scale],
        generic=_generic(rows, index, dense),
        easier=Forest(0.0, [], [], []),
        answers=_answers(rows),
        gain_pre=UNKNOWN,
        gain_post=UNKNOWN,
        trained_on=note,
    )
    contents = msgspec.structs.replace(contents, easier=_easier(rows, Trunk(contents)))
    before, after = _general_gain(rows, Trunk(contents))
    return msgspec.structs.replace(contents, gain_pre=before, gain_post=after)


def _topics(grams: list[set[int]], kept: list[int], idf: Floats) -> Floats:
    """(n-grams, DIMS): loadings of the leading directions of the weighted, normalised counts.

    Randomised subspace iteration (Halko, Martinsson, Tropp 2011).
    """
    column = {h: j for j, h in enumerate(kept)}
    rows = [np.array(sorted(column[h] for h in g if h in column), np.int64) for g in grams]
    weights = [idf[r] / max(float(np.sqrt((idf[r] ** 2).sum())), 1e-9) for r in rows]
    random = np.random.default_rng(0)
    q = random.normal(size=(len(kept), DIMS + 16)).astype(np.float32)
    for _ in range(4):
        y = np.stack(
            [
                w @ q[r] if len(r) else np.zeros(q.shape[1])
                for r, w in zip(rows, weights, strict=True)
            ]
        )
        y, _ = np.linalg.qr(y.astype(np.float32))
        z = np.zeros((len(kept), y.shape[1]), np.float32)
        for k, (r, w) in enumerate(zip(rows, weights, strict=True)):
            z[r] += w[:, None] * y[k]
        q, _ = np.linalg.qr(z)
    u, s, _ = np.linalg.svd(z, full_matrices=False)
    del s
    loadings: Floats = (u[:, :DIMS] * idf[:, None]).astype(np.float32)
    return loadings


def _generic(rows: list[Row], index: dict[str, int], dense: list[list[float]]) -> Forest:
    """What holds across pairs and sources: fitted to many pairs at once, each of equal weight."""
    x: list[list[float]] = []
    y: list[float] = []
    random = np.random.default_rng(0)
    for source in SOURCES:
        for weak, strong in _pairs([r for r in rows if r["file"] == source]):
            both = [
                r for r in rows if r["file"] == source and _known(r, weak) and _known(r, strong)
            ]
            if len(both) < 100:
                continue
            gap = np.array([r["scores"][weak] - r["scores"][strong] for r in both])
            gap = (gap - gap.mean()) / (gap.std() + 0.1)
            for k in random.permutation(len(both))[:ROWS_PER_PAIR]:
                x.append(dense[index[both[k]["prompt"]]])
                y.append(float(gap[k]))
    how = Growth(trees=80, rate=0.05, columns=0.4, min_leaf=200)
    return grow(x, y, how)


def _easier(rows: list[Row], trunk: Trunk) -> Forest:
    """Logit of the share of models that solve a prompt, less its source's mean."""
    x: list[list[float]] = []
    y: list[float] = []
    random = np.random.default_rng(1)
    for source in SOURCES:
        some = [r for r in rows if r["file"] == source]
        solved = [float(np.mean([v for v in r["scores"].values() if v is not None])) for r in some]
        p = np.clip(np.array(solved), 0.05, 0.95)
        logits = np.log(p / (1 - p))
        logits -= logits.mean() if len(logits) else 0.0
        for k in random.permutation(len(some))[:3000]:
            x.append(trunk.read(some[k]["prompt"]).row)
            y.append(float(logits[k]))
    return grow(x, y, Growth(trees=80, rate=0.08, min_leaf=50))


def _answers(rows: list[Row]) -> Forest:
    """What an answer's look says of it, over pairs and sources alike."""
    x: list[list[float]] = []
    y: list[float] = []
    random = np.random.default_rng(2)
    for source in ("mmlupro", "zeroeval", "rgym"):
        for weak, strong in _pairs([r for r in rows if r["file"] == source]):
            if weak in PEERS.get(source, ()):
                continue
            both = [
                r for r in rows if r["file"] == source and _known(r, weak) and _known(r, strong)
            ]
            if len(both) < 100:
                continue
            seen = [(local_view(r, weak), r) for r in both]
            views = [(v[0], v[1], r) for v, r in seen if v is not None]
            gap = np.array([score - r["scores"][strong] for score, _, r in views])
            gap = (gap - gap.mean()) / (gap.std() + 0.1)
            for k in random.permutation(len(views))[:ROWS_PER_PAIR]:
                x.append(numbers(views[k][1], len(views[k][2]["prompt"])))
                y.append(float(gap[k]))
    return grow(x, y, Growth(trees=60, rate=0.07, columns=0.6, min_leaf=150))


def _general_gain(rows: list[Row], trunk: Trunk) -> tuple[Odds, Odds]:
    """Gain by the score of the stages that no labels of the pair have gone into."""
    before, after = unlabelled(), unlabelled_post(trunk.answers)
    found: dict[str, list[tuple[float, float]]] = {"pre": [], "post": []}
    random = np.random.default_rng(3)
    for source in SOURCES:
        some = [r for r in rows if r["file"] == source]
        for weak, strong in _pairs(some):
            both = [r for r in some if _known(r, weak) and _known(r, strong)]
            for k in random.permutation(len(both))[:300]:
                row = both[k]
                prompt, cloud = row["prompt"], row["scores"][strong]
                reading = trunk.read(prompt)
                found["pre"].append(
                    (score_of(before, reading, prompt, None), row["scores"][weak] - cloud)
                )
                view = local_view(row, weak)
                if view is not None:
                    found["post"].append(
                        (score_of(after, reading, prompt, view[1]), view[0] - cloud)
                    )
    before_answer, after_answer = (
        fit_odds([s for s, _ in pairs], [g for _, g in pairs], cells=8)
        for pairs in (found["pre"], found["post"])
    )
    return before_answer, after_answer


def _known(row: Row, model: str) -> bool:
    return row["scores"].get(model) is not None


def _pairs(rows: list[Row]) -> list[tuple[str, str]]:
    """Pairs of a weaker and a clearly stronger model, spread over the range of ability."""
    models = sorted({m for r in rows for m in r["scores"]})
    mean = {m: float(np.mean([r["scores"][m] for r in rows if _known(r, m)])) for m in models}
    order = sorted(models, key=mean.__getitem__)
    found: list[tuple[str, str]] = []
    for k in range(PAIRS_PER_SOURCE if order else 0):
        weak = order[(2 * k + 1) * len(order) // (4 * PAIRS_PER_SOURCE)]
        strong = order[len(order) - 1 - k * len(order) // (4 * PAIRS_PER_SOURCE)]
        if weak != strong and mean[strong] - mean[weak] >= 0.04:
            found.append((weak, strong))
    return list(dict.fromkeys(found))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    options = parser.parse_args(arguments)
    rows = load(options.data)
    data = dump(train(rows, f"{len(rows)} outcome rows of {', '.join(SOURCES)}"))
    options.out.write_bytes(data)
    sys.stdout.write(f"{options.out}: {len(data)} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
