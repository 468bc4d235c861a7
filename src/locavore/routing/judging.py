"""What a promise says of one call, between the two halves of a decision.

A call is judged by the hardest of the conversation's asks: "commit it" after a hard talk is no easy
request (thread 52). Where an answer can be looked at before it is served, only the promise that
was made for answers looked at speaks: two promises of 98 % over one workload do not add up to one.

The estimator is not trusted: it may be absent, broken or slow. Then nothing that rests on a promise
stays local, which is the declared default (C112).
"""

from collections.abc import Callable, Mapping, Sequence
from time import thread_time

import msgspec

from locavore.core.backend import Backend
from locavore.core.decision import Promised
from locavore.core.errors import ConfigError
from locavore.core.estimate import Estimate
from locavore.core.request import Request
from locavore.routing.asks import Asks
from locavore.routing.estimators.pair import FLAT
from locavore.routing.estimators.promised import Entry, Promises, Verdict, quality_of
from locavore.routing.estimators.signals import Signals
from locavore.routing.estimators.trunk import Reading, Trunk
from locavore.routing.facts import task_of
from locavore.routing.promise import Look, Promise
from locavore.routing.reasons import code_of
from locavore.routing.staying import share_of
from locavore.routing.survey import BELOW_FLOOR, SUFFICES, Option, Survey

KEPT, NOT_KEPT, WITHDRAWN = "promise_kept", "promise_not_kept", "promise_withdrawn"
UNJUDGED = "promise_unjudged"
"""Reason codes."""
_OF_PRIORS = frozenset({"quality_unknown", "below_floor"})
DEADLINE_S = 0.010
"""CPU that judging one call may take: reading is bounded, so more means that something is wrong.
It cannot be interrupted, so what comes late is used; it is not asked for again and again."""
PATIENCE = 3
"""Readings in a row that may take longer: one alone may be a pause of the garbage collector."""
PAUSE = 100
"""Calls that get the default after that."""
_REMEMBERED = 256
"""Asks whose looks are kept: a conversation repeats them with every turn."""
_Z = 1.96


class Absent(Trunk):
    """Stands where the shipped artifact is missing or broken: every reading fails."""

    def __init__(self, reason: str) -> None:
        self.answers = FLAT
        self._reason = reason

    def read(self, text: str) -> Reading:  # noqa: ARG002 - as `Trunk.read`
        raise ConfigError([self._reason])


class Judge:
    """Promises over one snapshot, with what was read of the asks so far."""

    def __init__(
        self,
        promises: Promises,
        baseline: Backend,
        *,
        deadline_s: float = DEADLINE_S,
        clock: Callable[[], float] = thread_time,
    ) -> None:
        self.promises = promises
        self._cloud = baseline.id
        self._deadline_s = deadline_s
        self._clock = clock
        self._resting = 0
        self._slow = 0
        self._looks: dict[tuple[str, str], Look] = {}

    def looks_at_answers(self, local: str) -> bool:
        """Whether a promise covers answers of this model that were looked at, and keeps more."""
        entry = self.promises.entry(local, self._cloud)
        return entry is not None and entry.post is not None and entry.looks

    def applied(
        self, survey: Survey, request: Request, asks: Asks, task: str, *, unjudged: str = ""
    ) -> tuple[Survey, str]:
        """(the options as the promises judge them, why they could not; empty: they could).

        `unjudged`: a recorded reason, for a replay that decides the same.
        """
        pairs = {o.backend.id for o in survey.options}
        entries = {i: e for i in pairs if (e := self.promises.entry(i, self._cloud)) is not None}
        broken = {i: said for i in pairs if (said := self.promises.broken(i, self._cloud))}
        if not entries and not broken:
            return survey, ""
        looks: Sequence[Look] = ()
        if entries and not unjudged:
            looks, unjudged = self._read(request, asks, task)
        options = tuple(_judged(o, entries, broken, looks, self._cloud) for o in survey.options)
        return msgspec.structs.replace(survey, options=options), unjudged if entries else ""

    def after(
        self, request: Request, asks: Asks, task: str, local: str, signals: Signals
    ) -> Verdict | None:
        """What the promise says of an answer of `local`, by the hardest ask; None: nothing holds.

        Raises whatever the estimator raises.
        """
        verdicts = [
            self.promises.verdict(words, local, self._cloud, its_task, signals)
            for words, its_task in _asked(request, asks, task)
        ]
        return min((v for v in verdicts if v is not None), key=_score, default=None)

    def _read(self, request: Request, asks: Asks, task: str) -> tuple[Sequence[Look], str]:
        if self._resting:
            self._resting -= 1
            return (), "the estimator was too slow"
        begun_s = self._clock()
        try:
            looks = [self._look(*asked) for asked in _asked(request, asks, task)]
        except Exception as error:  # noqa: BLE001 - a routing model must never fail a call (C112)
            return (), f"the estimator failed: {_why(error)}"[:200]
        self._slow = self._slow + 1 if self._clock() - begun_s > self._deadline_s else 0
        if self._slow >= PATIENCE:
            self._resting, self._slow = PAUSE, PATIENCE - 1
        return looks, ""

    def _look(self, words: str, task: str) -> Look:
        look = self._looks.get((words, task))
        if look is None:
            look = self.promises.look(words, task, None)
            if len(self._looks) >= _REMEMBERED:
                self._looks.clear()
            self._looks[words, task] = look
        return look


def _why(error: Exception) -> str:
    """Goes into the record: what does not come from a file of ours might quote the prompt."""
    return str(error) if isinstance(error, ConfigError) else type(error).__name__


def _score(verdict: Verdict) -> float:
    return verdict.score


def _asked(request: Request, asks: Asks, task: str) -> list[tuple[str, str]]:
    """Each ask with its task; the last one's may come from those before it."""
    return [*((words, task_of(request, Asks(words))) for words in asks.earlier), (asks.last, task)]


def _judged(
    option: Option,
    entries: Mapping[str, Entry],
    broken: Mapping[str, str],
    looks: Sequence[Look],
    cloud: str,
) -> Option:
    local = option.backend.id
    said = broken.get(local)
    if said is not None:
        return _moved(option, BELOW_FLOOR, f"{WITHDRAWN}: {said}")
    entry = entries.get(local)
    if entry is None:
        return option
    if not looks:
        return _moved(option, BELOW_FLOOR, UNJUDGED)
    if option.cloud is None:
        return _direct(option, entry, looks, cloud)
    return _looked_at(option, entry, looks, cloud)


def _moved(option: Option, tier: int, note: str) -> Option:
    return msgspec.structs.replace(option, tier=tier, notes=(*_unprior(option), note))


def _direct(option: Option, entry: Entry, looks: Sequence[Look], cloud: str) -> Option:
    promise = entry.pre
    gain = min(promise.score(look) for look in looks)
    keeps = promise.threshold is not None and gain >= promise.threshold
    limit = "nothing may" if promise.threshold is None else f"from {promise.threshold:.3f}"
    return msgspec.structs.replace(
        option,
        tier=SUFFICES if keeps else BELOW_FLOOR,
        quality=quality_of(promise) if keeps else option.quality,
        notes=(*_unprior(option), f"{KEPT if keeps else NOT_KEPT}: {gain:.3f}, {limit}"),
        promise=_told(promise, cloud, "pre", keeps=keeps, gain=_gain(promise, gain)),
    )


def _looked_at(option: Option, entry: Entry, looks: Sequence[Look], cloud: str) -> Option:
    promise = entry.post
    assert promise is not None  # noqa: S101 - such a candidate is made only with this promise
    gain = min(entry.pre.score(look) for look in looks)
    stays = stays_of(entry, gain)
    return msgspec.structs.replace(
        option,
        tier=SUFFICES,
        quality=quality_of(promise),
        notes=_unprior(option),
        promise=_told(
            promise,
            cloud,
            "post",
            keeps=None,
            gain=_gain(entry.pre, gain),
            stays=stays,
            samples=entry.samples,
        ),
    )


def _unprior(option: Option) -> tuple[str, ...]:
    """Its notes, without what a published benchmark says: the promise knows better."""
    return tuple(note for note in option.notes if code_of(note) not in _OF_PRIORS)


def _told(
    promise: Promise,
    cloud: str,
    stage: str,
    *,
    keeps: bool | None,
    gain: Estimate,
    stays: Estimate | None = None,
    samples: int = 0,
) -> Promised:
    return Promised(
        cloud=cloud,
        stage=stage,
        keeps=keeps,
        gain=gain,
        threshold=promise.threshold,
        stays=stays,
        basis=promise.basis,
        labels=promise.labels,
        samples=samples,
        target=promise.target.quality,
        confidence=promise.target.confidence,
        missing=promise.missing,
    )


def _gain(promise: Promise, gain: float) -> Estimate:
    """The interval is that of the mean over kept calls, 95 %."""
    evidence, half = promise.evidence, _Z * promise.deviation
    return Estimate(
        mean=gain,
        low=max(gain - half, -1.0),
        high=min(gain + half, 1.0),
        n=promise.labels,
        source="labels" if evidence is None else "labels and the shipped evidence",
        unit="score, local less cloud",
    )


def stays_of(entry: Entry, gain: float) -> Estimate:
    """P(an answer stays local), from how many labelled calls' answers would have."""
    if entry.stays is not None:
        return entry.stays(gain)
    post = entry.post
    return share_of(round(post.share * post.labels), post.labels) if post else share_of(0, 0)
