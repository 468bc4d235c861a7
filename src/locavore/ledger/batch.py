"""What one transaction takes of one writer's journal: rows, chain, sums, metrics, position."""

from collections.abc import Sequence

import msgspec

from locavore.ledger.chain import append_block
from locavore.ledger.database import Database
from locavore.ledger.frames import CALL, Frame
from locavore.ledger.groups import Groups, tables
from locavore.ledger.metrics import write_metrics
from locavore.ledger.rows import (
    Row,
    SlimCall,
    decode,
    explored_row,
    rows_of,
    shadow_row,
    without_nul,
)
from locavore.ledger.sums import write_sums
from locavore.ledger.tail import Damage, Part, Position

_EXPLORED = (
    "INSERT INTO explored (id, promise, local_id, cloud_id, task, kept, propensity, started_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_SHADOWED = (
    "UPDATE explored SET shadow_seq = ?, form_served = ?, form_shadow = ?, agrees = ?"
    " WHERE id = ? AND shadow_seq IS NULL"
)


class Batch:
    """Made, filled and finished inside `transaction`."""

    def __init__(self, db: Database, writer: str) -> None:
        self._db = db
        self._writer = _writer_id(db, writer)
        self._seq = int(db.execute("SELECT coalesce(max(seq), 0) FROM calls").fetchone()[0])
        self._groups = Groups()
        self.taken = 0
        """Items so far."""

    def add(self, part: Part) -> None:
        """Insert what was read; what cannot be used is set aside, never dropped."""
        first = self._seq + 1
        calls: list[Row] = []
        attempts: list[Row] = []
        bodies: list[bytes] = []
        rejects: list[Row] = []
        for item in part.items:
            try:
                call = decode(_payload(item))
                if _has_nul(call):
                    call = without_nul(call)
                row, tried = rows_of(self._seq + 1, self._writer, call)
            except (msgspec.DecodeError, ValueError, OverflowError) as error:
                rejects.append((self._writer, part.segment, item.start, str(error), item.payload))
                continue
            self._seq += 1
            self._groups.add(row, tried, call.decision)
            calls.append(row)
            attempts += tried
            bodies.append(item.payload)
            if call.decision.explored is not None or call.parent_id is not None:
                self._compare(call)
        self.taken += len(part.items)
        self._insert(first, calls, attempts, bodies)
        _insert(self._db, "rejects", rejects)

    def _insert(
        self, first: int, calls: list[Row], attempts: list[Row], bodies: list[bytes]
    ) -> None:
        if not calls:
            return
        _insert(self._db, "calls", calls)
        _insert(self._db, "attempts", attempts)
        _insert(self._db, "records", list(enumerate(bodies, start=first)))
        append_block(self._db, self._writer, calls, attempts, bodies)

    def _compare(self, call: SlimCall) -> None:
        """Keep an explored call, or what its shadow's record says of both answers; the shadow's
        comes later."""
        if (explored := explored_row(call)) is not None:
            self._db.execute(_EXPLORED, explored)
        if (shadow := shadow_row(self._seq, call)) is not None:
            self._db.execute(_SHADOWED, shadow)

    def finish(self, position: Position) -> None:
        """Add to the sums, and note that the journal is read up to `position`."""
        turned = tables(self._groups)
        write_sums(turned, self._db)
        write_metrics(turned, self._groups, self._db)
        self._db.execute(
            "UPDATE writers SET segment = ?, position = ? WHERE id = ?", (*position, self._writer)
        )


def _has_nul(call: SlimCall) -> bool:
    """In one of the names that clients choose."""
    user, session = call.user, call.session
    return "\0" in call.decision.requested or (
        (user is not None and "\0" in user) or (session is not None and "\0" in session)
    )


def _payload(item: Frame | Damage) -> bytes:
    """Of a call. Raises ValueError for anything else."""
    if isinstance(item, Damage):
        raise ValueError("damaged: no whole frame")  # noqa: TRY004 - of the journal, not of ours
    if item.kind != CALL:
        raise ValueError(f"unknown kind {item.kind}")
    return item.payload


def _insert(db: Database, table: str, rows: Sequence[Row]) -> None:
    if rows:
        values = ", ".join("?" * len(rows[0]))
        db.executemany(f"INSERT INTO {table} VALUES ({values})", rows)  # noqa: S608 - our names


def _writer_id(db: Database, name: str) -> int:
    db.execute(
        "INSERT INTO writers (name, segment, position) VALUES (?, 0, 0) ON CONFLICT DO NOTHING",
        (name,),
    )
    return int(db.execute("SELECT id FROM writers WHERE name = ?", (name,)).fetchone()[0])
