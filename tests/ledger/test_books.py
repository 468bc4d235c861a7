"""The books hold, and show it when somebody has touched them."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from locavore.cli import main
from locavore.core.errors import RequestError
from locavore.ledger.books import correct, verify
from locavore.ledger.ingest import Ingester
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.query import open_current, report
from locavore.ledger.sqlite import connect, store_path
from tests.ledger.records import attempt, call, usd


def filled(home: Path) -> None:
    """Three writers, 30 calls, some with retries and unknown costs, in small blocks."""
    for writer in range(3):
        journal = SegmentJournal(home)
        for n in range(10):
            attempts = [attempt(k, cost=usd(f"0.00{n}{k}")) for k in range(1 + n % 3)]
            if n == 7:
                attempts.append(attempt(9, cost=None, usage=None, fault="truncated"))
            journal.append(call(f"w{writer}-{n}", *attempts, user="ann", session="s", tenant="t"))
        journal.close()
    ingester = Ingester(home, batch=4)
    assert ingester.run_once() == 30
    ingester.close()


@pytest.fixture
def books(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    filled(tmp_path)
    with contextlib.closing(connect(store_path(tmp_path))) as db:
        yield db


def test_untouched_books_hold(books: sqlite3.Connection) -> None:
    audit = verify(books)
    assert audit.problems == ()
    assert (audit.calls, audit.blocks, len(audit.heads)) == (30, 9, 3)
    assert audit.balance_pico == 0


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE attempts SET cost_pico = cost_pico + 1 WHERE seq = 3 AND n = 0",
        "UPDATE calls SET cost_pico = 0 WHERE seq = 12",
        "UPDATE calls SET key = 'somebody else' WHERE seq = 30",
        "UPDATE records SET body = x'00' WHERE seq = 5",
        "DELETE FROM calls WHERE seq = 17",
        "DELETE FROM attempts WHERE seq = 30",
        "INSERT INTO calls SELECT 31, 'extra', writer, parent_id, started_ms, duration_ms, format,"
        " stream, outcome, status, requested, task, backend, tenant, team, key, user, session,"
        " attempts, unknown_cost, cost_pico, baseline_pico, flags FROM calls WHERE seq = 30",
        "UPDATE sums SET cost_pico = cost_pico - 1 WHERE span_s = 86400",
        "UPDATE blocks SET rows_hash = zeroblob(32) WHERE writer = 1 AND n = 2",
        "DELETE FROM blocks WHERE writer = 2 AND n = 1",
        "UPDATE blocks SET hash = zeroblob(32) WHERE writer = 3 AND n = 3",
    ],
)
def test_tampering_shows(books: sqlite3.Connection, tampering: str) -> None:
    books.execute(tampering)
    assert verify(books).problems != ()


def test_a_forger_who_recomputes_nothing_behind_the_block_is_caught_by_the_next_block(
    books: sqlite3.Connection,
) -> None:
    books.execute("UPDATE blocks SET rows_hash = zeroblob(32), hash = zeroblob(32) WHERE n = 1")
    assert any("does not follow" in problem for problem in verify(books).problems)


def test_missing_newest_blocks_show_against_an_earlier_audit(books: sqlite3.Connection) -> None:
    anchors = verify(books).heads
    for table in ("calls", "attempts", "records"):
        books.execute(f"DELETE FROM {table} WHERE seq > 28")
    books.execute("DELETE FROM blocks WHERE last_seq > 28")
    books.execute("DELETE FROM sums")
    problems = verify(books, anchors=anchors).problems
    assert any("earlier audit is gone" in problem for problem in problems)


def test_erasing_a_person_breaks_no_chain(books: sqlite3.Connection) -> None:
    books.execute("DELETE FROM records WHERE seq < 10")
    books.execute("UPDATE calls SET user = NULL, session = NULL")
    audit = verify(books)
    assert (audit.problems, audit.erased) == ((), 9)


def test_a_correction_is_a_new_entry_that_reports_contain(books: sqlite3.Connection) -> None:
    before = report(books).total
    known = correct(books, "w0-1", 0, Decimal("0.0110"), reason="invoice says so")
    assert known == Decimal("0.010")
    (unknown_at,) = books.execute(
        "SELECT n FROM attempts JOIN calls USING (seq)"
        " WHERE calls.id = 'w1-7' AND attempts.cost_pico IS NULL"
    ).fetchone()
    assert correct(books, "w1-7", unknown_at, Decimal("0.5"), reason="invoice") == Decimal("0.5")
    assert correct(books, "w1-7", unknown_at, Decimal("0.4"), reason="no") == Decimal("-0.1")
    after = report(books).total
    assert after.cost_usd - before.cost_usd == Decimal("0.410")
    assert after.unknown_cost == before.unknown_cost - 1
    assert after.calls == before.calls
    audit = verify(books)
    assert (audit.problems, audit.corrections, audit.balance_pico) == ((), 3, 0)


def test_a_changed_correction_shows(books: sqlite3.Connection) -> None:
    correct(books, "w0-1", 0, Decimal("0.011"), reason="a")
    correct(books, "w0-2", 0, Decimal("0.011"), reason="b")
    books.execute("UPDATE corrections SET reason = 'c' WHERE n = 1")
    assert any("correction 1" in problem for problem in verify(books).problems)


def test_a_correction_of_nothing_is_refused(books: sqlite3.Connection) -> None:
    with pytest.raises(RequestError, match="no attempt 5"):
        correct(books, "w0-1", 5, Decimal(1), reason="x")
    with pytest.raises(RequestError, match="cannot be right"):
        correct(books, "w0-1", 0, Decimal("1e9"), reason="x")


def test_every_entry_has_its_counterpart(books: sqlite3.Connection) -> None:
    rows = books.execute("SELECT account, sum(pico) FROM entries GROUP BY account").fetchall()
    totals = dict(rows)
    assert totals["expense:t//"] == -totals["payable:vllm"] > 0


def run(home: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["ledger", *args, "--home", str(home)])


def test_the_commands_verify_and_correct(tmp_path: Path) -> None:
    filled(tmp_path)
    audit = run(tmp_path, "verify", "--json")
    assert audit.exit_code == 0
    kept = tmp_path / "audit.json"
    kept.write_text(audit.stdout)
    booked = run(tmp_path, "correct", "w0-1", "--usd", "0.5", "--reason", "invoice")
    assert "booked +0.499 USD" in booked.stdout
    assert "the books hold" in run(tmp_path, "verify", "--against", str(kept)).stdout
    with contextlib.closing(open_current(tmp_path)) as db:
        db.execute("UPDATE attempts SET cost_pico = 0 WHERE seq = 2")
    touched = run(tmp_path, "verify")
    assert touched.exit_code == 1
    assert "rows were changed" in touched.stderr


def test_the_commands_name_what_is_wrong(tmp_path: Path) -> None:
    filled(tmp_path)
    no_audit = tmp_path / "x.json"
    no_audit.write_text(json.dumps([1]))
    assert "is no audit" in run(tmp_path, "verify", "--against", str(no_audit)).output
    assert "'ten'" in run(tmp_path, "correct", "w0-1", "--usd", "ten", "--reason", "r").output
    missing = run(tmp_path, "correct", "nobody", "--usd", "1", "--reason", "r")
    assert "no attempt 0" in missing.output
