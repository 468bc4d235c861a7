"""Sums by hour and by day, added to the store once per transaction.

Tokens, attempts and money stand under the backend of each attempt; calls, their outcome and the
comparison with the baseline stand under the backend that answered, or came last.
"""

from itertools import compress
from typing import Any

from locavore.ledger.database import Database
from locavore.ledger.groups import Group, Key, Table
from locavore.ledger.rows import ATTEMPT_COLUMNS, CALL_COLUMNS

HOUR_S, DAY_S = 3600, 86_400
KEYS = (
    "span_s",
    "bucket",
    "tenant",
    "team",
    "key",
    "task",
    "format",
    "backend",
    "provider",
    "place",
)
CALL_MEASURES = ("calls", "served", "failed", "refused", "cancelled", "duration_ms")
TOKENS = ("input", "output", "cache_read", "cache_write", "reasoning")
ATTEMPT_MEASURES = (
    "attempts",
    "unknown_cost",
    "missing_usage",
    "estimated",
    *(f"{kind}_tokens" for kind in TOKENS),
    "cost_pico",
)
BASELINE_MEASURES = (
    "compared",
    "compared_cost_pico",
    "baseline_pico",
    "retries_pico",
    "beside_pico",
    "beside_unknown",
    "exact_baseline_pico",
    "guessed_baseline_pico",
)
"""What savings are made of (`ledger.savings`): `retries` is what other attempts than the answering
one cost, `beside` what calls made for another call cost; `exact` is the baseline's part where it
served itself, `guessed` where tokens are our estimate."""
MEASURES = CALL_MEASURES + ATTEMPT_MEASURES + BASELINE_MEASURES
OUTCOMES = ("served", "failed", "refused", "cancelled")

_UPSERT = (
    f"INSERT INTO sums ({', '.join(KEYS + MEASURES)})"  # noqa: S608 - names from the tuples above
    f" VALUES ({', '.join('?' * len(KEYS + MEASURES))})"
    f" ON CONFLICT ({', '.join(KEYS)}) DO UPDATE SET "
    + ", ".join(f"{name} = sums.{name} + excluded.{name}" for name in MEASURES)
)
_COST = ATTEMPT_COLUMNS.index("cost_pico")
_ESTIMATED = ATTEMPT_COLUMNS.index("estimated")
_CALL_COST = CALL_COLUMNS.index("cost_pico")
_CALL_UNKNOWN = CALL_COLUMNS.index("unknown_cost")


def write_sums(tables: list[Table], db: Database) -> None:
    """Add to the store, inside the caller's transaction."""
    by_hour = {table.key: _summed(table) for table in tables}
    by_day: dict[Key, list[int]] = {}
    for key, row in by_hour.items():
        day = (key[0] * HOUR_S // DAY_S, *key[1:])
        old = by_day.get(day)
        by_day[day] = row if old is None else [a + b for a, b in zip(old, row, strict=True)]
    db.executemany(_UPSERT, [(HOUR_S, *key, *row) for key, row in by_hour.items()])
    db.executemany(_UPSERT, [(DAY_S, *key, *row) for key, row in by_day.items()])


def _summed(table: Table) -> list[int]:
    """In the order of `MEASURES`."""
    baseline = _of_baseline(table.calls, table.group)
    beside: list[Any] = table.group.beside
    if beside:
        baseline[4] = sum(call[_CALL_COST] for call in beside)
        baseline[5] = sum(call[_CALL_UNKNOWN] for call in beside)
        baseline[1] += baseline[4]
    return [*_of_calls(table.calls), *_of_attempts(table.attempts), *baseline]


def _of_calls(calls: dict[str, Any]) -> list[int]:
    outcomes = calls["outcome"]
    counts = [outcomes.count(outcome) for outcome in OUTCOMES]
    return [len(outcomes), *counts, sum(calls["duration_ms"])]


def _of_attempts(found: dict[str, Any]) -> list[int]:
    costs, sent, answered = found["cost_pico"], found["input_tokens"], found["output_tokens"]
    return [
        len(costs),
        costs.count(None),
        list(zip(sent, answered, strict=True)).count((None, None)) if None in sent else 0,
        sum(found["estimated"]),
        *(sum(filter(None, found[f"{kind}_tokens"])) for kind in TOKENS),
        sum(filter(None, costs)),
    ]


def _of_baseline(calls: dict[str, Any], group: Group) -> list[int]:
    """Of the calls that have a price on the baseline and no unknown cost of their own."""
    priced = zip(calls["baseline_pico"], calls["unknown_cost"], strict=True)
    kept = [baseline is not None and not unknown for baseline, unknown in priced]
    prices = list(compress(calls["baseline_pico"], kept))
    paid = sum(compress(calls["cost_pico"], kept))
    answers: list[Any] = list(compress(group.answers, kept))
    exact = list(compress(group.exact, kept))
    guessed = [
        a is not None and a[_ESTIMATED] and not e for a, e in zip(answers, exact, strict=True)
    ]
    retries = paid - sum([answer[_COST] for answer in answers if answer is not None])
    exactly, roughly = sum(compress(prices, exact)), sum(compress(prices, guessed))
    return [len(prices), paid, sum(prices), retries, 0, 0, exactly, roughly]
