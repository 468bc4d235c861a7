"""Which records of the ledger are still to be told: one cursor for all gateways that share it."""

from locavore.ledger.database import Database
from locavore.ledger.sqlite import transaction

BATCH = 512
NAME = "otlp"


def begin(db: Database) -> None:
    """What is in the ledger before telemetry was ever switched on is not told."""
    with transaction(db):
        db.execute(
            "INSERT INTO exports SELECT ?, coalesce(max(seq), 0) FROM calls WHERE TRUE"
            " ON CONFLICT DO NOTHING",
            (NAME,),
        )


def claim(db: Database, most: int = BATCH) -> list[bytes]:
    """The next records, oldest first; whoever claims them is the one who tells them."""
    if _span(db, most) is None:
        return []
    with transaction(db):
        span = _span(db, most)  # another gateway may have been faster
        if span is None:
            return []
        db.execute("UPDATE exports SET seq = ? WHERE name = ?", (span[1], NAME))
        sql = "SELECT body FROM records WHERE seq > ? AND seq <= ? ORDER BY seq"
        return [bytes(body) for (body,) in db.execute(sql, span).fetchall()]


def _span(db: Database, most: int) -> tuple[int, int] | None:
    done, newest = db.execute(
        "SELECT (SELECT seq FROM exports WHERE name = ?), (SELECT max(seq) FROM calls)", (NAME,)
    ).fetchone()
    if done is None or newest is None or newest <= done:
        return None
    return done, min(newest, done + most)
