"""What labels of a workload teach about its calls, beside what was known before them.

A kept call gains `weak - strong`. Losing and gaining are two logistic models: the log-odds that
the evidence gives, plus a line through a few numbers of the call, plus an effect of its task. The
line and the effects start at zero and are believed as far as workloads have been seen to differ
(`Transfer`), so 30 labels move little and 1,000 much, and their uncertainty is known.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from operator import mul
from random import Random

import msgspec

from locavore.routing.estimators.logit import Case, Fit, Prior, fit, probability
from locavore.routing.estimators.odds import UNKNOWN, Odds, fit_odds
from locavore.routing.estimators.pair import Scored

FOLDS = 5
_FEW_STEPS = 3
"""Newton steps for a fold, which starts where all labels ended."""
_TASK_LEAST = 3
"""Different prompts of a task before it has an effect of its own."""


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
    artifact: str = ""
    """The estimator that gave the score; another's scores mean something else."""


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """A call with both models' judged answers, in [0, 1]."""

    look: Look
    weak: float
    strong: float

    @property
    def gain(self) -> float:
        return self.weak - self.strong


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """How workloads differ from the evidence: standard deviations, measured by leaving whole
    domains out (benchmarks/routing). The first four are of log-odds."""

    level: float
    slope: float
    """Of what one `width` of the score changes."""
    other: float
    """Of what each covariate changes."""
    task: float
    rest: float
    """Of the mean gain of kept calls, beyond all that."""
    holds: float = 1.0
    """Share of the evidence's slope that is expected to be left."""

    def towards(self, other: "Transfer", share: float) -> "Transfer":
        """`share` of the way to `other`."""
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        names = self.__struct_fields__
        mixed = (a + share * (b - a) for a, b in zip(mine, theirs, strict=True))
        return Transfer(**dict(zip(names, mixed, strict=True)))


ALIKE = Transfer(level=0.2, slope=0.15, other=0.3, task=0.3, rest=0.008)
"""Calls of the kind that the evidence is about."""
STRANGE = Transfer(level=0.6, slope=0.8, other=0.6, task=0.8, rest=0.05, holds=0.2)
"""Other subjects or other kinds of requests; before an answer the score then says little."""
STRANGE_ANSWERED = msgspec.structs.replace(STRANGE, holds=0.7)
"""The same, once the local answer was seen: that carries over better."""
ELSEWHERE = Transfer(level=1.0, slope=0.8, other=0.6, task=0.8, rest=0.05, holds=0.7)
"""Another pair of models."""

_SAME, _OTHER = 0.08, 0.18
"""Mean familiarity of a workload relative to the evidence's own calls: up to `_SAME` away from 1
it is alike, from `_OTHER` strange. Fresh calls of known kinds are within .03, other subjects of
the same examination beyond .2 either way (benchmarks/routing)."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known before the first label of this workload."""

    odds: Odds
    familiarity: float | None = None
    """Mean familiarity of the evidence's own calls; None: no workload is like it."""
    alike: Transfer = ALIKE
    strange: Transfer = STRANGE

    def like(self, labels: Sequence[Label]) -> float:
        """1: labels of a workload like the evidence; 0: of another."""
        if self.familiarity is None or not labels:
            return 0.0
        here = sum(c.look.familiarity for c in labels) / len(labels)
        away = abs(here / max(self.familiarity, 0.05) - 1)
        return min(max((_OTHER - away) / (_OTHER - _SAME), 0.0), 1.0)


NOTHING = Evidence(odds=UNKNOWN, strange=msgspec.structs.replace(ELSEWHERE, level=2.0, holds=1.0))


def general_evidence(odds: Odds) -> Evidence:
    """For a pair without calls labelled elsewhere: what holds over other pairs of models."""
    return Evidence(odds=odds, strange=ELSEWHERE)


def gather(
    scored: Sequence[Scored], strange: Transfer = STRANGE, alike: Transfer = ALIKE
) -> Evidence | None:
    """Evidence from calls scored by a model that had not seen them; None below 100 calls."""
    if len(scored) < 100:
        return None
    return Evidence(
        odds=fit_odds([s.score for s in scored], [s.gain for s in scored]),
        familiarity=sum(s.familiarity for s in scored) / len(scored),
        alike=alike,
        strange=strange,
    )


class Line(msgspec.Struct, frozen=True):
    """What the labels added to the log-odds of the evidence."""

    weights: tuple[float, ...] = ()
    tasks: dict[str, float] = {}

    def __call__(self, row: Sequence[float], task: str | None) -> float:
        straight: float = sum(map(mul, self.weights, row))
        return straight + self.tasks.get(task or "", 0.0)


class Rescore(msgspec.Struct, frozen=True):
    """The expected gain of keeping a call, after the workload's labels."""

    losing: Line = Line()
    gaining: Line = Line()
    holds: float = 1.0
    noise: float = 0.0
    """Share of the labels' verdicts that may be wrong."""

    def __call__(self, look: Look, odds: Odds) -> float:
        row = _row(look, odds)
        losing, gaining = odds.logits(self.holds * row[1], self.noise)
        won = probability(gaining + self.gaining(row, look.task))
        return won - probability(losing + self.losing(row, look.task))


def _row(look: Look, odds: Odds) -> tuple[float, ...]:
    return (1.0, odds.place(look.score), *look.covariates)


class Expected(msgspec.Struct, frozen=True):
    """A label with what was expected of it by a rule that had not seen it (nor its duplicates)."""

    gain: float
    spread: float
    """Variance of the gain, as expected."""
    label: Label
    pull: tuple[tuple[float, ...], int, float, float]
    """Its row, its task's index, and how far losing and gaining move with their log-odds."""


class Learned(msgspec.Struct, frozen=True):
    """All that a workload's labels say."""

    rescore: Rescore
    ranked: list[Expected]
    """Most confident first."""
    like: float
    rest: float
    fits: tuple[Fit, Fit]
    """Losing and gaining."""

    def doubts(self, cuts: Sequence[int]) -> list[float]:
        """Variance of the mean gain of so many first calls, from the models' own uncertainty."""
        found = [0.0] * len(cuts)
        for which, model in enumerate(self.fits):
            line, effects, done = [0.0] * len(model.line), [0.0] * len(model.effects), 0
            for at, k in enumerate(cuts):
                for call in self.ranked[done:k]:
                    row, group, *moves = call.pull
                    line = [a + moves[which] * v for a, v in zip(line, row, strict=True)]
                    if group >= 0:
                        effects[group] += moves[which]
                done = k
                found[at] += model.variance(line, effects) / k**2
        return found


def witnesses(prompts: Counter[str]) -> float:
    """How many different prompts so many labels are worth (Kish's effective sample size)."""
    return prompts.total() ** 2 / max(sum(c * c for c in prompts.values()), 1)


def learn(labels: Sequence[Label], evidence: Evidence | None, noise: float = 0.0) -> Learned:
    """Fit to all labels, and rank each by a fit to the folds without its prompt.

    `noise`: share of wrong verdicts; gains are then those that such verdicts show.
    """
    known = evidence or NOTHING
    like = known.like(labels)
    transfer = known.strange.towards(known.alike, like)
    tasks = _tasks(labels)
    weight = witnesses(Counter(c.look.prompt for c in labels)) / len(labels)
    cases = []
    for call in labels:
        row = _row(call.look, known.odds)
        logits = known.odds.logits(transfer.holds * row[1], noise)
        cases.append(_cases(call, row, logits, tasks, weight))
    width = len(cases[0][0].row)
    sds = (transfer.level, transfer.slope, *(transfer.other,) * (width - 2))
    prior = Prior(sds, transfer.task, len(tasks))
    losing, gaining = (fit([c[k] for c in cases], prior) for k in (0, 1))
    ranked = _ranked(labels, cases, prior, (losing, gaining))
    rescore = Rescore(_line(losing, tasks), _line(gaining, tasks), transfer.holds, noise)
    return Learned(rescore, ranked, like, transfer.rest, (losing, gaining))


def _line(found: Fit, tasks: dict[str, int]) -> Line:
    return Line(tuple(found.line), {t: found.effects[k] for t, k in tasks.items()})


def _tasks(labels: Sequence[Label]) -> dict[str, int]:
    prompts: dict[str, set[str]] = defaultdict(set)
    for call in labels:
        if call.look.task is not None:
            prompts[call.look.task].add(call.look.prompt)
    usable = sorted(t for t, p in prompts.items() if len(p) >= _TASK_LEAST)
    return {t: k for k, t in enumerate(usable)} if len(usable) > 1 else {}


def _cases(
    call: Label,
    row: tuple[float, ...],
    logits: tuple[float, float],
    tasks: dict[str, int],
    weight: float,
) -> tuple[Case, Case]:
    group = tasks.get(call.look.task or "", -1)
    lost, won = max(-call.gain, 0.0), max(call.gain, 0.0)
    return (
        Case(row, logits[0], lost, group, weight),
        Case(row, logits[1], won, group, weight),
    )


def _ranked(
    labels: Sequence[Label],
    cases: Sequence[tuple[Case, Case]],
    prior: Prior,
    whole: tuple[Fit, Fit],
) -> list[Expected]:
    prompts = sorted({c.look.prompt for c in labels})
    Random(len(prompts)).shuffle(prompts)  # noqa: S311 - folds, not a secret
    fold = {p: k % FOLDS for k, p in enumerate(prompts)}
    found = []
    for k in range(FOLDS):
        rest = [c for label, c in zip(labels, cases, strict=True) if fold[label.look.prompt] != k]
        fits = [fit([c[w] for c in rest], prior, whole[w], _FEW_STEPS) for w in (0, 1)]
        for label, pair in zip(labels, cases, strict=True):
            if fold[label.look.prompt] == k:
                found.append(_expected(label, pair, fits, whole))
    found.sort(key=lambda e: -e.gain)
    return found


def _expected(
    label: Label, pair: tuple[Case, Case], fits: Sequence[Fit], whole: Sequence[Fit]
) -> Expected:
    lost, won = (probability(f.logit(c)) for f, c in zip(fits, pair, strict=True))
    moves = [probability(f.logit(c)) for f, c in zip(whole, pair, strict=True)]
    loses, gains = (p * (1 - p) for p in moves)
    pull = (pair[0].row, pair[0].group, loses, gains)
    return Expected(won - lost, won + lost - (won - lost) ** 2, label, pull)
