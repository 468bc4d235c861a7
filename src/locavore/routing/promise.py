"""A promise: "at least `target` of the cloud model's quality", made only when it can be kept.

A call kept local gains `weak - strong`. With `kept` the rule that decides, the promise holds when
the mean of `kept * gain + (1 - target) * strong` over the workload is not negative.

Two bases, and a promise says which it stands on:

* `labels`: the workload's own labels only. Nested rules, from strict to lax, are each tested by
  betting and the first failure ends the search (fixed-sequence testing: Bauer 1991; "Learn then
  Test", Angelopoulos et al. 2022). A false promise has probability at most `1 - confidence`,
  whatever the workload, if the labels are drawn from it at random. Needs many labels.
* `evidence`: labels together with what was shipped or learned elsewhere. Shipped calibration says
  what a kept call gains; how far that moves between workloads (`Transfer`) was measured by leaving
  whole domains out. Confidence is then that of the posterior: right at the stated rate over
  workloads that differ from the shipped ones as those differ among themselves.

Both claim confidence over the draw of labels, not only expectation.
"""

from collections import defaultdict
from collections.abc import Sequence
from math import sqrt
from random import Random
from statistics import NormalDist

import msgspec

from locavore.routing.bounds import above_zero
from locavore.routing.estimators.curve import Curve, fit_curve
from locavore.routing.estimators.linear import ridge
from locavore.routing.estimators.pair import Scored

FOLDS = 5
FEWEST_LABELS = 30
_STEPS = 40
"""Nested rules that are tried; each keeps an equal further share of the labels."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What is promised: `quality` as a share of the cloud model's, with `confidence`."""

    quality: float = 0.98
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name in ("quality", "confidence"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"promise {name} {value!r}: give a share between 0 and 1")


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a call when it must be decided."""

    prompt: str
    """Identity only: the same prompt labelled twice is one witness, not two."""
    score: float
    task: str | None = None
    covariates: tuple[float, ...] = ()
    """Further numbers of about unit size that labels may learn to use."""
    familiarity: float = 1.0
    """0: unlike anything in the evidence; 1: like it."""


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """A call with both models' judged answers, in [0, 1]."""

    look: Look
    weak: float
    strong: float

    @property
    def gain(self) -> float:
        return self.weak - self.strong


_UNLIKE, _LIKE = 0.80, 0.95
"""Mean familiarity, relative to the evidence's own, of a workload of unlike and of like prompts:
other subjects of one examination lie at .6-.8 and lose as much as prompts of another kind."""


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """How far the mean gain of kept calls lies from what the evidence says, between workloads."""

    familiar: float = 0.008
    """Standard deviation where all prompts are like the evidence."""
    strange: float = 0.1
    """And where none is (both: benchmarks/routing, whole domains left out)."""

    def at(self, familiarity: float) -> float:
        return self.strange + (self.familiar - self.strange) * like(familiarity)


def like(familiarity: float) -> float:
    """0: a workload of unlike prompts; 1: of like ones."""
    return min(max((familiarity - _UNLIKE) / (_LIKE - _UNLIKE), 0.0), 1.0)


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known before the first label of this workload: score -> expected gain."""

    gain: Curve
    spread: float
    """Variance of a call's gain around that."""
    familiarity: float = 1.0
    """Mean familiarity of the evidence's own calls to models that had not seen them."""
    transfer: Transfer = Transfer()

    def expected(self, score: float) -> float:
        return 2 * self.gain(score) - 1


_ELSEWHERE = Transfer(familiar=0.16, strange=0.16)
"""Between pairs of models the mean gain differs by this much (standard deviation over the pairs
of the outcome data: 0.16)."""


def general_evidence(gain: Curve) -> Evidence:
    """For a pair without calls labelled elsewhere: what holds over other pairs of models."""
    return Evidence(gain=gain, spread=0.2, transfer=_ELSEWHERE)


def gather(scored: Sequence[Scored], transfer: Transfer | None = None) -> Evidence | None:
    """Evidence from calls scored by a model that had not seen them; None below 100 calls."""
    if len(scored) < 100:
        return None
    curve = fit_curve([s.score for s in scored], [(s.gain + 1) / 2 for s in scored])
    rest = [(s.gain - 2 * curve(s.score) + 1) ** 2 for s in scored]
    return Evidence(
        gain=curve,
        spread=sum(rest) / len(rest),
        familiarity=sum(s.familiarity for s in scored) / len(scored),
        transfer=transfer or Transfer(),
    )


class Rescore(msgspec.Struct, frozen=True):
    """The score after the workload's labels: a line through the covariates plus task effects."""

    line: tuple[float, ...]
    tasks: dict[str, float]

    def __call__(self, look: Look, expected: float) -> float:
        values = (1.0, expected, *look.covariates)
        total = expected + sum(map(_times, self.line, values))
        return total + self.tasks.get(look.task or "", 0.0)


def _times(a: float, b: float) -> float:
    return a * b


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
    missing: str = ""
    """What would be needed for more."""
    evidence: Evidence | None = None
    rescore: Rescore = Rescore((), {})

    def score(self, look: Look) -> float:
        expected = self.evidence.expected(look.score) if self.evidence else look.score
        return self.rescore(look, expected)

    def keeps(self, look: Look) -> bool:
        return self.threshold is not None and self.score(look) >= self.threshold


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
    rescore = learn(labels, evidence)
    scores, ranked = _ranked(labels, evidence)
    basis = "evidence" if evidence is not None else "labels"
    if evidence is not None:
        kept, mean, lower = _informed(ranked, target, evidence, noise)
    else:
        kept, mean, lower = _tested(ranked, target, noise)
    if not kept:
        return nothing(target, len(labels), "labels on which the local model does as well")
    return Promise(
        target=target,
        basis=basis,
        labels=len(labels),
        threshold=scores[kept - 1],
        share=kept / len(labels),
        quality=mean,
        lower=lower,
        evidence=evidence,
        rescore=rescore,
    )


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


# Learning from the labels ------------------------------------------------------------------------

_LINE_PRIOR = 25.0
_TASK_LEAST = 3
"""Different prompts of a task before it has an effect of its own."""


def _expected(call: Label, evidence: Evidence | None) -> float:
    return evidence.expected(call.look.score) if evidence else call.look.score


def learn(labels: Sequence[Label], evidence: Evidence | None) -> Rescore:
    """Ridge on what the first score left over, then shrunken means by task."""
    rows = [(1.0, _expected(c, evidence), *c.look.covariates) for c in labels]
    rest = [c.gain - row[1] for c, row in zip(labels, rows, strict=True)]
    line = ridge(rows, rest, _LINE_PRIOR)
    left = [r - sum(map(_times, line, row)) for r, row in zip(rest, rows, strict=True)]
    return Rescore(tuple(line), _task_effects(labels, left))


def _task_effects(labels: Sequence[Label], left: Sequence[float]) -> dict[str, float]:
    groups: dict[str, list[float]] = defaultdict(list)
    prompts: dict[str, set[str]] = defaultdict(set)
    for call, value in zip(labels, left, strict=True):
        if call.look.task is not None:
            groups[call.look.task].append(value)
            prompts[call.look.task].add(call.look.prompt)
    usable = {t: g for t, g in groups.items() if len(prompts[t]) >= _TASK_LEAST}
    if len(usable) < 2:
        return {}
    n = sum(map(len, usable.values()))
    inside = sum(sum((v - sum(g) / len(g)) ** 2 for v in g) for g in usable.values())
    within = inside / max(n - len(usable), 1) + 1e-6
    between = sum(sum(g) ** 2 / len(g) for g in usable.values()) - len(usable) * within
    between = max(between / n, 1e-4)
    return {t: sum(g) / (len(g) + within / between) for t, g in usable.items()}


def _ranked(labels: Sequence[Label], evidence: Evidence | None) -> tuple[list[float], list[Label]]:
    """Most confident first, each scored by a rule that had not seen it (nor its duplicates)."""
    prompts = sorted({c.look.prompt for c in labels})
    Random(len(prompts)).shuffle(prompts)  # noqa: S311 - folds, not a secret
    fold = {p: k % FOLDS for k, p in enumerate(prompts)}
    scored = []
    for k in range(FOLDS):
        inside = [c for c in labels if fold[c.look.prompt] == k]
        rule = learn([c for c in labels if fold[c.look.prompt] != k], evidence)
        scored += [(rule(c.look, _expected(c, evidence)), c) for c in inside]
    scored.sort(key=lambda pair: -pair[0])
    return [s for s, _ in scored], [c for _, c in scored]


# How much may be kept ----------------------------------------------------------------------------


def _cuts(n: int) -> list[int]:
    return sorted({max(1, n * k // _STEPS) for k in range(1, _STEPS + 1)})


def _informed(
    ranked: Sequence[Label], target: Target, evidence: Evidence, noise: float
) -> tuple[int, float, float]:
    """(calls kept, expected quality, its lower bound) by the posterior of the mean gain."""
    n = len(ranked)
    cloud = max(sum(c.strong for c in ranked) / n, 1e-9)
    flattered = (1 - target.quality) * noise
    near = sum(c.look.familiarity for c in ranked) / n / max(evidence.familiarity, 0.05)
    moved = evidence.transfer.at(near) ** 2
    # The laxest of many rules that pass is partly a lucky one. Evidence holds luck down; where it
    # does not speak, half of the error that is allowed goes to the search.
    allowed_error = (1 - target.confidence) / (2 - like(near))
    z = NormalDist().inv_cdf(1 - allowed_error)
    best = (0, 1.0, 1.0)
    done = 0
    predicted = rest = squares = 0.0
    for k in _cuts(n):
        for call in ranked[done:k]:
            expected = evidence.expected(call.look.score)
            predicted += expected
            rest += call.gain - expected
            squares += (call.gain - expected) ** 2
        done = k
        # A few calls without a loss do not prove that there is none: 20 calls of prior variance.
        spread = (squares + 20 * evidence.spread) / (k + 20)
        # Evidence that the labels contradict is believed less.
        apart = max(moved, (rest / k) ** 2 - spread / k)
        precision = k / spread + 1 / apart
        shift = rest / spread / precision
        mean = (predicted + k * shift) / n - flattered
        deviation = k / n * sqrt(1 / precision)
        quality, lower = 1 + mean / cloud, 1 + (mean - z * deviation) / cloud
        if lower >= target.quality:
            best = (k, quality, lower)
    return best


def _tested(ranked: Sequence[Label], target: Target, noise: float) -> tuple[int, float, float]:
    """(calls kept, observed quality, target) by betting on the labels alone."""
    n = len(ranked)
    alpha = 1 - target.confidence
    order = list(range(n))
    Random(n).shuffle(order)  # noqa: S311 - order of betting, not a secret
    cloud = sum(c.strong for c in ranked) / n
    allowed = 1 - target.quality
    best = (0, 1.0, 1.0)
    for k in _cuts(n):
        outcomes = (
            (ranked[i].gain if i < k else 0.0) + allowed * (ranked[i].strong - noise) for i in order
        )
        if not above_zero(outcomes, alpha):
            break
        best = (k, 1 + sum(c.gain for c in ranked[:k]) / n / max(cloud, 1e-9), target.quality)
    return best
