"""Old records and named people go; the books stay and hold."""

import contextlib
import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from locavore.cli import main
from locavore.ledger import retention
from locavore.ledger.books import verify
from locavore.ledger.database import Database
from locavore.ledger.focus import COLUMNS, write_focus
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.query import decision, open_current, report
from locavore.ledger.retention import erase, prune
from locavore.ledger.sqlite import store_path
from tests.ledger.records import NOON_S, attempt, call

DAY_S = 86_400


def write(home: Path, count: int) -> None:
    journal = SegmentJournal(home)
    for n in range(count):
        journal.append(
            call(
                f"d{n}",
                attempt(0, cost=None, usage=None, fault="reset", status=None)
                if n % 5 == 4
                else attempt(0),
                started_s=NOON_S + n * DAY_S,
                user="ann-smith" if n % 2 else "bob-jones",
                session=f"session-{n}",
                key_name="k",
                tenant="acme",
            )
        )
    journal.close()


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Database]:
    write(tmp_path, 10)
    with contextlib.closing(open_current(tmp_path)) as db:
        yield db


def test_c82_pruning_drops_old_records_and_no_amount(books: Database) -> None:
    before = report(books).total
    assert prune(books, before_s=NOON_S + 4 * DAY_S) == 4
    assert decision(books, "d3") is None
    assert decision(books, "d4") is not None
    assert report(books).total == before
    audit = verify(books)
    assert (audit.problems, audit.erased) == ((), 4)


def test_c82_pruning_takes_constant_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 50)
    write(tmp_path, 600)
    with contextlib.closing(open_current(tmp_path)) as db:
        tracemalloc.start()
        try:
            assert prune(db, before_s=NOON_S + 100 * DAY_S) == 100
            few = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            assert prune(db, before_s=NOON_S + 600 * DAY_S) == 500
            assert tracemalloc.get_traced_memory()[1] < few + 100_000
        finally:
            tracemalloc.stop()


def test_c95_an_erased_person_is_in_no_file(books: Database, tmp_path: Path) -> None:
    before = report(books).total
    assert erase(books, user="ann-smith") == 5
    assert report(books).total == before
    assert verify(books).problems == ()
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"ann-smith" not in kept
    assert b"session-3" not in kept
    assert b"bob-jones" in kept
    assert erase(books, session="session-4") == 1
    assert erase(books, user="ann-smith") == 0
    with pytest.raises(ValueError, match="user or a session"):
        erase(books)


def test_focus_rows_add_up_and_name_what_is_unknown(books: Database) -> None:
    out = io.StringIO()
    assert write_focus(books, out) == 10
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert tuple(rows[0]) == COLUMNS
    assert sum(Decimal(row["BilledCost"]) for row in rows) == report(books).total.cost_usd
    first = rows[0]
    assert (first["ChargePeriodStart"], first["ChargePeriodEnd"]) == (
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
    )
    assert (first["BillingPeriodStart"], first["BillingPeriodEnd"]) == (
        "2026-01-01T00:00:00Z",
        "2026-02-01T00:00:00Z",
    )
    assert (first["BillingAccountId"], first["ConsumedQuantity"]) == ("acme", "120")
    unknown = [json.loads(row["Tags"])["locavore:attempts_of_unknown_cost"] for row in rows]
    assert unknown == ["0", "0", "0", "0", "1"] * 2


def test_focus_closes_the_year(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    journal.append(call("d", started_s=NOON_S - DAY_S))
    journal.close()
    out = io.StringIO()
    with contextlib.closing(open_current(tmp_path)) as db:
        write_focus(db, out)
    (row,) = csv.DictReader(io.StringIO(out.getvalue()))
    assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == (
        "2025-12-01T00:00:00Z",
        "2026-01-01T00:00:00Z",
    )


def run(home: Path, *args: str) -> Result:
    return CliRunner().invoke(main, [*args, "--home", str(home)])


def test_the_commands(tmp_path: Path) -> None:
    write(tmp_path, 10)
    assert "4 records deleted" in run(tmp_path, "ledger", "prune", "--before", "2026-01-05").stdout
    assert "5 calls touched" in run(tmp_path, "ledger", "erase", "--user", "ann-smith").stdout
    assert run(tmp_path, "ledger", "erase").exit_code == 2
    assert "800" in run(tmp_path, "usage", "--by", "tenant").stdout
    assert len(run(tmp_path, "usage", "--focus", "--since", "2026-01-09").stdout.splitlines()) == 3
    facts = json.loads(run(tmp_path, "usage", "--json").stdout)
    assert facts["lines"][0]["group"] == "k"
    assert store_path(tmp_path).exists()
