"""Where the CPU time of ingestion goes, part by part.

    python -m benchmarks.ledger.parts [--records 4096] [--rounds 12]

Each part runs alone over the same calls; microseconds per call, the least of the rounds. In place
they cost more, because each finds the processor's caches full of what the part before it did.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.ledger.__main__ import cpu_us
from benchmarks.ledger.records import record
from locavore.ledger.chain import bodies_hash, rows_hash
from locavore.ledger.database import Database
from locavore.ledger.frames import Frame
from locavore.ledger.groups import Groups, tables
from locavore.ledger.journal import SegmentJournal, journal_dir
from locavore.ledger.metrics import write_metrics
from locavore.ledger.rows import Row, SlimCall, decode, rows_of
from locavore.ledger.sqlite import connect, store_path, transaction
from locavore.ledger.sums import write_sums
from locavore.ledger.tail import PART, first_position, read, writer_dirs

T = TypeVar("T")
Made = tuple[Row, list[Row]]


class Parts:
    """Runs each part often enough and prints its figure."""

    def __init__(self, records: int, rounds: int) -> None:
        self._records, self._rounds = records, rounds

    def run(self, name: str, work: Callable[[], T]) -> T:
        """What `work` gives; the least time it took goes to stdout."""
        found: list[T] = []
        took = min(cpu_us(lambda: found.append(work()), self._records) for _ in range(self._rounds))
        print(f"{name:<24}{took:6.2f}")
        return found[-1]

    def all(self, home: Path) -> None:
        payloads = self.run("read", lambda: _payloads(home))
        calls = self.run("decode", lambda: [decode(payload) for payload in payloads])
        made = self.run("rows", lambda: [rows_of(n, 1, c) for n, c in enumerate(calls, start=1)])
        rows, attempts = [row for row, _ in made], [one for _, tried in made for one in tried]
        groups = self.run("groups", lambda: _grouped(made, calls))
        turned = self.run("columns", lambda: tables(groups))
        self.run("hash of rows", lambda: [*map(rows_hash, _parts(rows), _parts(attempts))])
        self.run("hash of records", lambda: [*map(bodies_hash, _parts(payloads))])
        with contextlib.closing(connect(store_path(home))) as db:
            with transaction(db):
                self.run("sums", lambda: write_sums(turned, db))
                self.run("metrics", lambda: write_metrics(turned, groups, db))
            records: list[Row] = list(enumerate(payloads, start=1))
            self._insert(db, "calls", rows)
            self._insert(db, "attempts", attempts)
            self._insert(db, "records", records)

    def _insert(self, db: Database, table: str, rows: list[Row]) -> None:
        """Each round in a transaction of its own, with the log and its checkpoint."""
        rounds = iter([_shifted(rows, n * self._records) for n in range(self._rounds)])
        self.run(f"insert {table}", lambda: _inserted(db, table, next(rounds)))


def _payloads(home: Path) -> list[bytes]:
    (writer,) = writer_dirs(journal_dir(home))
    found = read(writer, first_position(writer), dead=False)
    return [item.payload for part in found for item in part.items if isinstance(item, Frame)]


def _grouped(made: Sequence[Made], calls: Sequence[SlimCall]) -> Groups:
    groups = Groups()
    for (row, attempts), call in zip(made, calls, strict=True):
        groups.add(row, attempts, call.decision)
    return groups


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), PART):
        yield items[start : start + PART]


def _shifted(rows: Sequence[Row], by: int) -> list[Row]:
    """The same rows with other numbers."""
    return [(int(row[0] or 0) + by, *row[1:]) for row in rows]


def _inserted(db: Database, table: str, rows: Sequence[Row]) -> None:
    sql = f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})"
    with transaction(db):
        for part in _parts(rows):
            db.executemany(sql, part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=4096, help="of one transaction")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        journal = SegmentJournal(Path(name))
        for n in range(options.records):
            journal.append(record(n))
        Parts(options.records, options.rounds).all(Path(name))
        journal.close()


if __name__ == "__main__":
    main()
