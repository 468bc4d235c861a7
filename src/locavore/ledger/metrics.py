"""What Prometheus is told about calls, counted in the transaction that books them.

So a call is in a histogram exactly once, whoever ingests it, and a restart loses nothing. Buckets
are those of OpenTelemetry's GenAI semantic conventions ("Semantic conventions for generative AI
metrics", status Development, read 2026-11); durations are whole milliseconds, as in the books.
"""

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, pairwise
from operator import itemgetter
from typing import Any

import msgspec

from locavore.ledger.database import Database
from locavore.ledger.groups import Group, Groups, Table
from locavore.ledger.rows import ATTEMPT_COLUMNS, Row, SlimConsidered

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

_KIND = ATTEMPT_COLUMNS.index("kind")
_FAULT = ATTEMPT_COLUMNS.index("fault")
_WHO = itemgetter(ATTEMPT_COLUMNS.index("provider"), ATTEMPT_COLUMNS.index("model"))
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
Observed = defaultdict[tuple[str, Who, str], list[int]]
"""Histogram, `Who`, label -> what was observed."""


def write_metrics(tables: Iterable[Table], groups: Groups, db: Database) -> None:
    """Add to the store, inside the caller's transaction."""
    observed: Observed = defaultdict(list)
    for table in tables:
        who = _who(table.key[_FORMAT_AT], table.group)
        _observe_calls(observed, who, table.calls)
        _observe_streams(observed, who, table)
        _observe_attempts(observed, who, table.attempts)
    added: Added = {}
    for (name, who, label), values in observed.items():
        _add_histogram(added, (name, *who, label), values)
    for chosen, n in Counter(groups.chosen).items():
        added.setdefault(_decision(chosen), [0, 0])[0] += n
    for format_, attempts in groups.hopped:
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


def _observe_calls(observed: Observed, who: Who, calls: dict[str, Any]) -> None:
    for outcome, took in _split(calls["outcome"], calls["duration_ms"]):
        observed["request_duration", who, "" if outcome == "served" else outcome] += took


def _observe_attempts(observed: Observed, who: Who, attempts: dict[str, Any]) -> None:
    for fault, took in _split(attempts["fault"], attempts["duration_ms"]):
        observed["operation_duration", who, fault or ""] += took
    for kind in ("input", "output"):
        tokens = attempts[f"{kind}_tokens"]
        known = [n for n in tokens if n is not None] if None in tokens else tokens
        observed["token_usage", who, kind] += known


def _split(labels: Sequence[str | None], values: list[int]) -> Iterator[tuple[Any, list[int]]]:
    """Each label and its values; as a rule there is one."""
    found = set(labels)
    if len(found) == 1:
        yield found.pop(), values
        return
    for label in found:
        yield label, [value for value, other in zip(values, labels, strict=True) if other == label]


def _observe_streams(observed: Observed, who: Who, table: Table) -> None:
    """When the tokens of served streams came; a whole answer has no first one."""
    streams: list[Any] = [
        _PACE(answer)
        for answer in compress(table.group.answers, table.calls["stream"])
        if answer is not None and answer[_FAULT] is None
    ]
    told = [row for row in streams if row[0] is not None]
    observed["time_to_first_token", who, ""] += [ttft for ttft, _, _ in told]
    observed["time_per_output_token", who, ""] += [
        (duration - ttft) * 1000 // (tokens - 1)
        for ttft, duration, tokens in told
        if tokens is not None and tokens > 1
    ]


def _add_histogram(added: Added, head: tuple[str, str, str, str, str], values: list[int]) -> None:
    """The total, then each bucket for itself. Looking for the edges among sorted values is faster
    than looking for each value among the edges."""
    if not values:
        return
    values.sort()
    added[*head, TOTAL] = [len(values), sum(values)]
    # The books cut milliseconds off, so a value below an edge is one that is cut to less than it.
    below = bisect_right if head[0] == "token_usage" else bisect_left
    start = 0
    for bucket, edge in enumerate((*EDGES[head[0]], math.inf)):
        end = below(values, edge, start)
        if end > start:
            added[*head, bucket] = [end - start, 0]
        start = end


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
