"""What does the ledger cost? Append on the request path, ingestion off it, reports at size.

    python -m benchmarks.ledger.journal_and_store [--entries 10000000] [--postgres URL]

CPU time, because the machine is shared. `--entries` fills the kept sums and the calls table with
synthetic history by SQL, then ingests real records into it and asks for reports.
"""

import argparse
import contextlib
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from locavore.core.decision import Considered, Decision, Facts
from locavore.core.estimate import Estimate
from locavore.core.money import Cost, Usage
from locavore.core.outcome import Attempt, CallRecord
from locavore.ledger.ingest import Ingester
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.query import open_current, report
from locavore.ledger.sqlite import connect, store_path, transaction
from locavore.ledger.sums import DAY_S, HOUR_S, KEYS, MEASURES

START_S = 1_735_689_600
"""2025-01-01 UTC: the synthetic history is the year from here."""
YEAR_DAYS = 365
BACKENDS = ("home/small", "home/large", "openai/gpt", "anthropic/claude")


def record(n: int) -> CallRecord:
    """A call like the gateway's: four candidates, one attempt; about 1.4 KB of msgpack."""
    considered = tuple(
        Considered(
            id=backend,
            place="on_prem",
            verdict="allowed",
            reasons=("not_needed",),
            cost_usd=Decimal("0.000125"),
            quality=Estimate.exact(0.9, source="catalog"),
        )
        for backend in BACKENDS
    )
    facts = Facts(input_tokens=Estimate.exact(400, source="bytes"), output_tokens=256)
    call_id = f"{n:032x}"
    cost = Cost(usd=Decimal("0.000125"), source="config")
    return CallRecord(
        id=call_id,
        format="openai_chat",
        started_s=START_S + YEAR_DAYS * DAY_S + n / 1000,
        duration_s=0.4,
        outcome="served",
        status=200,
        decision=Decision(
            id=call_id,
            requested="auto",
            resolved="auto",
            chosen=BACKENDS[0],
            considered=considered,
            facts=facts,
            stage="route",
            posture="local_first",
        ),
        attempts=(
            Attempt(
                id="1",
                backend=BACKENDS[n % 4],
                provider="vllm",
                model="small",
                place="on_prem",
                started_s=START_S,
                status=200,
                usage=Usage(input_tokens=400, output_tokens=100),
                cost=cost,
            ),
        ),
        key_name=f"key{n % 10}",
        baseline_cost=cost,
    )


def cpu_us(action: Callable[[], object], count: int) -> float:
    """CPU microseconds per item."""
    begin = time.process_time()
    action()
    return (time.process_time() - begin) / count * 1e6


def history(db: sqlite3.Connection, entries: int) -> None:
    """`entries` calls with one attempt each, spread over a year, 4 backends and 10 keys."""
    numbers = (
        f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {entries - 1})"
    )
    step_ms = YEAR_DAYS * DAY_S * 1000 // entries
    started = f"{START_S * 1000} + i * {step_ms}"
    backend = (
        "CASE i % 4 " + " ".join(f"WHEN {n} THEN '{b}'" for n, b in enumerate(BACKENDS)) + " END"
    )
    with transaction(db):
        db.execute(
            f"INSERT INTO calls {numbers} SELECT i + 1, printf('h%031x', i), 1, NULL, {started},"
            f" 400, 'openai_chat', 0, 'served', 200, 'auto', 'chat', {backend}, '', '',"
            " 'key' || (i / 4 % 10), NULL, NULL, 1, 0, 125000000, 125000000, '' FROM n"
        )
        db.execute(
            f"INSERT INTO attempts {numbers} SELECT i + 1, 0, '1', 'first', {backend}, 'vllm', 'm',"
            f" 'on_prem', {started}, 400, 100, 200, NULL, 400, 100, NULL, NULL, NULL, NULL, NULL,"
            " 0, 125000000, 'config' FROM n"
        )
        for span_s in (HOUR_S, DAY_S):
            db.execute(
                f"INSERT INTO sums ({', '.join(KEYS + MEASURES)})"
                f" SELECT {span_s}, started_ms / {span_s * 1000}, tenant, team, key, task, format,"
                " backend, 'vllm', 'on_prem', count(*), count(*), 0, 0, 0, sum(duration_ms),"
                " count(*), 0, 0, 0, 400 * count(*), 100 * count(*), 0, 0, 0, sum(cost_pico),"
                " count(*), sum(cost_pico), sum(baseline_pico)"
                " FROM calls GROUP BY 2, key, backend"
            )


def append_all(journal: SegmentJournal, calls: list[CallRecord]) -> None:
    for call in calls:
        journal.append(call)


def measure(home: Path, records: int, entries: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"entries": entries, "records": records}
    if entries:
        with contextlib.closing(connect(store_path(home))) as db:
            history(db, entries)
            figures["sums_rows"] = db.execute("SELECT count(*) FROM sums").fetchone()[0]
    calls = [record(n) for n in range(records)]
    journal = SegmentJournal(home)
    half = records // 2
    rounds = (calls[:half], calls[half:])
    append = [cpu_us(partial(append_all, journal, part), half) for part in rounds]
    journal.close()
    figures["append_us"] = round(min(append), 2)
    ingester = Ingester(home)
    figures["ingest_us"] = round(cpu_us(ingester.run_once, records), 2)
    ingester.close()
    with contextlib.closing(open_current(home)) as db:
        for by, since in (("model", None), ("day", None), ("key", START_S + 90 * DAY_S + 1234)):
            times = [cpu_us(lambda: report(db, by=by, since_s=since), 1) / 1000 for _ in range(5)]  # noqa: B023
            name = f"report_by_{by}{'_since' if since else ''}_ms"
            figures[name] = round(statistics.median(times), 2)
    figures["store_mib"] = round(store_path(home).stat().st_size / 2**20)
    return figures


def measure_postgres(home: Path, url: str, records: int) -> dict[str, Any]:
    """CPU of this process; the server's comes on top, so wall time stands beside it."""
    journal = SegmentJournal(home)
    append_all(journal, [record(n) for n in range(records)])
    journal.close()
    ingester = Ingester(home, url=url)
    begin = time.perf_counter()
    figures: dict[str, Any] = {
        "postgres_records": records,
        "ingest_us": round(cpu_us(ingester.run_once, records), 2),
        "ingest_wall_us": round((time.perf_counter() - begin) / records * 1e6, 2),
    }
    ingester.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--postgres", help="URL of an empty database that may be written to.")
    parser.add_argument("--dir", type=Path, help="Folder for the temporary store.")
    options = parser.parse_args()
    for entries in (0, options.entries):
        with tempfile.TemporaryDirectory(dir=options.dir) as home:
            print(json.dumps(measure(Path(home), options.records, entries)))
    if options.postgres:
        with tempfile.TemporaryDirectory(dir=options.dir) as home:
            print(json.dumps(measure_postgres(Path(home), options.postgres, options.records)))


if __name__ == "__main__":
    main()
