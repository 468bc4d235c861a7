"""What a promise achieved, from the calls that were explored and judged.

Calls count by the inverse of the probability with which they were explored and judged, so that the
figures are those of the traffic. Three things are told apart:

* quality: what verdicts of the user's application say; only this is quality
* form: whether answers are what was asked for by their form, which needs nobody's verdict
* agreement: whether both models said the same, which is neither
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import ceil
from pathlib import Path

import msgspec

from locavore.core.estimate import Estimate
from locavore.ledger.database import Database
from locavore.ledger.verdicts import Explored, explored
from locavore.routing.bounds import Pair, flawless_needed
from locavore.routing.estimators.promised import FOLDER, Entry, Withdrawal, quality_of, read
from locavore.routing.monitor import CONFIDENCE, share_of_cloud

Scores = tuple[float, float]
"""What the served answer achieved and what the cloud's would have."""


class Achieved(msgspec.Struct, frozen=True, kw_only=True):
    """Of one promise, over all its calls or over those of one task class."""

    local: str
    cloud: str
    promise: str
    task: str | None
    """None: all of them."""
    target: float
    """Promised share of the cloud model's quality."""
    confidence: float
    """Of the promise, over the draw of its labels."""
    basis: str
    labels: int
    expected: Estimate
    """What calibration expects, with its lower bound at that confidence."""
    explored: int
    """Calls that both models of the pair were to answer."""
    kept: int
    """Of these, served by the local model."""
    judged: int
    """Of the explored, with the verdicts that are needed."""
    judged_kept: int
    quality: Estimate | None
    """Achieved; None: no call that was kept local is judged yet."""
    needed: int
    """Judged calls after which a flawless record lies above the target."""
    form: Estimate | None
    """Served answers of the right form, as a share of the cloud model's."""
    agreement: Estimate | None
    """Share of the pairs that say the same: not quality."""
    withdrawn: Withdrawal | None = None

    @property
    def missing(self) -> int:
        """About how many more judged calls could confirm the promise, if they go on like those
        there are (without any: if nothing is lost). 0: it is confirmed, or it is not above its
        target, and more calls would not make it so."""
        found = self.quality
        if found is None:
            return self.needed
        if found.low >= self.target or found.mean <= self.target:
            return 0
        # An interval's width falls with the square root of the calls.
        times = ((found.mean - found.low) / (found.mean - self.target)) ** 2
        return max(ceil(self.judged * times), self.needed) - self.judged


def achieved(entries: Iterable[Entry], calls: Iterable[Explored]) -> list[Achieved]:
    """For each promise, first over all its calls, then by task class."""
    of_promise: dict[str, list[Explored]] = {}
    for call in calls:
        of_promise.setdefault(call.promise, []).append(call)
    found = []
    for entry in entries:
        mine = of_promise.get(entry.id, [])
        found.append(_achieved(entry, mine, None))
        tasks = sorted({call.task for call in mine})
        if len(tasks) > 1:
            found += [_achieved(entry, [c for c in mine if c.task == t], t) for t in tasks]
    return found


def achieved_here(home: Path, db: Database, since_s: float | None = None) -> list[Achieved]:
    """Of the promises of this home. `since_s`: of calls from this Unix time on. Raises ConfigError
    for a promise's file that cannot be read."""
    entries = read(home / FOLDER)
    return achieved(entries, explored(db, since_s=since_s)) if entries else []


def _achieved(entry: Entry, calls: Sequence[Explored], task: str | None) -> Achieved:
    promise = entry.pre if entry.post is None or not entry.looks else entry.post
    judged = [c for c in calls if c.judged]
    judged_kept = sum(c.kept for c in judged)
    target = promise.target.quality
    return Achieved(
        local=entry.local,
        cloud=entry.cloud,
        promise=entry.id,
        task=task,
        target=target,
        confidence=promise.target.confidence,
        basis=promise.basis,
        labels=promise.labels,
        expected=quality_of(promise),
        explored=len(calls),
        kept=sum(c.kept for c in calls),
        judged=len(judged),
        judged_kept=judged_kept,
        quality=_estimate(calls, quality_scores, "verdicts") if judged_kept else None,
        needed=flawless_needed(target, 1 - CONFIDENCE),
        form=_estimate(calls, form_scores, "checks of the form"),
        agreement=_estimate(calls, _agreement, "pairs of answers"),
        withdrawn=entry.withdrawn,
    )


def quality_scores(call: Explored) -> Scores | None:
    """None: the verdicts that are needed are not there."""
    if not call.judged or call.served is None:
        return None
    strong = call.shadow if call.kept else call.served
    return None if strong is None else (call.served, strong)


def form_scores(call: Explored) -> Scores | None:
    if call.form_served is None or call.form_shadow is None:
        return None
    return call.form_served, call.form_shadow if call.kept else call.form_served


def _agreement(call: Explored) -> Scores | None:
    return None if call.agrees is None else (float(call.agrees), 1.0)


def _estimate(
    calls: Sequence[Explored], scores: Callable[[Explored], Scores | None], source: str
) -> Estimate | None:
    """Those that are scored stand for those that are not and were served from the same place."""
    scored = [(c, s) for c in calls if (s := scores(c)) is not None]
    if not scored:
        return None
    all_, known = Counter(c.kept for c in calls), Counter(c.kept for c, _ in scored)
    inverse = [all_[c.kept] / known[c.kept] / c.propensity for c, _ in scored]
    pairs: Counter[Pair] = Counter()
    for (_, (got, cloud)), weight in zip(scored, inverse, strict=True):
        pairs[got, cloud, weight / max(inverse)] += 1
    return share_of_cloud(pairs, source)
