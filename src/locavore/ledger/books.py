"""The books: checked from end to end, corrected by new entries only.

A chain cannot tell that its newest blocks are missing: keep the heads that `verify` gives
somewhere else, and hand them to the next one as `anchors`.
"""

import hashlib
import time
from collections.abc import Iterator
from decimal import Decimal

import msgspec

from locavore.core.errors import RequestError
from locavore.ledger.chain import GENESIS, bodies_hash, encode, link, rows_hash
from locavore.ledger.database import Database
from locavore.ledger.rows import Row, pico_of
from locavore.ledger.sqlite import transaction
from locavore.ledger.sums import DAY_S, HOUR_S


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify` found. `problems` is empty when the books hold."""

    calls: int
    blocks: int
    erased: int
    """Records deleted since, by retention or at a person's request."""
    corrections: int
    balance_pico: int
    """Sum of all entries; anything but zero is a problem."""
    heads: dict[str, str]
    """Chain -> hash of its newest block: keep these elsewhere."""
    problems: tuple[str, ...]


def verify(db: Database, *, anchors: dict[str, str] | None = None) -> Audit:
    """Recompute every hash and every sum. `anchors`: the `heads` of an earlier audit."""
    problems: list[str] = []
    heads: dict[str, str] = {}
    with _snapshot(db):
        count, erased = 0, 0
        for writer, name in db.execute("SELECT id, name FROM writers ORDER BY id").fetchall():
            blocks, gone, head = _verify_chain(db, writer, name, problems)
            count, erased = count + blocks, erased + gone
            if blocks:
                heads[name] = head.hex()
        corrections, head = _verify_corrections(db, problems)
        if corrections:
            heads["corrections"] = head.hex()
        problems += _uncovered(db)
        problems += _wrong_sums(db)
        balance = _integer(db, "SELECT coalesce(sum(pico), 0) FROM entries")
        if balance:
            problems.append(f"the entries do not cancel out: {balance} pico-dollars remain")
        problems += _lost_anchors(db, anchors or {})
        calls = _integer(db, "SELECT count(*) FROM calls")
    return Audit(
        calls=calls,
        blocks=count,
        erased=erased,
        corrections=corrections,
        balance_pico=balance,
        heads=heads,
        problems=tuple(problems),
    )


class _snapshot:  # noqa: N801 - reads as a verb phrase: with _snapshot(db)
    """All queries see one state while others go on writing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN")

    def __exit__(self, *_: object) -> None:
        self._db.execute("ROLLBACK")


def _verify_chain(
    db: Database, writer: int, name: str, problems: list[str]
) -> tuple[int, int, bytes]:
    """(blocks, erased records, head) of one writer; appends what is wrong."""
    previous, number, erased = GENESIS, 0, 0
    for number, block in enumerate(_blocks(db, writer), start=1):
        n, first, last, rows, bodies, hash_ = block
        where = f"{name} block {n} (calls {first} to {last})"
        if n != number:
            problems.append(f"{where}: block {number} is missing")
            return number, erased, previous
        if link(previous, rows, bodies) != hash_:
            problems.append(f"{where}: does not follow the block before it")
        found_calls = _rows(db, "calls", first, last)
        if rows_hash(found_calls, _rows(db, "attempts", first, last)) != rows:
            problems.append(f"{where}: rows were changed, added or removed")
        records = db.execute(
            "SELECT body FROM records WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last)
        ).fetchall()
        gone = last - first + 1 - len(records)
        erased += gone
        if not gone and bodies_hash(body for (body,) in records) != bodies:
            problems.append(f"{where}: records were changed")
        previous = hash_
    return number, erased, previous


def _blocks(db: Database, writer: int) -> Iterator[tuple[int, int, int, bytes, bytes, bytes]]:
    yield from db.execute(
        "SELECT n, first_seq, last_seq, rows_hash, bodies_hash, hash FROM blocks"
        " WHERE writer = ? ORDER BY n",
        (writer,),
    )


def _rows(db: Database, table: str, first: int, last: int) -> list[Row]:
    sql = f"SELECT * FROM {table} WHERE seq BETWEEN ? AND ? ORDER BY seq"  # noqa: S608 - our names
    rows: list[Row] = db.execute(sql, (first, last)).fetchall()
    return rows


def _verify_corrections(db: Database, problems: list[str]) -> tuple[int, bytes]:
    previous, number = GENESIS, 0
    for number, row in enumerate(db.execute("SELECT * FROM corrections ORDER BY n"), start=1):
        if row[0] != number or _correction_hash(previous, row[:-1]) != row[-1]:
            problems.append(f"correction {row[0]}: changed, added or removed")
        previous = row[-1]
    return number, previous


def _correction_hash(previous: bytes, row: Row) -> bytes:
    return hashlib.sha256(previous + encode(row)).digest()


def _integer(db: Database, sql: str) -> int:
    return int(db.execute(sql).fetchone()[0])


def _uncovered(db: Database) -> list[str]:
    loose = _integer(
        db,
        "SELECT (SELECT count(*) FROM calls)"
        " - (SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM blocks)",
    )
    return [f"{loose} calls are in no block"] if loose else []


MICRO = 10**6
"""Pico-dollars are summed as micro-dollars and rest: no sum leaves 64 bits."""
_SUMS_DIFFER = """
SELECT backend, sum(attempts), sum(cost_pico / 1000000), sum(cost_pico % 1000000) FROM (
    SELECT backend, attempts, cost_pico FROM sums WHERE span_s = 86400
    UNION ALL SELECT backend, -1, -coalesce(cost_pico, 0) FROM attempts
    UNION ALL SELECT a.backend, 0, -k.delta_pico FROM corrections k
        JOIN attempts a ON a.seq = k.seq AND a.n = k.attempt) AS u
GROUP BY backend HAVING sum(attempts) != 0
    OR sum(cost_pico / 1000000) * 1000000 + sum(cost_pico % 1000000) != 0
"""


def _wrong_sums(db: Database) -> list[str]:
    """Where the sums that reports read are not the sums of the entries."""
    return [
        f"sums of {backend!r} are off: {attempts} attempts, {int(micro) * MICRO + int(rest)} pico"
        for backend, attempts, micro, rest in db.execute(_SUMS_DIFFER)
    ]


def _lost_anchors(db: Database, anchors: dict[str, str]) -> list[str]:
    known = {bytes(row[0]).hex() for row in db.execute("SELECT hash FROM blocks")}
    known |= {bytes(row[0]).hex() for row in db.execute("SELECT hash FROM corrections")}
    return [
        f"{name}: the block {head[:12]}… of the earlier audit is gone"
        for name, head in anchors.items()
        if head not in known
    ]


def correct(db: Database, call_id: str, attempt: int, usd: Decimal, *, reason: str) -> Decimal:
    """Book what an attempt really cost, as a new entry; the difference in dollars.

    Raises RequestError when there is no such attempt or the amount cannot be right.
    """
    with transaction(db):
        row = db.execute(
            "SELECT seq, attempts.cost_pico FROM attempts JOIN calls USING (seq)"
            " WHERE calls.id = ? AND n = ?",
            (call_id, attempt),
        ).fetchone()
        if row is None:
            raise RequestError(f"call {call_id!r} has no attempt {attempt!r}", status=404)
        seq, booked = row
        earlier, resolved = db.execute(
            "SELECT coalesce(sum(delta_pico), 0), coalesce(sum(resolves), 0) FROM corrections"
            " WHERE seq = ? AND attempt = ?",
            (seq, attempt),
        ).fetchone()
        earlier, resolved = int(earlier), int(resolved)
        try:
            delta = pico_of(usd) - earlier - (booked or 0)
        except ValueError as error:
            raise RequestError(str(error)) from error
        resolves = int(booked is None and not resolved)
        _book(db, seq, attempt, delta, resolves, reason)
    return Decimal(delta).scaleb(-12)


def _book(db: Database, seq: int, attempt: int, delta: int, resolves: int, reason: str) -> None:
    last = db.execute("SELECT n, hash FROM corrections ORDER BY n DESC LIMIT 1").fetchone()
    n, previous = last or (0, GENESIS)
    now_ms = int(time.time() * 1000)
    row = (n + 1, seq, attempt, delta, resolves, reason, now_ms)
    db.execute(
        "INSERT INTO corrections VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, _correction_hash(previous, row)),
    )
    for span_s in (HOUR_S, DAY_S):
        bucket = now_ms // 1000 // span_s
        db.execute(_ADD_TO_SUMS, (span_s, bucket, -resolves, delta, seq, attempt))


_ADD_TO_SUMS = """
INSERT INTO sums SELECT ?, ?, tenant, team, key, task, format, a.backend, provider, place,
    0, 0, 0, 0, 0, 0, 0, ?, 0, 0, 0, 0, 0, 0, 0, ?, 0, 0, 0, 0, 0, 0, 0, 0
FROM calls JOIN attempts a USING (seq) WHERE seq = ? AND n = ?
ON CONFLICT (span_s, bucket, tenant, team, key, task, format, backend, provider, place)
DO UPDATE SET unknown_cost = sums.unknown_cost + excluded.unknown_cost,
    cost_pico = sums.cost_pico + excluded.cost_pico
"""
