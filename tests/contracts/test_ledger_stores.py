"""What every ledger store promises, run against each: a SQLite file, a PostgreSQL server."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import asyncpg
import msgspec
import pytest
from click.testing import CliRunner

from locavore.cli import main
from locavore.core.access import Grant, fingerprint
from locavore.core.errors import StoreError
from locavore.core.outcome import CallRecord
from locavore.ledger.books import correct, verify
from locavore.ledger.database import Database
from locavore.ledger.ingest import Ingester
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.keys import KeyStore
from locavore.ledger.postgres import PostgresStore
from locavore.ledger.query import DIMENSIONS, decision, find_decision, open_current, rejects, report
from locavore.ledger.store import open_store
from locavore.telemetry import unsent
from tests.contracts.servers import Postgres
from tests.ledger.records import NOON_S, attempt, call, usd
from tests.ledger.records import decision as decided

DAY_S = 86_400


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "sqlite":
        return None
    return empty(request.getfixturevalue("postgres_server"))


def empty(server: Postgres) -> str:
    ask(server.url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return server.url


def ask(url: str, sql: str) -> None:
    """On a connection of its own."""

    async def on_its_own() -> None:
        db = await asyncpg.connect(url)
        await db.execute(sql)
        await db.close()

    asyncio.run(on_its_own())


def write(home: Path, count: int = 10, name: str = "d") -> None:
    journal = SegmentJournal(home, segment_bytes=8192)
    for n in range(count):
        attempts = (attempt(0, cost=None, fault="reset", status=None, usage=None), attempt(1))
        journal.append(
            call(
                f"{name}{n}",
                *attempts[n % 2 :],
                started_s=NOON_S + n * DAY_S / 4,
                user='it\'s "ann" ü %s ? $1',
                key_name=f"k{n % 3}",
            )
        )
    journal.close()


@pytest.fixture
def books(tmp_path: Path, url: str | None) -> Iterator[Database]:
    write(tmp_path)
    with contextlib.closing(open_current(tmp_path, url)) as db:
        yield db


def test_every_breakdown_is_exact(books: Database) -> None:
    for by in DIMENSIONS:
        found = report(books, by=by, since_s=NOON_S)
        assert found.total.calls == sum(line.calls for line in found.lines) == 10
        assert found.total.cost_usd == 10 * Decimal("0.000125")
        assert found.total.unknown_cost == 5
    days = [line.group for line in report(books, by="day").lines]
    assert days == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_a_record_comes_back_as_it_was_written(
    books: Database, tmp_path: Path, url: str | None
) -> None:
    found = decision(books, "d3")
    assert found is not None
    assert (found.id, found.user) == ("d3", 'it\'s "ann" ü %s ? $1')
    assert find_decision(tmp_path, "d3", url=url) == found
    assert decision(books, "d99") is None


def test_the_books_hold_and_show_tampering(books: Database) -> None:
    audit = verify(books)
    assert (audit.problems, audit.calls, audit.balance_pico) == ((), 10, 0)
    assert correct(books, "d0", 0, Decimal("0.5"), reason="invoice") == Decimal("0.5")
    assert correct(books, "d0", 1, Decimal("0.0001"), reason="refund") == Decimal("-0.000025")
    assert verify(books).problems == ()
    assert report(books).total.unknown_cost == 4
    books.execute("UPDATE attempts SET cost_pico = 1 WHERE seq = 3")
    assert any("rows were changed" in problem for problem in verify(books).problems)


def test_two_ingesters_take_each_record_once(tmp_path: Path, url: str | None) -> None:
    for name in "abc":
        write(tmp_path, 100, name)
    ingesters = [Ingester(tmp_path, url=url, batch=7) for _ in range(2)]
    threads = [threading.Thread(target=ingester.run_once) for ingester in ingesters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ingester in ingesters:
        ingester.close()
    with contextlib.closing(open_store(tmp_path, url)) as db:
        ids = [row[0] for row in db.execute("SELECT id FROM calls").fetchall()]
        assert len(ids) == len(set(ids)) == 300
        assert verify(db).problems == ()


def test_what_cannot_be_read_is_kept(tmp_path: Path, url: str | None) -> None:
    journal = SegmentJournal(tmp_path)
    journal.append_payload(b"\x80\x00 no call")
    journal.append(call("after", attempt(cost=usd("9999"))))
    journal.close()
    with contextlib.closing(open_current(tmp_path, url)) as db:
        assert [reject.size_bytes for reject in rejects(db)] == [10]
        assert report(db).total.cost_usd == 9999


def test_a_nul_in_a_name_from_a_client_does_not_stop_the_books(
    tmp_path: Path, url: str | None
) -> None:
    journal = SegmentJournal(tmp_path)
    asked = decided("nul", requested="gpt\0x", chosen="gpt\0x")
    made = call("nul", attempt(backend="cloud/gpt\0x", model="gpt\0x"), decision=asked)
    journal.append(msgspec.structs.replace(made, user="a\0b", session="\0"))
    journal.append(call("after"))
    journal.close()
    with contextlib.closing(open_current(tmp_path, url)) as db:
        rows = db.execute('SELECT requested, "user", session FROM calls ORDER BY seq').fetchall()
        assert rows[0] == ("gpt\ufffdx", "a\ufffdb", "\ufffd")
        assert {line.group for line in report(db).lines} == {"cloud/gpt\ufffdx", "home/small"}
        found = decision(db, "nul")
        assert found is not None
        assert found.user == "a\0b"
        assert (rejects(db), verify(db).problems) == ([], ())


def test_each_record_is_claimed_once_by_whoever_tells_it(tmp_path: Path, url: str | None) -> None:
    write(tmp_path, 5, "before")
    with contextlib.closing(open_current(tmp_path, url)) as db:
        unsent.begin(db)
        unsent.begin(db)  # of a second gateway
        assert unsent.claim(db) == []
    write(tmp_path, 60, "after")
    open_current(tmp_path, url).close()
    taken: list[bytes] = []

    def claim() -> None:
        with contextlib.closing(open_store(tmp_path, url)) as db:
            while bodies := unsent.claim(db, 7):
                taken.extend(bodies)

    threads = [threading.Thread(target=claim) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [msgspec.msgpack.decode(body, type=CallRecord).id for body in taken]
    assert sorted(ids) == sorted(f"after{n}" for n in range(60))


def test_keys_live_where_the_ledger_lives(tmp_path: Path, url: str | None) -> None:
    with contextlib.closing(KeyStore(tmp_path, url=url)) as store:
        before = store.version()
        store.create(Grant(name="boss"))
        secret = store.create(Grant(name="bob", tenant="acme"), minter=Grant(name="boss"))
        newer = store.rotate("bob", grace_s=60)
        assert set(store.compiled()) >= {fingerprint(secret), fingerprint(newer)}
        assert [line.grant.name for line in store.list()] == ["bob", "boss"]
        assert store.list()[0].hint == newer[:6]
        store.revoke("boss")
        assert store.compiled() == {}
        assert store.version() > before


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path, url: str | None) -> None:
    with contextlib.closing(open_store(tmp_path, url)) as db:
        bump = (
            "PRAGMA user_version = 99" if url is None else "INSERT INTO schema_version VALUES (99)"
        )
        db.execute(bump)
    with pytest.raises(StoreError, match="newer"):
        open_store(tmp_path, url)


def test_c83_a_database_killed_in_mid_load_loses_nothing_and_takes_nothing_twice(
    tmp_path: Path, postgres_server: Postgres
) -> None:
    url = empty(postgres_server)
    write(tmp_path, 200)
    ingester = Ingester(tmp_path, url=url, batch=10)
    database = ingester._db
    assert isinstance(database, PostgresStore)
    database.execute("BEGIN IMMEDIATE")
    (pid,) = database.execute("SELECT pg_backend_pid()").fetchone()
    ask(url, f"SELECT pg_terminate_backend({pid}, 5000)")  # as a crash of its backend does
    with pytest.raises(StoreError):
        ingester.run_once()
    postgres_server.kill()
    with pytest.raises(StoreError, match="cannot be used"):
        ingester.run_once()
    postgres_server.start()
    assert ingester.run_once() == 200
    ingester.close()
    with contextlib.closing(open_store(tmp_path, url)) as db:
        assert report(db).total.calls == 200
        assert verify(db).problems == ()


def test_c80_a_database_that_another_one_holds_costs_bounded_time(
    tmp_path: Path, postgres_server: Postgres
) -> None:
    url = empty(postgres_server)
    write(tmp_path, 3)
    ingester = Ingester(tmp_path, url=f"{url}&statement_timeout=50")
    with contextlib.closing(PostgresStore(url)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="timeout"):
            ingester.run_once()
    assert ingester.run_once() == 3
    ingester.close()


def test_the_commands_reach_either_store(tmp_path: Path, url: str | None) -> None:
    write(tmp_path, 4)
    where = ["--home", str(tmp_path), *(["--ledger-url", url] if url else [])]
    for command in (["report"], ["ledger", "verify"], ["ledger", "show", "d1"], ["keys", "list"]):
        result = CliRunner().invoke(main, [*command, *where], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "ledger.sqlite3").exists() == (url is None)


def test_a_gateway_starts_without_its_database_and_catches_up(
    tmp_path: Path, postgres_server: Postgres
) -> None:
    url = empty(postgres_server)
    postgres_server.kill()
    ingester = Ingester(tmp_path, url=url)
    write(tmp_path, 5)
    with pytest.raises(StoreError, match="cannot be used"):
        ingester.run_once()
    postgres_server.start()
    assert ingester.run_once() == 5
    ingester.close()
