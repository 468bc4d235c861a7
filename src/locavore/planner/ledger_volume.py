"""The workload this gateway really had, from its books."""

import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from locavore.core.errors import ConfigError
from locavore.ledger.query import Report, open_current, report
from locavore.planner.workload import Workload

DAY_S = 86_400


def from_ledger(home: Path, *, since_s: float | None = None) -> dict[str, Any]:
    """Fields of a `Workload`: tokens a day, cached share, tokens of a call.

    ConfigError when the books hold no served call. Calls without known usage are not in the sums.
    """
    with closing(open_current(home)) as db:
        return measured(report(db, by="day", since_s=since_s), now=time.time())


def measured(found: Report, *, now: float) -> dict[str, Any]:
    """The same from a report by day; days run from the first call, or the start asked for."""
    total = found.total
    tokens = total.input_tokens + total.output_tokens
    if not total.served or not tokens:
        raise ConfigError(["the ledger has no served call with known tokens in this period"])
    first = datetime.fromisoformat(found.lines[0].group).replace(tzinfo=UTC).timestamp()
    start = max(first, found.since_s or 0.0)
    days = max(1.0, (now - start) / DAY_S)
    with_usage = max(1, total.attempts - total.missing_usage)
    prompt = total.input_tokens / with_usage
    answer = total.output_tokens / with_usage
    return {
        "input_tokens_day": total.input_tokens / days,
        "output_tokens_day": total.output_tokens / days,
        "cached_share": total.cache_read_tokens / max(1, total.input_tokens),
        "input_tokens_call": max(1.0, prompt),
        "output_tokens_call": max(1.0, answer),
        "context_tokens": max(8192, 2 * int(prompt + answer)),
    }


def workload(home: Path, *, since_s: float | None = None) -> Workload:
    """`from_ledger` as a workload with defaults for the rest."""
    return msgspec.convert({"name": "ledger", **from_ledger(home, since_s=since_s)}, Workload)
