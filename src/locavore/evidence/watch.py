"""Watches promises over what the ledger says of explored calls, and says which are broken.

What it knows is rebuilt from the ledger after a restart. A promise that holds is withdrawn with
probability at most `ALPHA` over its whole life, half of it for verdicts and half for what can be
checked of an answer's form (see `routing.monitor`).
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable

from locavore.core.estimate import Estimate
from locavore.evidence.achieved import Scores, form_scores, quality_scores
from locavore.ledger.database import Database
from locavore.ledger.verdicts import Explored, Place, explored_ids, news
from locavore.routing.estimators.promised import Entry, Withdrawal
from locavore.routing.monitor import Monitor

ALPHA = 0.05
EVENED = 4.0
"""Scoring that is more uneven than this between home and cloud is not evened out in full: calls
that nobody judges must not silence those that are judged."""


class Watch:
    """The monitors of all promises that hold."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._watched: dict[str, _Watched] = {}

    def look(self, db: Database, entries: Iterable[Entry]) -> list[tuple[Entry, Withdrawal]]:
        """Take what is new; the promises that it breaks."""
        holding = {e.id: e for e in entries if e.withdrawn is None}
        self._watched = {id_: w for id_, w in self._watched.items() if id_ in holding}
        broken = []
        for id_, entry in holding.items():
            watched = self._watched.setdefault(id_, _Watched(entry))
            found = watched.look(db)
            if found is not None:
                judged, achieved = found
                at_s = self._clock()
                broken.append((entry, Withdrawal(at_s=at_s, judged=judged, achieved=achieved)))
        return broken


class _Watched:
    """One promise: a monitor of what verdicts say and one of what is checked."""

    def __init__(self, entry: Entry) -> None:
        self._id = entry.id
        self._come = Place()
        target = entry.pre.target.quality
        self._quality = _Sampled(target, quality_scores)
        self._form = _Sampled(target, form_scores)

    def look(self, db: Database) -> tuple[str, Estimate] | None:
        verdicts, compared, self._come = news(db, self._id, self._come)
        if verdicts or compared:
            ids = explored_ids(db, self._id)
            for call in verdicts:
                self._quality.take(call, ids)
            for call in compared:
                self._form.take(call, ids)
        for name, sampled in (("quality", self._quality), ("form", self._form)):
            if sampled.broken is not None:
                return name, sampled.broken
        return None


class _Sampled:
    """Calls that are scored, as they come, standing for all that were explored.

    Two things are evened out: a share of explored calls that was changed, and calls kept at home
    that are scored more or less often than the others, say because two answers are more work to
    judge than one. Weights follow from what was known before a call's own score.
    """

    def __init__(self, target: float, scores: Callable[[Explored], Scores | None]) -> None:
        self._scores = scores
        self._monitor = Monitor(target, alpha=ALPHA / 2)
        self._least = 1.0
        """Smallest propensity so far: its calls stand for most."""
        self._scored = {True: 0, False: 0}
        self._last = ""
        self.broken: Estimate | None = None
        """What was achieved since it began to fall, when the monitor fired."""

    def take(self, call: Explored, ids: dict[bool, list[str]]) -> None:
        """`ids`: of the calls that were explored, by whether they were kept at home; ascending."""
        scores = self._scores(call)
        if scores is None:
            return
        self._least = min(self._least, call.propensity)
        self._last = max(self._last, call.id)
        weight = self._least / call.propensity / self._uneven(call.kept, ids)
        self._scored[call.kept] += 1
        got, cloud = scores
        fired = self._monitor.observe(kept=True, weak=got, strong=cloud, weight=weight)
        if fired and self.broken is None:
            self.broken = self._monitor.fallen() or self._monitor.achieved()

    def _uneven(self, kept: bool, ids: dict[bool, list[str]]) -> float:
        """How much more often calls like this one are scored than the others, from 1 on."""
        rates = {side: self._rate(side, ids[side]) for side in (True, False)}
        return min(rates[kept] / min(rates.values()), EVENED)

    def _rate(self, kept: bool, ids: list[str]) -> float:
        """Share of the calls explored by now that are scored."""
        return (self._scored[kept] + 1) / (bisect_right(ids, self._last) + 1)
