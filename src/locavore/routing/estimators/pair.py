"""How a local and a cloud model compare on a request, learned from calls both have answered.

The score is the expected difference, local minus cloud. It orders requests: a request that both
fail, or both solve, costs nothing to keep local. `Curve` turns it into P(local is good enough).

Where a request resembles the labelled ones (`known`), the whole forest speaks; the less it does,
the more what holds everywhere (`Trunk.generic`, and the answer's own signals) decides.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import sqrt
from operator import mul
from zlib import crc32

import msgspec

from locavore.routing.estimators.boost import Forest, Growth, grow
from locavore.routing.estimators.curve import Curve, fit_curve
from locavore.routing.estimators.linear import LEAST, Words, fit_words, ridge
from locavore.routing.estimators.signals import Signals, numbers
from locavore.routing.estimators.trunk import Reading

FOLDS = 3
FEWEST = 60
"""Labelled calls of a pair before it gets models of its own."""
_STRANGE, _FAMILIAR = 0.55, 0.80
"""Share of known n-grams below which a request is strange and above which it is familiar:
between domains the share is .4-.8, within one .7-1.0 (benchmarks/routing)."""
_GENERIC = (0.3, 1.0)
_LENGTH = (0.05, 0.3)
_EASIER = (0.0, 0.25)
"""What holds everywhere, in deviations of the gain: for familiar and for strange requests. A longer
request is a little harder, everywhere: alone it does as well between domains as any model."""
_USUAL_LENGTH = 5.5
_FOREST_CALLS = 800
"""Labelled calls from which the forest counts as much as the words."""
_WHOLE = 0.4
"""Weight of the forest over request and answer together for a familiar request."""
_FOREST, _LINE, _GENERAL = 0.4, 0.3, 0.3
"""Weights of what is left: three readings of the answer alone, which err differently."""
_LINE_PENALTY = 10.0

FLAT = Forest(0.0, [], [], [])


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """One request that both models have answered, with their scores in [0, 1]."""

    prompt: str
    reading: Reading
    weak: float
    strong: float
    signals: Signals | None = None
    task: str | None = None

    @property
    def gain(self) -> float:
        """What keeping it local gains; negative: loses."""
        return self.weak - self.strong


class PreModel(msgspec.Struct, frozen=True):
    """Scores a request before any answer."""

    words: Words
    forest: Forest
    spread: float
    share: float = 0.5
    """Of the forest beside the words; a forest needs more calls."""

    def __call__(self, reading: Reading) -> float:
        words, known = self.words.look(reading.grams)
        strange = 1 - familiarity(known)
        start = self.forest.start
        specific = (
            start + (1 - self.share) * words + self.share * (self.forest(reading.row) - start)
        )
        everywhere = (
            _between(_GENERIC, strange) * reading.generic
            + _between(_EASIER, strange) * reading.easier
            # The first number of a row is log(1 + chars).
            - _between(_LENGTH, strange) * (reading.row[0] - _USUAL_LENGTH)
        )
        return specific + self.spread * everywhere


def _between(weights: tuple[float, float], strange: float) -> float:
    return weights[0] + (weights[1] - weights[0]) * strange


class PostModel(msgspec.Struct, frozen=True):
    """Scores a request after the local answer."""

    words: Words
    whole: Forest
    answer: Forest
    line: list[float]
    general: Forest
    mean: float
    spread: float

    def __call__(self, reading: Reading, seen: Sequence[float]) -> float:
        general = self.mean + self.spread * self.general(seen)
        line: float = sum(map(mul, self.line, _plain(seen)))
        score = _FOREST * self.answer(seen) + _LINE * line + _GENERAL * general
        share = _WHOLE * familiarity(self.words.known(reading.grams))
        if share:
            score += share * (self.whole([*reading.row, *seen]) - score)
        return score


def _plain(seen: Sequence[float]) -> tuple[float, ...]:
    """The signals a straight line can use: agreement, no answer, relative length."""
    return (1.0, seen[0], seen[1], seen[3])


class Scored(msgspec.Struct, frozen=True):
    """A labelled call with the score of a model that had not seen it."""

    score: float
    gain: float
    strong: float
    familiarity: float = 1.0
    """Of its request to the other labelled ones."""


class Stage(msgspec.Struct, frozen=True):
    """One of the two looks at a request: its model, calibration and the evidence for them."""

    model: PreModel | PostModel
    good: Curve
    """score -> P(local is good enough)"""
    evidence: list[Scored]


def familiarity(known: float) -> float:
    return min(max((known - _STRANGE) / (_FAMILIAR - _STRANGE), 0.0), 1.0)


def seen_numbers(call: Labelled) -> list[float]:
    if call.signals is None:
        raise ValueError("a call without a local answer has no signals")
    return numbers(call.signals, len(call.prompt))


def fit_pre(calls: Sequence[Labelled]) -> PreModel:
    gains = [c.gain for c in calls]
    _, spread = _mean_and_spread(gains)
    return PreModel(
        fit_words([c.reading.grams for c in calls], gains),
        grow([c.reading.row for c in calls], gains, Growth()),
        spread,
        0.5 * min(1.0, len(calls) / _FOREST_CALLS),
    )


def fit_post(calls: Sequence[Labelled], words: Words, general: Forest) -> PostModel:
    """`general` is what answers look like everywhere (`Trunk.answers`)."""
    gains = [c.gain for c in calls]
    seen = [seen_numbers(c) for c in calls]
    rows = [[*c.reading.row, *s] for c, s in zip(calls, seen, strict=True)]
    mean, spread = _mean_and_spread(gains)
    return PostModel(
        words,
        grow(rows, gains, Growth()),
        grow(seen, gains, Growth(trees=40, columns=1.0, min_leaf=100, shrink=50)),
        ridge([_plain(s) for s in seen], gains, _LINE_PENALTY),
        general,
        mean,
        spread,
    )


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sqrt(sum((v - mean) ** 2 for v in values) / len(values))


def fit_stages(
    calls: Sequence[Labelled], post: Sequence[Labelled] = (), *, general: Forest = FLAT
) -> dict[str, Stage]:
    """`pre` from `calls`, and `post` from calls with signals when there are any.

    Calibration and evidence come from folds: no call is scored by a model that has seen it.
    """
    if len(calls) < FEWEST:
        return {"pre": unlabelled(), "post": unlabelled_post(general)}
    whole = fit_pre(calls)
    evidence = []
    post_evidence = []
    own = _own_familiarity(calls)
    for fold in range(FOLDS):
        rest = [c for c in calls if _fold(c) != fold]
        model = fit_pre(rest)
        unseen = [c for c in calls if _fold(c) == fold]
        evidence += [_scored(model(c.reading), c, own) for c in unseen]
        if post:
            after = fit_post([c for c in post if _fold(c) != fold], model.words, general)
            unseen = [c for c in post if _fold(c) == fold]
            post_evidence += [_scored(after(c.reading, seen_numbers(c)), c, own) for c in unseen]
    stages = {"pre": _stage(whole, evidence)}
    if post:
        stages["post"] = _stage(fit_post(post, whole.words, general), post_evidence)
    return stages


def _scored(score: float, call: Labelled, own: Mapping[str, float]) -> Scored:
    return Scored(score, call.gain, call.strong, own[call.prompt])


def _own_familiarity(calls: Sequence[Labelled]) -> dict[str, float]:
    """By prompt: how familiar each call would be had it not been labelled.

    A fresh call of the same kind is as familiar to the fitted model; were the folds' models asked,
    which have seen less, fresh calls would look more familiar than they are.
    """
    seen = Counter(h for c in calls for h in c.reading.grams)
    return {
        c.prompt: familiarity(
            sum(seen[h] > LEAST for h in c.reading.grams) / max(len(c.reading.grams), 1)
        )
        for c in calls
    }


def unlabelled() -> Stage:
    """For a pair nobody has labelled calls for: what holds everywhere, without evidence."""
    model = PreModel(Words({}, {}, 1.0), FLAT, 0.35)
    return Stage(model, Curve([-0.5, 0.5], [0.72, 0.88]), [])


def unlabelled_post(general: Forest) -> Stage:
    """As `unlabelled`, once the local model has answered; `general` is `Trunk.answers`."""
    model = PostModel(Words({}, {}, 1.0), FLAT, FLAT, [0.0] * 4, general, 0.0, 1.0)
    return Stage(model, Curve([-0.5, 0.5], [0.55, 0.95]), [])


def _stage(model: PreModel | PostModel, evidence: list[Scored]) -> Stage:
    good = [float(e.gain >= 0) for e in evidence]
    return Stage(model, fit_curve([e.score for e in evidence], good), evidence)


def _fold(call: Labelled) -> int:
    return crc32(call.prompt.encode("utf-8", "replace")) % FOLDS
