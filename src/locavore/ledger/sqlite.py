"""The default store: one SQLite file in WAL mode, written in batches by whoever ingests."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from locavore.core.errors import StoreError
from locavore.ledger.database import Database
from locavore.ledger.migrations import migrate
from locavore.ledger.tail import Position

BUSY_S = 5.0
"""How long one process waits for another one's transaction."""
PAGE_BYTES = 16_384
"""Of a new file; an old one keeps its own. Each page is written on its own, to the log and to the
file, so that SQLite's 4,096 bytes cost a call of the gateway 4 µs more."""


def store_path(home: Path) -> Path:
    return home / "ledger.sqlite3"


def _bind_quickly() -> None:
    """Python looks for a way to adapt each None and each bytes object that it binds, and makes an
    error message on the way, 0.3 µs a value; these adapters give back what they are given."""
    nothing: Any = {}.get
    sqlite3.register_adapter(type(None), nothing)
    sqlite3.register_adapter(bytes, bytes)


def connect(path: Path, *, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """An open, migrated store. Raises StoreError when it is locked, full or read-only."""
    with translated(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _bind_quickly()
        db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        try:
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            _use_wal(db, busy_s)
            # Power loss may cost the last batches, never the file's consistency.
            db.execute("PRAGMA synchronous = NORMAL")
            migrate(db)
        except BaseException:
            db.close()
            raise
    path.chmod(0o600)
    return db


def _use_wal(db: sqlite3.Connection, busy_s: float) -> None:
    """Two processes that open a new file at once: SQLite refuses the second switch to WAL at once,
    without waiting for its busy time-out."""
    until_s = time.monotonic() + busy_s
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() >= until_s:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as StoreError; the only place that does so."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"the ledger {str(path)!r} cannot be used: {error}") from error


@contextlib.contextmanager
def transaction(db: Database) -> Iterator[None]:
    """One writer at a time, across processes; all or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def position_of(db: Database, writer: str) -> Position | None:
    """How far a writer's journal is in the store."""
    row = db.execute("SELECT segment, position FROM writers WHERE name = ?", (writer,)).fetchone()
    return Position(*row) if row else None
