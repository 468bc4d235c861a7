"""A ledger of any earlier schema is brought up to date, with all that was in it."""

import contextlib
import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

from locavore.ledger.books import verify
from locavore.ledger.chain import append_block
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.migrations import steps
from locavore.ledger.query import open_current, report
from locavore.ledger.savings import savings
from locavore.ledger.sqlite import PAGE_BYTES, store_path, transaction
from locavore.ledger.sums import DAY_S, HOUR_S, KEYS, MEASURES
from tests.ledger.records import NOON_S, call

EARLIER = [number for number, _ in steps()][:-1]
STARTED_MS = int(NOON_S * 1000)
CALL = (
    1, "old", 1, None, STARTED_MS, 300, "openai_chat", 0, "served", 200, "auto", "chat",
    "home/small", "", "", "bob", "ann", None, 1, 0, 125_000_000, 1_000_000_000, "",
)  # fmt: skip
ATTEMPT = (
    1, 0, "old.0", "first", "home/small", "vllm", "small", "on_prem", STARTED_MS, 250, 100, 200,
    None, 100, 20, None, None, None, None, None, 0, 125_000_000, "test 1",
)  # fmt: skip
SUMS = (
    "", "", "bob", "chat", "openai_chat", "home/small", "vllm", "on_prem", 1, 1, 0, 0, 0, 300,
    1, 0, 0, 0, 100, 20, 0, 0, 0, 125_000_000, 1, 125_000_000, 1_000_000_000,
)  # fmt: skip
SUMS_COLUMNS = ", ".join([*KEYS, *MEASURES][: 2 + len(SUMS)])


def written_by(schema: int, path: Path) -> None:
    """A ledger with one call, as the code of that schema kept it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for number, sql in steps():
            if number <= schema:
                db.executescript(sql)
        db.execute(f"PRAGMA user_version = {schema}")
        with transaction(db):
            db.execute("INSERT INTO writers VALUES (1, 'w', 1, 8)")
            db.execute(f"INSERT INTO calls VALUES ({', '.join('?' * 23)})", CALL)
            db.execute(f"INSERT INTO attempts VALUES ({', '.join('?' * 23)})", ATTEMPT)
            db.execute("INSERT INTO records VALUES (1, x'80')")
            values = ", ".join("?" * (2 + len(SUMS)))
            for span_s in (HOUR_S, DAY_S):
                key = (span_s, int(NOON_S) // span_s)
                db.execute(f"INSERT INTO sums ({SUMS_COLUMNS}) VALUES ({values})", (*key, *SUMS))
            if schema >= 3:
                append_block(db, 1, [CALL], [ATTEMPT], [b"\x80"])


@pytest.mark.parametrize("schema", EARLIER)
def test_an_earlier_ledger_keeps_what_it_had_and_goes_on(tmp_path: Path, schema: int) -> None:
    written_by(schema, store_path(tmp_path))
    journal = SegmentJournal(tmp_path)
    journal.append(call("new", key_name="bob"))
    journal.close()
    with contextlib.closing(open_current(tmp_path)) as db:
        total = report(db, by="key").total
        assert (total.calls, total.cost_usd) == (2, 2 * Decimal("0.000125"))
        assert savings(total).net_usd == 2 * Decimal("0.000875")
        assert db.execute("SELECT id, user FROM calls ORDER BY seq").fetchall() == [
            ("old", "ann"),
            ("new", None),
        ]
        # Before schema 3 there was no chain, and what came before it is not covered.
        problems = verify(db).problems
        assert problems == (() if schema >= 3 else ("1 calls are in no block",))


def test_a_new_file_has_large_pages_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    written_by(EARLIER[-1], store_path(old))
    found = []
    for home in (old, tmp_path / "new"):
        with contextlib.closing(open_current(home)) as db:
            found += db.execute("PRAGMA page_size").fetchone()
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert found == [4096, PAGE_BYTES]
