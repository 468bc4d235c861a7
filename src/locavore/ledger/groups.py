"""Rows of one transaction, sorted by what reports can be broken down by.

Summing a group column by column is several times faster than counting row by row.
"""

from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import msgspec

from locavore.ledger.rows import (
    ATTEMPT_COLUMNS,
    CALL_COLUMNS,
    SAMPLE,
    Row,
    SlimConsidered,
    SlimDecision,
)

Key = tuple[Any, ...]
"""Hour since 1970, tenant, team, key, task, format, backend, provider, place."""
HOUR_MS = 3_600_000
_STARTED = CALL_COLUMNS.index("started_ms")
_PARENT = CALL_COLUMNS.index("parent_id")
_FINAL = CALL_COLUMNS.index("backend")
_OF_CALL = itemgetter(*map(CALL_COLUMNS.index, ("tenant", "team", "key", "task", "format")))
_BACKEND = ATTEMPT_COLUMNS.index("backend")
_KIND = ATTEMPT_COLUMNS.index("kind")
_OF_ATTEMPT = itemgetter(*map(ATTEMPT_COLUMNS.index, ("backend", "provider", "place")))
_NOBODY = ("", "", "")


Hopped = tuple[str, Sequence[Row]]
"""Format and attempts of a call that took more than one."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A client's call."""

    call: Row
    answer: Row | None
    """The attempt that answered, or came last."""
    exact: bool
    """The baseline served it."""
    chosen: SlimConsidered | None
    """The first candidate of its decision; excluded when nothing was left."""


class Group(msgspec.Struct, frozen=True):
    """What has one key."""

    attempts: list[Row] = []
    calls: list[Entry] = []
    """Those answered by this backend."""
    beside: list[Row] = []
    """Calls made for another call: judges, shadows. They are no calls of a client."""


class Groups(defaultdict[Key, Group]):
    """What one transaction adds."""

    def __init__(self) -> None:
        super().__init__(Group)
        self.hopped: list[Hopped] = []

    def add(self, call: Row, attempts: Sequence[Row], decision: SlimDecision) -> None:
        """Sort in one call and its attempts."""
        head: Key = (call[_STARTED] // HOUR_MS, *_OF_CALL(call))  # type: ignore[operator]
        if len(attempts) == 1:
            answer: Row | None = attempts[0]
            group = self[(*head, *_OF_ATTEMPT(attempts[0]))]
            group.attempts.append(attempts[0])
        else:
            answer, group = self._add_attempts(head, call, attempts)
        if call[_PARENT] is None:
            exact = call[_FINAL] == decision.baseline
            group.calls.append(Entry(call, answer, exact, decision.considered.first))
        else:
            group.beside.append(call)

    def _add_attempts(
        self, head: Key, call: Row, attempts: Sequence[Row]
    ) -> tuple[Row | None, Group]:
        """(the answering attempt, the group that the call belongs to)."""
        answer = None
        for attempt in attempts:
            self[(*head, *_OF_ATTEMPT(attempt))].attempts.append(attempt)
            if attempt[_BACKEND] == call[_FINAL] and (answer is None or attempt[_KIND] != SAMPLE):
                answer = attempt
        self.hopped.append((head[-1], attempts))
        return answer, self[(*head, *(_NOBODY if answer is None else _OF_ATTEMPT(answer)))]


class Table(msgspec.Struct, frozen=True):
    """A group, turned by columns."""

    key: Key
    group: Group
    calls: dict[str, Any]
    """Of the clients' calls: column -> values."""
    attempts: dict[str, Any]


def tables(groups: Groups) -> list[Table]:
    """Each group, ready to be summed."""
    return [
        Table(
            key,
            group,
            columns(CALL_COLUMNS, [entry.call for entry in group.calls]),
            columns(ATTEMPT_COLUMNS, group.attempts),
        )
        for key, group in groups.items()
    ]


def columns(names: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    """Column -> its values, in the order of the rows."""
    if not rows:
        return dict.fromkeys(names, ())
    return dict(zip(names, zip(*rows, strict=True), strict=True))
