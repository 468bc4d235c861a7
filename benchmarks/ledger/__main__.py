"""What does the ledger cost? Append on the request path, ingestion off it, reports, budgets.

    python -m benchmarks ledger [--entries 10000000] [--servers] [--save]

CPU time, because the machine is shared: microseconds per call. `--entries` fills the store with
synthetic history by SQL first, then ingests real records into it and asks for reports. `--servers`
starts a PostgreSQL and a Valkey of its own. `--save` writes results/ledger.json and the table in
docs/explain/money.md.
"""

import argparse
import contextlib
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.ledger import budgets
from benchmarks.ledger.records import START_S, history, record
from benchmarks.ledger.sustained import sustained
from benchmarks.ledger.table import write_page
from locavore.ledger.ingest import Ingester
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.query import open_current, report
from locavore.ledger.sqlite import connect, store_path
from locavore.ledger.sqlite_leases import SqliteLeases
from locavore.ledger.sums import DAY_S
from locavore.ledger.valkey_leases import ValkeyLeases

RESULTS = Path(__file__).with_name("results") / "ledger.json"
REPORTS: tuple[tuple[str, float | None], ...] = (
    ("model", None),
    ("day", None),
    ("key", START_S + 90 * DAY_S + 1234),
)


def cpu_us(action: Callable[[], object], count: int) -> float:
    """CPU microseconds per item."""
    begin = time.process_time()
    action()
    return (time.process_time() - begin) / count * 1e6


def spin_ns() -> float:
    """Nanoseconds per turn of a fixed loop: how fast the host is right now."""
    return min(cpu_us(lambda: [None for _ in range(100_000)], 100_000) for _ in range(5)) * 1000


def append_all(journal: SegmentJournal, calls: list[Any]) -> None:
    for call in calls:
        journal.append(call)


def at_size(entries: int, records: int, folder: Path | None) -> dict[str, Any]:
    """Append, ingest and report with `entries` calls in the store already."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        home = Path(name)
        with contextlib.closing(connect(store_path(home))) as db:
            rows = history(db, entries) if entries else 0
        calls = [record(n) for n in range(records)]
        journal = SegmentJournal(home)
        ingester = Ingester(home)
        append, ingest = [], []
        for n in range(0, records, records // 5):
            part = calls[n : n + records // 5]
            append.append(cpu_us(partial(append_all, journal, part), len(part)))
            ingest.append(cpu_us(ingester.run_once, len(part)))
        idle_us = cpu_us(lambda: [ingester.run_once() for _ in range(200)], 200)
        journal.close()
        ingester.close()
        found: dict[str, Any] = {
            "entries": entries,
            "sums_rows": rows,
            "append_us": round(min(append), 2),
            "ingest_us": round(min(ingest), 2),
            "ingest_median_us": round(statistics.median(ingest), 2),
            "idle_round_us": round(idle_us, 1),
            "store_mib": round(store_path(home).stat().st_size / 2**20),
        }
        with contextlib.closing(open_current(home)) as db:
            for by, since in REPORTS:
                ms = [cpu_us(partial(report, db, by=by, since_s=since), 1) / 1000 for _ in range(5)]
                found[f"report_by_{by}_ms"] = round(statistics.median(ms), 2)
    return found


def with_postgres(url: str, records: int, folder: Path | None) -> dict[str, Any]:
    """CPU of this process; the server's comes on top, so wall time stands beside it."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        home = Path(name)
        journal = SegmentJournal(home)
        append_all(journal, [record(n) for n in range(records)])
        journal.close()
        ingester = Ingester(home, url=url)
        begin = time.perf_counter()
        cpu = cpu_us(ingester.run_once, records)
        wall = (time.perf_counter() - begin) / records * 1e6
        ingester.close()
    return {"ingest_us": round(cpu, 2), "ingest_wall_us": round(wall, 2)}


def servers(records: int, folder: Path | None) -> dict[str, Any]:
    """The same on PostgreSQL and Valkey, started here as the contract tests start them."""
    from tests.contracts.servers import postgres, postgres_bin, valkey

    found: dict[str, Any] = {}
    if (bin_dir := postgres_bin()) is not None:
        with postgres(bin_dir) as server:
            found["postgres"] = with_postgres(server.url, records, folder)
    with valkey() as limits, tempfile.TemporaryDirectory(dir=folder) as name:
        found["valkey_budgets"] = budgets.measure(
            Path(name), lambda: ValkeyLeases(limits.url), 20_000
        )
    return found


def measured(options: argparse.Namespace) -> dict[str, Any]:
    sizes = []
    for entries in (0, 10_000, options.entries):
        sizes.append(at_size(entries, options.records, options.dir))
        print(json.dumps(sizes[-1]), file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=options.dir) as home:
        steady = [sustained(Path(home) / str(n), options.calls) for n in range(3)]
        print(json.dumps(steady), file=sys.stderr)
        own = budgets.measure(Path(home), lambda: SqliteLeases(Path(home)), 20_000)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _output("git", "rev-parse", "HEAD"),
        "machine": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "spin_ns": round(spin_ns(), 1),
            "load": os.getloadavg()[0],
        },
        "versions": {"sqlite": sqlite3.sqlite_version, "msgspec": version("msgspec")},
        "sizes": sizes,
        "sustained": max(steady, key=lambda figures: int(figures["calls_per_s"])),
        "sqlite_budgets": own,
        **(servers(options.records, options.dir) if options.servers else {}),
    }


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=50_000, help="ingested at each size")
    parser.add_argument("--entries", type=int, default=1_000_000, help="largest history")
    parser.add_argument("--calls", type=int, default=200_000, help="of the sustained run")
    parser.add_argument("--servers", action="store_true", help="PostgreSQL and Valkey too")
    parser.add_argument("--dir", type=Path, help="folder for the temporary stores")
    parser.add_argument("--save", action="store_true", help="results/ledger.json and the page")
    options = parser.parse_args()
    result = measured(options)
    if options.save:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(write_page(result, save=options.save))
    return 0


if __name__ == "__main__":
    sys.exit(main())
