"""How many calls a second two workers can append while a third process takes them into the store.

Each worker appends as fast as it may, but waits while its journal is three segments ahead, so the
rate is what the ingesting process sustains.
"""

import multiprocessing
import resource
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from benchmarks.ledger.records import record
from locavore.ledger.ingest import Ingester
from locavore.ledger.journal import SegmentJournal, journal_dir

WORKERS = 2
AHEAD = 3
"""Segments."""
READY = 2000
"""Records each worker makes beforehand and appends again and again."""


def sustained(home: Path, calls: int, url: str | None = None) -> dict[str, Any]:
    """Figures for `calls` calls. CPU microseconds are per call; the ingester's is this process'."""
    context = multiprocessing.get_context("spawn")
    go, queue = context.Event(), context.Queue()
    share = calls // WORKERS
    workers = [
        context.Process(target=_append, args=(home, share, n, go, queue)) for n in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        queue.get()
    ingester = Ingester(home, url=url)
    ingester.run_once()
    before_kib = _peak_kib()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    go.set()
    taken = 0
    while taken < share * WORKERS:
        taken += ingester.run_once()
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    append_us = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    ingester.close()
    return {
        "calls": taken,
        "calls_per_s": round(taken / took_s),
        "core_share": round(cpu_s / took_s, 2),
        "ingest_cpu_us": round(cpu_s / taken * 1e6, 2),
        "append_cpu_us": round(max(append_us), 2),
        "memory_grew_mib": round((_peak_kib() - before_kib) / 1024, 1),
    }


def _append(home: Path, count: int, number: int, go: Event, queue: Any) -> None:
    journal = SegmentJournal(home)
    folder = journal_dir(home) / journal.writer
    records = [record(number * READY + n) for n in range(READY)]
    queue.put(None)
    go.wait()
    cpu_s = 0.0
    for n in range(0, count, READY):
        while len(list(folder.glob("*.seg"))) > AHEAD:
            time.sleep(0.01)
        part = records[: count - n]
        began_s = time.process_time()
        for call in part:
            journal.append(call)
        cpu_s += time.process_time() - began_s
    journal.close()
    queue.put(cpu_s / count * 1e6)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        print(sustained(Path(home), 100_000))


if __name__ == "__main__":
    main()
