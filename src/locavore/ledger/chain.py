"""Blocks of rows in a hash chain, one chain per writer, so that tampering shows.

A block is what one transaction took from a writer's journal. Its hash covers the previous block,
the rows of calls and attempts, and the whole records. User and session are left out of the rows
and records may be deleted, so that a person's data can be erased without breaking the chain.
"""

import hashlib
from collections.abc import Iterable, Sequence
from operator import itemgetter

import msgspec

from locavore.ledger.database import Database
from locavore.ledger.rows import CALL_COLUMNS, Row

encode = msgspec.msgpack.Encoder().encode
_kept = itemgetter(*(n for n, name in enumerate(CALL_COLUMNS) if name not in ("user", "session")))
GENESIS = bytes(32)


def rows_hash(calls: Iterable[Row], attempts: Iterable[Row]) -> bytes:
    """SHA-256 of the rows as msgpack, in order, without what may be erased."""
    return hashlib.sha256(encode((list(map(_kept, calls)), list(attempts)))).digest()


def bodies_hash(bodies: Iterable[bytes]) -> bytes:
    """SHA-256 of the records, one after the other."""
    return hashlib.sha256(b"".join(bodies)).digest()


def link(previous: bytes, rows: bytes, bodies: bytes) -> bytes:
    return hashlib.sha256(previous + rows + bodies).digest()


def append_block(
    db: Database,
    writer: int,
    calls: Sequence[Row],
    attempts: Sequence[Row],
    bodies: Iterable[bytes],
) -> None:
    """Chain one batch, inside the transaction that inserts it."""
    last = db.execute(
        "SELECT n, hash FROM blocks WHERE writer = ? ORDER BY n DESC LIMIT 1", (writer,)
    ).fetchone()
    n, previous = last or (0, GENESIS)
    rows, records = rows_hash(calls, attempts), bodies_hash(bodies)
    db.execute(
        "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?)",
        (writer, n + 1, calls[0][0], calls[-1][0], rows, records, link(previous, rows, records)),
    )
