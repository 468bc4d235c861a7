"""Explored calls and what was said of their answers.

A verdict is a score in [0, 1] that the user's application gave. It may be given in two parts, and
said again; what was said is never changed, because a monitor has counted it.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from locavore.core.errors import RequestError
from locavore.ledger.database import Database
from locavore.ledger.ingest import Ingester
from locavore.ledger.sqlite import store_path, transaction, translated
from locavore.ledger.store import open_store


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of one call."""

    id: str
    """The decision's."""
    served: float | None = None
    """Of the answer that the client got."""
    shadow: float | None = None
    """Of the other model's answer, where the call was explored."""


class Explored(msgspec.Struct, frozen=True, kw_only=True):
    """One explored call, with all that is known of its two answers."""

    id: str
    promise: str
    local: str
    cloud: str
    task: str
    kept: bool
    """The local model's answer was served."""
    propensity: float
    started_s: float
    """Unix time."""
    form_served: float | None
    """None: the other model has not answered."""
    form_shadow: float | None
    agrees: bool | None
    served: float | None
    """Verdicts; None: nobody gave one."""
    shadow: float | None

    @property
    def judged(self) -> bool:
        """Whether the verdicts say what the promise achieved on this call: where the cloud served,
        its own answer is what would have been."""
        return self.served is not None and (not self.kept or self.shadow is not None)

    @property
    def waits(self) -> bool:
        """Whether a verdict could still be given that makes it count."""
        return not self.judged and (not self.kept or self.form_served is not None)


class VerdictStore:
    """Verdicts of one ledger. Open it, use it, close it."""

    def __init__(
        self, home: Path, *, url: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """`url`: as for `ledger.store.open_store`."""
        self._home = home
        self._url = url
        self._path = store_path(home)
        self._clock = clock
        self._db = open_store(home, url)

    def close(self) -> None:
        self._db.close()

    def give(self, verdict: Verdict, *, key: str | None = None, any_key: bool = False) -> Verdict:
        """Keep it; all that was said of the call by now.

        `key`: name of the client key that asks; the call of another one is not found (404).
        `any_key`: the operator asks. Raises RequestError: 400 for a score outside [0, 1] or for an
        answer there was none of, 409 for one that was judged otherwise.
        """
        _check(verdict)
        with translated(self._path):
            self._own(verdict.id, key, any_key=any_key)
            with transaction(self._db):
                return self._merge(verdict)

    def explored(self, id_: str, *, key: str | None = None) -> Explored | None:
        """What is known of a call's two answers; None: it was not explored.

        Raises RequestError (404) for a call that `key` has not made.
        """
        with translated(self._path):
            self._own(id_, key, any_key=False)
            return find(self._db, id_)

    def _own(self, id_: str, key: str | None, *, any_key: bool) -> None:
        caller = self._caller(id_)
        if caller is None or not (any_key or caller == (key or "")):
            raise RequestError(
                f"no call {id_!r}; one can be judged once it has finished",
                status=404,
                code="decision_not_found",
                param="id",
            )

    def _caller(self, id_: str) -> str | None:
        sql = "SELECT key FROM calls WHERE id = ? AND parent_id IS NULL"
        row = self._db.execute(sql, (id_,)).fetchone()
        if row is None:  # it may be a moment old
            with closing(Ingester(self._home, url=self._url)) as ingester:
                ingester.run_once()
            row = self._db.execute(sql, (id_,)).fetchone()
        return None if row is None else str(row[0])

    def _merge(self, verdict: Verdict) -> Verdict:
        old = self._said(verdict.id)
        if verdict.shadow is not None and not self._explored(verdict.id):
            raise RequestError(
                f"call {verdict.id!r} was not explored: only its served answer can be judged",
                code="not_explored",
                param="shadow",
            )
        new = Verdict(
            id=verdict.id,
            served=_kept(old.served, verdict.served, "served"),
            shadow=_kept(old.shadow, verdict.shadow, "shadow"),
        )
        if new != old:
            n = int(self._db.execute("SELECT coalesce(max(n), 0) FROM verdicts").fetchone()[0])
            self._db.execute(
                "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                " n = excluded.n, served = excluded.served, shadow = excluded.shadow,"
                " judged_ms = excluded.judged_ms",
                (new.id, n + 1, new.served, new.shadow, int(self._clock() * 1000)),
            )
        return new

    def _said(self, id_: str) -> Verdict:
        row = self._db.execute(
            "SELECT served, shadow FROM verdicts WHERE id = ?", (id_,)
        ).fetchone()
        return Verdict(id=id_) if row is None else Verdict(id=id_, served=row[0], shadow=row[1])

    def _explored(self, id_: str) -> bool:
        row = self._db.execute("SELECT 1 FROM explored WHERE id = ?", (id_,)).fetchone()
        return row is not None


def _check(verdict: Verdict) -> None:
    if verdict.served is None and verdict.shadow is None:
        raise RequestError("a verdict says `served`, `shadow` or both", param="served")
    for name in ("served", "shadow"):
        score = getattr(verdict, name)
        if score is not None and not (math.isfinite(score) and 0 <= score <= 1):
            raise RequestError(f"{name} {score!r}: give a score between 0 and 1", param=name)


def _kept(old: float | None, new: float | None, name: str) -> float | None:
    if old is not None and new is not None and old != new:
        raise RequestError(
            f"{name} was judged {old!r} before and is {new!r} now; what was said stays",
            status=409,
            code="verdict_exists",
            param=name,
        )
    return old if new is None else new


# Reading -----------------------------------------------------------------------------------------

_COLUMNS = (
    "SELECT e.id, promise, local_id, cloud_id, task, kept, propensity, started_ms,"
    " form_served, form_shadow, agrees, served, shadow, v.n, e.shadow_seq"
    " FROM explored e LEFT JOIN verdicts v ON v.id = e.id"
)


class Place(msgspec.Struct, frozen=True):
    """How far a reader has come: verdicts and shadows each in the order in which they came."""

    verdict: int = 0
    shadow: int = 0


def news(db: Database, promise: str, since: Place) -> tuple[list[Explored], list[Explored], Place]:
    """(newly said verdicts, newly compared answers, how far that is), each oldest first."""
    verdicts = db.execute(
        f"{_COLUMNS} WHERE promise = ? AND v.n > ? ORDER BY v.n", (promise, since.verdict)
    ).fetchall()
    shadows = db.execute(
        f"{_COLUMNS} WHERE promise = ? AND e.shadow_seq > ? ORDER BY e.shadow_seq",
        (promise, since.shadow),
    ).fetchall()
    come = Place(
        verdicts[-1][13] if verdicts else since.verdict,
        shadows[-1][14] if shadows else since.shadow,
    )
    return [_row(r) for r in verdicts], [_row(r) for r in shadows], come


def explored(
    db: Database, *, promise: str | None = None, since_s: float | None = None
) -> Iterator[Explored]:
    """Explored calls, oldest first, of one promise or of all."""
    rows = db.execute(
        f"{_COLUMNS} WHERE started_ms >= ? AND (promise = ? OR ? = '') ORDER BY e.id",
        (int((since_s or 0) * 1000), promise or "", promise or ""),
    )
    return (_row(row) for row in rows.fetchall())


def explored_ids(db: Database, promise: str) -> dict[bool, list[str]]:
    """Of one promise's explored calls, by whether they were kept at home; ascending."""
    rows = db.execute("SELECT kept, id FROM explored WHERE promise = ?", (promise,)).fetchall()
    return {kept: sorted(id_ for k, id_ in rows if bool(k) is kept) for kept in (True, False)}


def find(db: Database, id_: str) -> Explored | None:
    """One explored call; None: it is none, or its record is not ingested yet."""
    row = db.execute(f"{_COLUMNS} WHERE e.id = ?", (id_,)).fetchone()
    return None if row is None else _row(row)


def _row(row: tuple[object, ...]) -> Explored:
    id_, promise, local, cloud, task, kept, propensity, started_ms, *said = row
    form_served, form_shadow, agrees, served, shadow = said[:5]
    return msgspec.convert(
        {
            "id": id_,
            "promise": promise,
            "local": local,
            "cloud": cloud,
            "task": task,
            "kept": bool(kept),
            "propensity": propensity,
            "started_s": int(str(started_ms)) / 1000,
            "form_served": form_served,
            "form_shadow": form_shadow,
            "agrees": None if agrees is None else bool(agrees),
            "served": served,
            "shadow": shadow,
        },
        Explored,
    )
