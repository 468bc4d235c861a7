"""Numbered SQL, applied once each and in order, never backwards; `user_version` says how far."""

import sqlite3
from importlib import resources

from locavore.core.errors import StoreError


def steps() -> list[tuple[int, str]]:
    """(number, SQL) of every migration, ascending; the files are `NNNN_what.sql`."""
    files = [f for f in resources.files(__name__).iterdir() if f.name.endswith(".sql")]
    return sorted((int(f.name[:4]), f.read_text("utf-8")) for f in files)


def migrate(db: sqlite3.Connection) -> None:
    """Bring the schema up to date. Raises StoreError for a file a newer Locavore has written."""
    known = steps()
    if _version(db) > known[-1][0]:
        raise StoreError(
            f"the ledger has schema {_version(db)}, this Locavore knows up to {known[-1][0]}; "
            "use the newer version"
        )
    for number, sql in known:
        if number > _version(db):
            _apply(db, number, sql)


def _apply(db: sqlite3.Connection, number: int, sql: str) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        if number > _version(db):  # another process may have been faster
            for statement in sql.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
