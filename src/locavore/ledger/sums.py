"""Sums by hour and by day, collected per batch in memory and added to the store once.

Tokens, attempts and money stand under the backend of each attempt; calls, their outcome and the
comparison with the baseline stand under the backend that came last.
"""

from locavore.ledger.database import Database
from locavore.ledger.rows import Money, SlimAttempt, SlimCall, final_attempt, final_backend

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
ATTEMPT_MEASURES = (
    "attempts",
    "unknown_cost",
    "missing_usage",
    "estimated",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_pico",
)
BASELINE_MEASURES = ("compared", "compared_cost_pico", "baseline_pico")
MEASURES = CALL_MEASURES + ATTEMPT_MEASURES + BASELINE_MEASURES
OUTCOMES = ("served", "failed", "refused", "cancelled")

_UPSERT = (
    f"INSERT INTO sums ({', '.join(KEYS + MEASURES)})"  # noqa: S608 - names from the tuples above
    f" VALUES ({', '.join('?' * len(KEYS + MEASURES))})"
    f" ON CONFLICT ({', '.join(KEYS)}) DO UPDATE SET "
    + ", ".join(f"{name} = sums.{name} + excluded.{name}" for name in MEASURES)
)
_ATTEMPTS_AT = len(CALL_MEASURES)
_BASELINE_AT = _ATTEMPTS_AT + len(ATTEMPT_MEASURES)

Key = tuple[int, str, str, str, str, str, str, str, str]
"""Hour, then tenant to place."""


class Sums:
    """What one batch adds."""

    def __init__(self) -> None:
        self._by_hour: dict[Key, list[int]] = {}

    def add(self, call: SlimCall, costs: list[int | None], money: Money) -> None:
        """Count one call and its attempts. What a call caused beside it is no call of a client:
        its attempts count, and what they cost stands against the savings."""
        final = final_attempt(call)
        row = self._row(call, final)
        if call.parent_id is not None:
            row[_BASELINE_AT + 1] += money.known_pico
        else:
            row[0] += 1
            if call.outcome in OUTCOMES:
                row[1 + OUTCOMES.index(call.outcome)] += 1
            row[5] += int(call.duration_s * 1000)
        for attempt, cost in zip(call.attempts, costs, strict=True):
            _add_attempt(row if attempt is final else self._row(call, attempt), attempt, cost)
        if money.baseline_pico is not None and money.unknown == 0 and call.parent_id is None:
            row[_BASELINE_AT] += 1
            row[_BASELINE_AT + 1] += money.known_pico
            row[_BASELINE_AT + 2] += money.baseline_pico

    def _row(self, call: SlimCall, attempt: SlimAttempt | None) -> list[int]:
        key = (
            int(call.started_s) // HOUR_S,
            call.tenant or "",
            call.team or "",
            call.key_name or "",
            call.decision.facts.task,
            call.format,
            attempt.backend if attempt else final_backend(call),
            attempt.provider if attempt else "",
            attempt.place if attempt else "",
        )
        row = self._by_hour.get(key)
        if row is None:
            row = self._by_hour[key] = [0] * len(MEASURES)
        return row

    def write(self, db: Database) -> None:
        """Add to the store, inside the caller's transaction."""
        by_day: dict[Key, list[int]] = {}
        for key, row in self._by_hour.items():
            day = (key[0] * HOUR_S // DAY_S, *key[1:])
            old = by_day.get(day)
            by_day[day] = row if old is None else [a + b for a, b in zip(old, row, strict=True)]
        db.executemany(_UPSERT, [(HOUR_S, *key, *row) for key, row in self._by_hour.items()])
        db.executemany(_UPSERT, [(DAY_S, *key, *row) for key, row in by_day.items()])


def _add_attempt(row: list[int], attempt: SlimAttempt, cost: int | None) -> None:
    usage, at = attempt.usage, _ATTEMPTS_AT
    row[at] += 1
    if cost is None:
        row[at + 1] += 1
    else:
        row[at + 9] += cost
    if usage.input_tokens is None and usage.output_tokens is None:
        row[at + 2] += 1
    row[at + 3] += usage.estimated or attempt.cost.estimated
    row[at + 4] += usage.input_tokens or 0
    row[at + 5] += usage.output_tokens or 0
    row[at + 6] += usage.cache_read_tokens or 0
    row[at + 7] += usage.cache_write_tokens or 0
    row[at + 8] += usage.reasoning_tokens or 0
