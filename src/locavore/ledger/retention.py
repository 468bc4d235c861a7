"""What is kept how long, and how a person's data is erased without breaking the books.

Amounts, tokens and times stay: they are the books. The whole records (decision, candidates, an
upstream's words) go after a while, and the names of a user or session go at that person's request.
Both work in small transactions over a range of calls, so memory and the time others wait for the
lock do not grow with the ledger.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from locavore.ledger import kept_answers
from locavore.ledger.database import Database
from locavore.ledger.sqlite import transaction

STEP = 2000
"""Calls looked at in one transaction."""


def prune(db: Database, *, before_s: float, home: Path | None = None) -> int:
    """Delete the whole records of calls that started before `before_s`; how many those were.

    `home`: where other answers to these calls are kept, which go too.
    """
    before_ms = int(before_s * 1000)
    if home is not None:
        old = db.execute("SELECT id FROM explored WHERE started_ms < ?", (before_ms,)).fetchall()
        kept_answers.drop(home, (id_ for (id_,) in old))
    return sum(
        _count(
            db,
            "DELETE FROM records WHERE seq >= ? AND seq < ? AND seq IN"
            " (SELECT seq FROM calls WHERE seq >= ? AND seq < ? AND started_ms < ?)",
            (first, last, first, last, before_ms),
        )
        for first, last in _steps(db)
    )


def erase(
    db: Database, *, user: str | None = None, session: str | None = None, home: Path | None = None
) -> int:
    """Delete what could identify a user or a session; how many calls that touched (C95).

    The calls' amounts stay, without the name. `home`: where other answers to these calls are kept,
    which go too. Raises ValueError when neither a user nor a session is given.
    """
    if user is None and session is None:
        raise ValueError("erase needs a user or a session")
    which, value = ("user", user) if user is not None else ("session", session)
    if isinstance(db, sqlite3.Connection):
        db.execute("PRAGMA secure_delete = ON")  # freed pages are overwritten
    if home is not None:
        sql = (
            f"SELECT calls.id FROM calls JOIN explored ON explored.id = calls.id WHERE {which} = ?"  # noqa: S608
        )
        kept_answers.drop(home, (id_ for (id_,) in db.execute(sql, (value,)).fetchall()))
    count = sum(_erase_step(db, which, str(value), *step) for step in _steps(db))
    if isinstance(db, sqlite3.Connection):
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log still has the old pages
    return count


def _erase_step(db: Database, which: str, value: str, first: int, last: int) -> int:
    here = f"seq >= ? AND seq < ? AND {which} = ?"
    with transaction(db):
        db.execute(
            f"DELETE FROM records WHERE seq IN (SELECT seq FROM calls WHERE {here})",  # noqa: S608
            (first, last, value),
        )
        sql = f"UPDATE calls SET user = NULL, session = NULL WHERE {here}"  # noqa: S608
        return int(db.execute(sql, (first, last, value)).rowcount)


def _steps(db: Database) -> Iterator[tuple[int, int]]:
    """Ranges of `seq`, first included, last not, over all calls there are now."""
    first, last = db.execute(
        "SELECT coalesce(min(seq), 0), coalesce(max(seq), -1) FROM calls"
    ).fetchone()
    for begin in range(first, last + 1, STEP):
        yield begin, begin + STEP


def _count(db: Database, sql: str, values: tuple[int, ...]) -> int:
    with transaction(db):
        return int(db.execute(sql, values).rowcount)
