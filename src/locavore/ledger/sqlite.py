"""The default store: one SQLite file in WAL mode, written in batches by whoever ingests."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from locavore.core.errors import StoreError
from locavore.ledger.chain import append_block
from locavore.ledger.database import Database
from locavore.ledger.frames import CALL, Frame
from locavore.ledger.migrations import migrate
from locavore.ledger.rows import (
    Row,
    attempt_costs,
    attempt_rows,
    call_row,
    decode,
    explored_row,
    money_of,
    shadow_row,
)
from locavore.ledger.sums import Sums
from locavore.ledger.tail import Damage, Position

BUSY_S = 5.0
"""How long one process waits for another one's transaction."""


def store_path(home: Path) -> Path:
    return home / "ledger.sqlite3"


def connect(path: Path, *, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """An open, migrated store. Raises StoreError when it is locked, full or read-only."""
    with translated(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        try:
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


_EXPLORED = (
    "INSERT INTO explored (id, promise, local_id, cloud_id, task, kept, propensity, started_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_SHADOWED = (
    "UPDATE explored SET shadow_seq = ?, form_served = ?, form_shadow = ?, agrees = ?"
    " WHERE id = ? AND shadow_seq IS NULL"
)


class Batch:
    """Rows of one transaction. Made, filled and written inside `transaction`."""

    def __init__(self, db: Database, writer: str) -> None:
        self._db = db
        self._writer = _writer_id(db, writer)
        self._seq = db.execute("SELECT coalesce(max(seq), 0) FROM calls").fetchone()[0]
        self._calls: list[Row] = []
        self._attempts: list[Row] = []
        self._records: list[tuple[int, bytes]] = []
        self._rejects: list[Row] = []
        self._explored: list[Row] = []
        self._shadows: list[Row] = []
        self._sums = Sums()

    def __len__(self) -> int:
        return len(self._calls) + len(self._rejects)

    def add(self, item: Frame | Damage, position: Position) -> None:
        """Take one item of the journal; what cannot be read is set aside, never dropped."""
        if isinstance(item, Damage):
            self._reject(item.start, item.payload, position, "damaged: no whole frame")
        elif item.kind != CALL:
            self._reject(item.start, item.payload, position, f"unknown kind {item.kind}")
        else:
            try:
                self._add_call(item.payload)
            except (msgspec.DecodeError, ValueError, OverflowError) as error:
                self._reject(item.start, item.payload, position, str(error))

    def _add_call(self, payload: bytes) -> None:
        call = decode(payload)
        costs = attempt_costs(call)
        money = money_of(call, costs)
        seq = self._seq + 1
        row = call_row(seq, self._writer, call, money)
        attempts = list(attempt_rows(seq, call, costs))
        self._sums.add(call, costs, money)
        self._seq = seq
        self._calls.append(row)
        self._attempts += attempts
        self._records.append((seq, payload))
        self._explored += filter(None, [explored_row(call)])
        self._shadows += filter(None, [shadow_row(seq, call)])

    def _reject(self, start: int, payload: bytes, position: Position, reason: str) -> None:
        self._rejects.append((self._writer, position.segment, start, reason, payload))

    def write(self, position: Position) -> None:
        """Insert everything, and that the journal is read up to `position`."""
        db = self._db
        _insert(db, "calls", 23, self._calls)
        _insert(db, "attempts", 23, self._attempts)
        _insert(db, "records", 2, self._records)
        _insert(db, "rejects", 5, self._rejects)
        if self._explored:
            db.executemany(_EXPLORED, self._explored)
        if self._shadows:  # a shadow's record follows its parent's
            db.executemany(_SHADOWED, self._shadows)
        self._sums.write(db)
        if self._calls:
            bodies = (body for _, body in self._records)
            append_block(db, self._writer, self._calls, self._attempts, bodies)
        db.execute(
            "UPDATE writers SET segment = ?, position = ? WHERE id = ?", (*position, self._writer)
        )


def _insert(db: Database, table: str, columns: int, rows: Sequence[Row]) -> None:
    if rows:
        db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})", rows)  # noqa: S608


def _writer_id(db: Database, name: str) -> int:
    db.execute(
        "INSERT INTO writers (name, segment, position) VALUES (?, 0, 0) ON CONFLICT DO NOTHING",
        (name,),
    )
    return int(db.execute("SELECT id FROM writers WHERE name = ?", (name,)).fetchone()[0])
