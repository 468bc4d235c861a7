"""Questions to the store: reports from the kept sums, one decision from the kept record."""

import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from locavore.core.outcome import CallRecord
from locavore.ledger.database import Database
from locavore.ledger.ingest import Ingester
from locavore.ledger.rows import usd_of
from locavore.ledger.sqlite import store_path, translated
from locavore.ledger.store import open_store
from locavore.ledger.sums import DAY_S, HOUR_S, MEASURES

DIMENSIONS = {
    "model": "backend",
    "place": "place",
    "provider": "provider",
    "task": "task",
    "format": "format",
    "key": "key",
    "team": "team",
    "tenant": "tenant",
    "day": "day",
}
"""What a report can be broken down by -> the column of `sums`."""
PICO_PER_MICRO = 1_000_000
_DECODE = msgspec.msgpack.Decoder(CallRecord).decode


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One group of a report. Dollars are exact; what is unknown is counted, never priced."""

    group: str
    calls: int
    served: int
    failed: int
    refused: int
    cancelled: int
    duration_s: float
    """Sum over the calls."""
    attempts: int
    unknown_cost: int
    """Attempts whose cost is unknown: not in `cost_usd`."""
    missing_usage: int
    estimated: int
    """Attempts whose tokens or cost are our estimate; they are in the sums."""
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost_usd: Decimal
    compared: int
    """Calls with a known cost and a known price on the baseline: the base of the savings."""
    compared_cost_usd: Decimal
    baseline_usd: Decimal
    """What the compared calls' tokens would have cost on the baseline."""
    retries_usd: Decimal = Decimal(0)
    """Of `compared_cost_usd`: attempts beside the one that answered (retries, samples)."""
    beside_usd: Decimal = Decimal(0)
    """Of `compared_cost_usd`: calls made for another call (judges, shadows)."""
    beside_unknown: int = 0
    """Attempts of such calls whose cost is unknown."""
    exact_baseline_usd: Decimal = Decimal(0)
    """Of `baseline_usd`: calls that the baseline itself served."""
    guessed_baseline_usd: Decimal = Decimal(0)
    """Of `baseline_usd`: calls of other backends whose tokens are our estimate."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    by: str
    since_s: int | None
    """Unix time the report begins at, a full hour; None: everything."""
    until_s: int
    lines: tuple[Line, ...]
    total: Line
    rejects: int
    """Journal records that could not be read; they are kept in the table `rejects`."""


def report(db: Database, *, by: str = "model", since_s: float | None = None) -> Report:
    """Sums by `by` (a key of `DIMENSIONS`) since the hour that `since_s` (Unix time) lies in."""
    since = None if since_s is None else int(since_s) // HOUR_S * HOUR_S
    group = f"bucket * span_s / {DAY_S}" if by == "day" else DIMENSIONS[by]
    lines = tuple(_line(*row) for row in _sums(db, group, since))
    total = [_line(*row) for row in _sums(db, "'total'", since)]
    rejects = db.execute("SELECT count(*) FROM rejects").fetchone()[0]
    return Report(
        by=by,
        since_s=since,
        until_s=int(time.time()),
        lines=lines,
        total=total[0] if total else _line("total", *(0,) * len(_SUMS)),
        rejects=rejects,
    )


def _summed(measure: str) -> list[str]:
    """Money is summed as micro-dollars and rest, so that no sum leaves 64 bits."""
    if not measure.endswith("_pico"):
        return [f"sum({measure})"]
    return [f"sum({measure} / {PICO_PER_MICRO})", f"sum({measure} % {PICO_PER_MICRO})"]


_SUMS = [column for measure in MEASURES for column in _summed(measure)]


def _sums(db: Database, group: str, since: int | None) -> list[tuple[Any, ...]]:
    where, values = "span_s = ?", [DAY_S]
    if since is not None:  # hours up to the first midnight, whole days from there on
        midnight = -(-since // DAY_S)
        where = "(span_s = ? AND bucket >= ?) OR (span_s = ? AND bucket >= ? AND bucket < ?)"
        values = [DAY_S, midnight, HOUR_S, since // HOUR_S, midnight * (DAY_S // HOUR_S)]
    sql = f"SELECT {group} AS g, {', '.join(_SUMS)} FROM sums WHERE {where} GROUP BY g"  # noqa: S608
    return sorted(db.execute(sql, values).fetchall())


def _line(group: str | int, *sums: int) -> Line:
    if isinstance(group, int):  # days since 1970
        group = datetime.fromtimestamp(group * DAY_S, UTC).date().isoformat()
    columns = iter(sums)
    values: dict[str, Any] = {}
    for measure in MEASURES:
        value = int(next(columns))  # PostgreSQL sums BIGINT to NUMERIC
        if measure.endswith("_pico"):
            usd = usd_of(value * PICO_PER_MICRO + int(next(columns)))
            values[measure.replace("_pico", "_usd")] = usd
        else:
            values[measure] = value
    duration_s = values.pop("duration_ms") / 1000
    return Line(group=group, duration_s=duration_s, **values)


def decision(db: Database, call_id: str) -> CallRecord | None:
    """The record of one call, as it was written."""
    sql = "SELECT body FROM records JOIN calls USING (seq) WHERE id = ? ORDER BY seq DESC LIMIT 1"
    row = db.execute(sql, (call_id,)).fetchone()
    return _DECODE(row[0]) if row else None


def open_current(home: Path, url: str | None = None) -> Database:
    """The store of this home with all the journal holds by now; the gateway may run or not.

    `url`: as for `ledger.store.open_store`.
    """
    ingester = Ingester(home, url=url)
    try:
        ingester.run_once()
    finally:
        ingester.close()
    return open_store(home, url)


def find_decision(home: Path, call_id: str, *, url: str | None = None) -> CallRecord | None:
    """`decision` for a caller that holds no connection; blocking, some milliseconds."""
    path = store_path(home)
    db = open_store(home, url)
    try:
        with translated(path):
            found = decision(db, call_id)
    finally:
        db.close()
    if found is not None:
        return found
    db = open_current(home, url)  # not ingested yet: it may be a moment old
    try:
        with translated(path):
            return decision(db, call_id)
    finally:
        db.close()


class Reject(msgspec.Struct, frozen=True):
    """A journal record that could not be read; its bytes are in the table."""

    writer: str
    segment: int
    position: int
    reason: str
    size_bytes: int


def rejects(db: Database) -> list[Reject]:
    """All of them, in the order they were met."""
    sql = (
        "SELECT name, rejects.segment, rejects.position, reason, length(body)"
        " FROM rejects JOIN writers ON writers.id = writer"
        " ORDER BY writer, rejects.segment, rejects.position"
    )
    return [Reject(*row) for row in db.execute(sql)]
