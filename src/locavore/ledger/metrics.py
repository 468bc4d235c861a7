"""What Prometheus is told about calls, counted in the transaction that books them.

So a call is in a histogram exactly once, whoever ingests it, and a restart loses nothing. Buckets
are those of OpenTelemetry's GenAI semantic conventions ("Semantic conventions for generative AI
metrics", status Development, read 2026-11); durations are whole milliseconds, as in the books.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any

import msgspec

from locavore.ledger.database import Database
from locavore.ledger.groups import Entry, Group, Hopped, Table, columns
from locavore.ledger.rows import ATTEMPT_COLUMNS, CALL_COLUMNS, Row, SlimConsidered

DURATION_MS = tuple(10 * 2**n for n in range(14))
"""10 ms to 81.92 s."""
TTFT_MS = (1, 5, 10, 20, 40, 60, 80, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10_000)
TPOT_MS = (10, 25, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 2500)
TOKENS = tuple(4**n for n in range(14))
EDGES: dict[str, tuple[int, ...]] = {
    "request_duration": DURATION_MS,
    "operation_duration": DURATION_MS,
    "time_to_first_token": TTFT_MS,
    "time_per_output_token": tuple(1000 * edge for edge in TPOT_MS),
    "token_usage": TOKENS,
}
"""Histogram -> upper edges: milliseconds, microseconds for one token, tokens."""
COUNTERS = ("retry", "fallback", "escalation", "decision")
TOTAL = -1
"""Bucket of the row that holds a histogram's count and sum."""

_BUCKET: dict[str, Callable[[int], int]] = {
    # The books cut milliseconds off, so a value below an edge is one that is cut to less than it.
    name: partial(bisect_left if name == "token_usage" else bisect_right, edges)
    for name, edges in EDGES.items()
}
_KIND = ATTEMPT_COLUMNS.index("kind")
_FAULT = ATTEMPT_COLUMNS.index("fault")
_WHO = itemgetter(ATTEMPT_COLUMNS.index("provider"), ATTEMPT_COLUMNS.index("model"))
_STREAM = CALL_COLUMNS.index("stream")
_PACE = itemgetter(*map(ATTEMPT_COLUMNS.index, ("ttft_ms", "duration_ms", "output_tokens")))
_FORMAT_AT = 5
"""In a group's key."""
_UPSERT = (
    "INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (name, format, provider, model, label, bucket)"
    " DO UPDATE SET n = metrics.n + excluded.n, total = metrics.total + excluded.total"
)

Who = tuple[str, str, str]
"""Format, provider, model."""
Key = tuple[str, str, str, str, str, int]
"""Metric, `Who`, label, bucket: the key of a row."""


class Sample(msgspec.Struct, frozen=True):
    """One row: how often, and the sum of what was observed."""

    name: str
    format: str
    provider: str
    model: str
    label: str
    bucket: int
    n: int
    total: int


Added = dict[Key, list[int]]


def write_metrics(tables: list[Table], hopped: Iterable[Hopped], db: Database) -> None:
    """Add to the store, inside the caller's transaction."""
    added: Added = {}
    decided: Counter[SlimConsidered | None] = Counter()
    for table in tables:
        group = table.group
        who = _who(table.key[_FORMAT_AT], group)
        if group.calls:
            _observe_calls(added, who, table.calls)
            _observe_streams(added, who, group.calls)
            decided.update([entry.chosen for entry in group.calls])
        if group.attempts:
            _observe_attempts(added, who, table)
    for chosen, n in decided.items():
        added.setdefault(_decision(chosen), [0, 0])[0] += n
    for format_, attempts in hopped:
        for hop in _hops(format_, attempts):
            added.setdefault(hop, [0, 0])[0] += 1
    db.executemany(_UPSERT, [(*key, *row) for key, row in added.items()])


def _who(format_: str, group: Group) -> Who:
    """All attempts of a group went to one backend, which has one provider and model."""
    return (format_, *(_WHO(group.attempts[0]) if group.attempts else ("", "")))


def _decision(chosen: SlimConsidered | None) -> Key:
    """Where it sent the call, as provider, and the code that says why, as label."""
    if chosen is None:
        return ("decision", "", "", "", "no_backend", 0)
    place = "" if chosen.verdict == "excluded" else chosen.place
    reason = chosen.reasons[0].partition(":")[0] if chosen.reasons else "no_other"
    return ("decision", "", place, "", reason, 0)


def _hops(format_: str, attempts: Sequence[Row]) -> Iterator[Key]:
    """Why each further attempt was made: the fault of the one before it."""
    for before, attempt in pairwise(attempts):
        if (kind := str(attempt[_KIND])) in COUNTERS:
            yield (kind, format_, *_WHO(attempt), str(before[_FAULT] or "doubt"), 0)


def _observe_calls(added: Added, who: Who, found: dict[str, Any]) -> None:
    outcomes, durations = found["outcome"], found["duration_ms"]
    for outcome in set(outcomes):
        took = durations
        if outcomes.count(outcome) < len(outcomes):
            took = [ms for ms, o in zip(durations, outcomes, strict=True) if o == outcome]
        _observe(added, "request_duration", who, "" if outcome == "served" else outcome, took)


def _observe_attempts(added: Added, who: Who, table: Table) -> None:
    faults = set(table.attempts["fault"])
    for fault in faults:
        found = table.attempts
        if len(faults) > 1:
            chosen = [row for row in table.group.attempts if row[_FAULT] == fault]
            found = columns(ATTEMPT_COLUMNS, chosen)
        label = "" if fault is None else str(fault)
        _observe(added, "operation_duration", who, label, found["duration_ms"])
        for kind in ("input", "output"):
            known = [n for n in found[f"{kind}_tokens"] if n is not None]
            _observe(added, "token_usage", who, kind, known)


def _observe_streams(added: Added, who: Who, calls: list[Entry]) -> None:
    """When the tokens of served streams came; a whole answer has no first one."""
    streams: list[Any] = [
        _PACE(entry.answer)
        for entry in calls
        if entry.call[_STREAM] and entry.answer is not None and entry.answer[_FAULT] is None
    ]
    told = [row for row in streams if row[0] is not None]
    _observe(added, "time_to_first_token", who, "", [ttft for ttft, _, _ in told])
    paces = [
        (duration - ttft) * 1000 // (tokens - 1)
        for ttft, duration, tokens in told
        if tokens is not None and tokens > 1
    ]
    _observe(added, "time_per_output_token", who, "", paces)


def _observe(added: Added, name: str, who: Who, label: str, values: Sequence[int]) -> None:
    """One histogram's observations; the total first, then each bucket for itself."""
    if not values:
        return
    total = added.setdefault((name, *who, label, TOTAL), [0, 0])
    total[0] += len(values)
    total[1] += sum(values)
    for bucket, n in Counter(map(_BUCKET[name], values)).items():
        added.setdefault((name, *who, label, bucket), [0, 0])[0] += n


def samples(db: Database) -> list[Sample]:
    """Everything counted so far, in the order of its key."""
    rows: Iterable[Any] = db.execute(
        "SELECT name, format, provider, model, label, bucket, n, total FROM metrics"
    ).fetchall()
    return sorted((Sample(*row) for row in rows), key=msgspec.structs.astuple)


def meters(db: Database) -> dict[str, int]:
    """Energy meter -> joules at its newest reading. Counters, which may begin anew."""
    newest = "SELECT max(at_ms) FROM energy AS e WHERE e.meter = energy.meter"
    sql = f"SELECT meter, joules FROM energy WHERE at_ms = ({newest}) ORDER BY meter"  # noqa: S608
    return dict(db.execute(sql).fetchall())
