"""A promise: "at least `target` of the cloud model's quality", made only when it can be kept.

A call kept local gains `weak - strong`. With `kept` the rule that decides, the promise holds when
the mean of `kept * gain + (1 - target) * strong` over the workload is not negative.

Two bases, and a promise says which it stands on:

* `labels`: the workload's own labels only. Nested rules, from strict to lax, are each tested by
  betting and the first failure ends the search (fixed-sequence testing: Bauer 1991; "Learn then
  Test", Angelopoulos et al. 2022). A false promise has probability at most `1 - confidence`,
  whatever the workload, if the labels are drawn from it at random. Needs many labels.
* `evidence`: labels together with what was shipped or learned elsewhere. Two models say what a
  kept call loses and gains (`locavore.routing.rescoring`); what the kept labels gained beyond that
  corrects their mean, as far as workloads were seen to differ. Confidence is that of the
  posterior: right at the stated rate over workloads that differ from the shipped ones as those
  differ among themselves.

Both claim confidence over the draw of labels, not only expectation.
"""

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from random import Random
from statistics import NormalDist

import msgspec

from locavore.routing.bounds import above_zero
from locavore.routing.rescoring import (
    NOTHING,
    STRANGE,
    STRANGE_ANSWERED,
    Evidence,
    Expected,
    Label,
    Look,
    Rescore,
    Transfer,
    gather,
    general_evidence,
    learn,
    witnesses,
)

__all__ = [
    "STRANGE",
    "STRANGE_ANSWERED",
    "Evidence",
    "Label",
    "Look",
    "Promise",
    "Target",
    "Transfer",
    "gather",
    "general_evidence",
    "make_promise",
    "nothing",
]

FEWEST_LABELS = 30
_RULES, _FEW_RULES = 100, 20
"""Nested rules that are tried; each keeps an equal further share of the labels. Fewer where one
that fails ends the search."""
_BELOW = 0.01
"""How far below every label a call may score when all labels are kept."""
_MAKING = 3
"""One label in so many makes the rules that the others test, where labels alone decide."""
_PRIOR_CALLS = 20
"""A few calls without a loss do not prove that there is none: the variance of kept calls starts at
what was expected of them, worth this many calls."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What is promised: `quality` as a share of the cloud model's, with `confidence`."""

    quality: float = 0.98
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name in ("quality", "confidence"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"promise {name} {value!r}: give a share between 0 and 1")


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """The rule `keeps`, and what it rests on."""

    target: Target
    basis: str
    """`labels`, `evidence` or `none`."""
    labels: int
    threshold: float | None
    """Calls with a rescored score at or above it stay local; None: no call does."""
    share: float
    """Of the labelled calls that the rule keeps local."""
    quality: float
    """Expected, as a share of the cloud model's; 1 when nothing is kept."""
    lower: float
    """Lower bound of that at the stated confidence."""
    deviation: float = 1.0
    """Standard deviation of what is believed of the mean gain of kept calls."""
    missing: str = ""
    """What would be needed for more."""
    evidence: Evidence | None = None
    rescore: Rescore = Rescore()
    artifact: str = ""
    """The estimator whose scores the labels had."""

    def score(self, look: Look) -> float:
        """Expected gain of keeping the call."""
        return self.rescore(look, (self.evidence or NOTHING).odds)

    def keeps(self, look: Look) -> bool:
        """Never by another estimator's scores: they mean something else."""
        if self.threshold is None or look.artifact != self.artifact:
            return False
        return self.score(look) >= self.threshold


def make_promise(
    labels: Sequence[Label],
    target: Target,
    evidence: Evidence | None = None,
    *,
    noise: float = 0.0,
) -> Promise:
    """The most that can be kept local under the target; nothing when too little is known.

    `noise`: share of verdicts that may be wrong, either way alike. Such noise pulls both models'
    scores towards a half, which flatters the shortfall that is allowed by `noise` of it.
    """
    if not 0 <= noise < 0.5:
        raise ValueError(f"noise {noise!r}: give a share of wrong verdicts below one half")
    different = len({c.look.prompt for c in labels})
    if different < FEWEST_LABELS:
        return nothing(target, len(labels), f"{FEWEST_LABELS - different} more labelled calls")
    found = (
        _tested(labels, target, noise)
        if evidence is None
        else _informed(labels, target, evidence, noise)
    )
    return found or nothing(target, len(labels), "labels on which the local model does as well")


def nothing(target: Target, labels: int, missing: str) -> Promise:
    """The promise that is always kept."""
    return Promise(
        target=target,
        basis="none",
        labels=labels,
        threshold=None,
        share=0.0,
        quality=1.0,
        lower=1.0,
        missing=missing,
    )


# How much may be kept ----------------------------------------------------------------------------


def _cuts(n: int, rules: int) -> list[int]:
    return sorted({max(1, n * k // rules) for k in range(1, rules + 1)})


class _Kept:
    """Sums over the calls a rule keeps, fed from the most confident on."""

    def __init__(self) -> None:
        self.calls = 0
        self.predicted = self.rest = self.squares = self.spreads = 0.0
        self._prompts: Counter[str] = Counter()

    def add(self, calls: Sequence[Expected]) -> None:
        for call in calls:
            beyond = call.label.gain - call.gain
            self.calls += 1
            self.predicted += call.gain
            self.rest += beyond
            self.squares += beyond**2
            self.spreads += call.spread
            self._prompts[call.label.look.prompt] += 1

    def posterior(self, apart: float) -> tuple[float, float]:
        """(mean gain of a kept call, its variance); `apart`: prior variance of its correction."""
        k, worth = self.calls, witnesses(self._prompts)
        expected = self.spreads / k
        spread = (self.squares / k * worth + _PRIOR_CALLS * expected) / (worth + _PRIOR_CALLS)
        beyond = self.rest / k
        # Evidence that the labels contradict is believed less.
        apart = max(apart, beyond**2 - spread / worth)
        precision = worth / spread + 1 / apart
        return self.predicted / k + beyond * worth / spread / precision, 1 / precision


def _informed(
    labels: Sequence[Label], target: Target, evidence: Evidence, noise: float
) -> Promise | None:
    """By the posterior of the mean gain of kept calls."""
    learned = learn(labels, evidence, noise)
    ranked, n = learned.ranked, len(labels)
    cloud = max(sum(e.label.strong for e in ranked) / n, 1e-9)
    flattered = (1 - target.quality) * noise
    # The laxest of many rules that pass is partly a lucky one. Evidence holds luck down; where it
    # does not speak, two thirds of the error that is allowed go to the search.
    z = NormalDist().inv_cdf(1 - (1 - target.confidence) / (3 - 2 * learned.like))
    scores = [learned.rescore(c.look, evidence.odds) for c in labels]
    best, kept, cuts = None, _Kept(), _cuts(n, _RULES)
    for k, doubt in zip(cuts, learned.doubts(cuts), strict=True):
        kept.add(ranked[kept.calls : k])
        gain, variance = kept.posterior(learned.rest**2 + doubt)
        mean, deviation = k / n * gain - flattered, sqrt(variance)
        lower = 1 + (mean - z * k / n * deviation) / cloud
        if lower >= target.quality:
            best = (k, 1 + mean / cloud, lower, deviation)
    threshold = _threshold(scores, best[0]) if best else None
    if best is None or threshold is None:
        return None
    return Promise(
        target=target,
        basis="evidence",
        labels=n,
        threshold=threshold,
        share=best[0] / n,
        quality=best[1],
        lower=best[2],
        deviation=best[3],
        evidence=evidence,
        rescore=learned.rescore,
        artifact=labels[0].look.artifact,
    )


def _threshold(scores: Sequence[float], kept: int) -> float | None:
    """Between the `kept` highest of these and the next; higher where those are equal."""
    ordered = sorted(scores, reverse=True)
    ordered.append(ordered[-1] - _BELOW)
    kept = min(kept, ordered.index(ordered[kept]))
    return (ordered[kept - 1] + ordered[kept]) / 2 if kept else None


def _tested(labels: Sequence[Label], target: Target, noise: float) -> Promise | None:
    """By betting: one part of the labels makes the rules, the rest tests them.

    The tested labels have moved nothing that is tested, so the stated rate holds exactly.
    """
    order = list(labels)
    Random(len(order)).shuffle(order)  # noqa: S311 - a split, not a secret
    made = len(order) // _MAKING
    rescore = learn(order[:made], None).rescore
    ordered = sorted((rescore(c.look, NOTHING.odds) for c in order[:made]), reverse=True)
    rules = sorted({ordered[k - 1] for k in _cuts(made, _FEW_RULES)}, reverse=True)
    tested = [(rescore(c.look, NOTHING.odds), c) for c in order[made:]]
    allowed, best = 1 - target.quality, None
    for rule in rules:
        outcomes = (
            (c.gain if score >= rule else 0.0) + allowed * (c.strong - noise) for score, c in tested
        )
        if not above_zero(outcomes, 1 - target.confidence):
            break
        best = rule
    if best is None:
        return None
    kept = [c for score, c in tested if score >= best]
    cloud = max(sum(c.strong for _, c in tested), 1e-9)
    gains = sum(c.gain for c in kept)
    spread = sum(c.gain**2 for c in kept) + 1
    return Promise(
        target=target,
        basis="labels",
        labels=len(labels),
        threshold=best,
        share=len(kept) / len(tested),
        quality=1 + gains / cloud,
        lower=target.quality,
        deviation=sqrt(spread) / max(len(kept), 1),
        rescore=rescore,
        artifact=labels[0].look.artifact,
    )
