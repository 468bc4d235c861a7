"""Whatever is recorded, and however it is cut into batches: every total is the sum of its parts."""

import contextlib
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from locavore.core.money import Cost, Usage
from locavore.core.outcome import Attempt, CallRecord
from locavore.ledger.books import verify
from locavore.ledger.ingest import Ingester
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.query import DIMENSIONS, Report, report
from locavore.ledger.store import open_store
from tests.ledger.records import NOON_S, attempt, call

tokens = st.none() | st.integers(0, 10**9)
amounts = st.decimals(0, 100, places=12, allow_nan=False)
costs = st.none() | st.builds(
    Cost, usd=st.none() | amounts, estimated=st.booleans(), source=st.just("test")
)
usages = st.none() | st.builds(
    Usage, input_tokens=tokens, output_tokens=tokens, cache_read_tokens=tokens
)
places: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"backend": "home/small", "provider": "vllm", "place": "on_prem"},
        {"backend": "openai/gpt", "provider": "openai", "place": "public_api"},
    ]
)
faults: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"status": 200, "fault": None},
        {"status": 200, "fault": "truncated"},
        {"status": 429, "fault": "rate_limited"},
        {"status": None, "fault": "connect"},
        {"status": None, "fault": "reset"},
    ]
)


@st.composite
def attempts(draw: st.DrawFn) -> Attempt:
    where: dict[str, Any] = draw(places)
    how: dict[str, Any] = draw(faults)
    return attempt(0, usage=draw(usages), cost=draw(costs), **where, **how)


@st.composite
def records(draw: st.DrawFn) -> list[CallRecord]:
    made = draw(st.lists(st.lists(attempts(), max_size=3), max_size=8))
    return [
        call(
            f"d{n}",
            started_s=NOON_S + draw(st.integers(-40, 40)) * 3600.0,
            outcome=draw(st.sampled_from(["served", "failed", "refused", "cancelled"])),
            key_name=draw(st.sampled_from([None, "k1", "k2"])),
            baseline_cost=draw(costs),
            attempts=tuple(tries),
        )
        for n, tries in enumerate(made)
    ]


def ingested(home: Path, calls: list[CallRecord], batch: int) -> dict[str, Report]:
    journal = SegmentJournal(home, segment_bytes=4096)
    for record in calls:
        journal.append(record)
    journal.close()
    ingester = Ingester(home, batch=batch)
    assert ingester.run_once() == len(calls)
    ingester.close()
    with contextlib.closing(open_store(home)) as db:
        assert verify(db).problems == ()
        return {by: report(db, by=by) for by in DIMENSIONS}


def unbilled(made: Attempt) -> bool:
    return made.fault == "connect" or (made.status or 0) >= 400


@settings(max_examples=40, deadline=None)
@given(calls=records(), batch=st.integers(1, 5))
def test_ledger_totals_are_the_sum_of_attempts(calls: list[CallRecord], batch: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        found = ingested(Path(home), calls, batch)
    tries = [made for record in calls for made in record.attempts]
    known = [made.cost.usd for made in tries if made.cost and made.cost.usd is not None]
    unknown = [
        made
        for made in tries
        if (made.cost is None or made.cost.usd is None) and not unbilled(made)
    ]
    for one in found.values():
        total = one.total
        assert total.cost_usd == sum(known, Decimal(0))
        assert total.unknown_cost == len(unknown)
        assert (total.calls, total.attempts) == (len(calls), len(tries))
        assert total.served + total.failed + total.refused + total.cancelled == len(calls)
        assert total.input_tokens == sum((t.usage and t.usage.input_tokens) or 0 for t in tries)
        assert total.cost_usd == sum((line.cost_usd for line in one.lines), Decimal(0))
        assert total.attempts == sum(line.attempts for line in one.lines)
        assert total.calls == sum(line.calls for line in one.lines)
