"""A PostgreSQL that is silent, cut off, full or read-only: bounded, nothing lost, no restart."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from locavore.core.errors import StoreError
from locavore.ledger.books import verify
from locavore.ledger.ingest import Ingester
from locavore.ledger.keys import KeyStore
from locavore.ledger.postgres import PostgresStore
from locavore.ledger.query import report
from locavore.ledger.store import open_store
from locavore.testing import ScriptedUpstream, replies
from tests.contracts.proxy import StallingProxy, stalled
from tests.contracts.servers import Postgres
from tests.contracts.test_gateways import LEDGER, config, degraded
from tests.contracts.test_ledger_stores import ask, empty, write
from tests.e2e.serving import Serving, eventually

BOUND_S = 60.0
"""Far above the limits that the tests set, far below a hang."""
WAL_BYTES = 16 << 20


@pytest.fixture
def url(postgres_server: Postgres) -> str:
    return empty(postgres_server)


@pytest.fixture
def proxy(postgres_server: Postgres) -> Iterator[StallingProxy]:
    with StallingProxy(postgres_server.socket) as between:
        yield between


def through(proxy: StallingProxy, user: str) -> str:
    limits = "connect_timeout=4&statement_timeout=4000"
    return f"postgresql://{user}@127.0.0.1:{proxy.port}/postgres?{limits}"


def booked(home: Path, url: str) -> int:
    """Calls in the books, which hold."""
    with contextlib.closing(open_store(home, url)) as db:
        assert verify(db).problems == ()
        return report(db).total.calls


def test_c80_a_database_that_falls_silent_costs_bounded_time_and_is_found_again(
    tmp_path: Path, url: str, postgres_server: Postgres, proxy: StallingProxy
) -> None:
    ingester = Ingester(tmp_path, url=through(proxy, postgres_server.user))
    write(tmp_path, 20, "a")
    assert ingester.run_once() == 20
    write(tmp_path, 20, "b")
    with stalled(proxy):
        for _ in range(2):  # the statement, then a new connection
            begin_s = time.monotonic()
            with pytest.raises(StoreError, match="no answer within"):
                ingester.run_once()
            assert time.monotonic() - begin_s < BOUND_S
    assert ingester.run_once() == 20
    ingester.close()
    assert booked(tmp_path, url) == 40


def test_c80_a_port_that_never_answers_costs_bounded_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with pytest.raises(StoreError, match=r"no answer within 0\.2 s"):
            open_store(tmp_path, f"postgresql://u:pw@127.0.0.1:{port}/d?connect_timeout=0.2")


def test_c83_nothing_of_a_transaction_is_sent_on_another_connection(url: str) -> None:
    with contextlib.closing(PostgresStore(url)) as db:
        for _ in range(2):
            db.execute("BEGIN IMMEDIATE")
            (pid,) = db.execute("SELECT pg_backend_pid()").fetchone()
            db.execute("INSERT INTO key_changes VALUES (?)", (7,))
            ask(url, f"SELECT pg_terminate_backend({pid}, 5000)")
            eventually(db._db.is_closed, "the driver notices")
            with pytest.raises(StoreError, match="cannot be used"):
                db.execute("INSERT INTO key_changes VALUES (?)", (8,))
            assert not db.in_transaction
        assert db.execute("SELECT n FROM key_changes").fetchall() == [(0,)]
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE key_changes SET n = ?", (3,))
        db.execute("COMMIT")
        assert db.execute("SELECT n FROM key_changes").fetchall() == [(3,)]


def test_c83_connections_that_are_cut_at_any_moment_lose_nothing_and_repeat_nothing(
    tmp_path: Path, url: str, postgres_server: Postgres, proxy: StallingProxy
) -> None:
    ingester = Ingester(tmp_path, url=through(proxy, postgres_server.user), batch=5)
    write(tmp_path, 300)
    ingester.start()
    cuts = 0
    while not ingester.failure and cuts < 200:
        proxy.cut()
        cuts += 1
        time.sleep(0.005)  # how far it comes in between is the point
    ingester.stop()
    write(tmp_path, 1, "last")
    assert ingester.run_once() >= 1
    ingester.close()
    assert booked(tmp_path, url) == 301


def test_c80_a_full_disk_of_the_database_loses_nothing(
    tmp_path: Path, postgres_server: Postgres
) -> None:
    url = empty(postgres_server)
    ingester = Ingester(tmp_path, url=url)
    ingester._db.execute(
        "INSERT INTO records SELECT -g, decode(repeat('00', 1900), 'hex')"
        " FROM generate_series(1, 9500) AS g"
    )
    postgres_server.stop()
    # Room for a segment of the write-ahead log and for other tables, but this one is larger.
    postgres_server.start(largest_file_bytes=WAL_BYTES)
    try:
        write(tmp_path, 30)
        for _ in range(2):
            with pytest.raises(StoreError, match=r"connection|File too large"):
                ingester.run_once()
        assert "File too large" in _failure(ingester)
    finally:
        postgres_server.stop()
        postgres_server.start()
    assert eventually(ingester.run_once, "booked") == 30
    ingester.close()
    with contextlib.closing(open_store(tmp_path, url)) as db:
        assert db.execute("SELECT count(*) FROM calls").fetchone() == (30,)


def _failure(ingester: Ingester) -> str:
    with pytest.raises(StoreError) as caught:
        ingester.run_once()
    return caught.value.message


def test_c80_a_read_only_database_is_told_and_found_again(tmp_path: Path, url: str) -> None:
    ingester = Ingester(tmp_path, url=url)
    assert ingester.run_once() == 0
    write(tmp_path, 5)
    try:
        ask(url, "ALTER DATABASE postgres SET default_transaction_read_only = on")
        ingester._db.execute("SET default_transaction_read_only = on")
        with pytest.raises(StoreError, match="read-only"):
            ingester.run_once()
        with contextlib.closing(KeyStore(tmp_path, url=url)) as keys:  # the doors stay shut
            assert keys.compiled() == {}
    finally:
        writing = f"{url}&default_transaction_read_only=off"
        ask(writing, "ALTER DATABASE postgres RESET default_transaction_read_only")
    assert ingester.run_once() == 5  # on a new connection, of itself
    ingester.close()
    assert booked(tmp_path, url) == 5


def test_c80_a_gateway_whose_database_falls_silent_serves_and_catches_up(
    tmp_path: Path, url: str, postgres_server: Postgres, proxy: StallingProxy
) -> None:
    with ScriptedUpstream() as upstream:
        upstream.always(replies.chat())
        env = {"BOOKS": through(proxy, postgres_server.user)}
        with Serving(tmp_path, config(upstream, LEDGER), "--workers=1", env=env) as serving:
            assert serving.chat().status == 200
            with stalled(proxy):
                told: list[str] = eventually(lambda: degraded(serving), "readiness tells")
                assert "no answer within" in " ".join(told)
                assert [serving.chat().status for _ in range(5)] == [200] * 5
                assert serving.get("/health/ready").status == 200
            eventually(lambda: not degraded(serving), "works again, with no restart")
    assert booked(tmp_path, url) == 6


PASSWORDS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=4)


@given(secret=PASSWORDS)
@example(secret="00,?")
def test_c94_no_message_shows_a_part_of_the_password(secret: str) -> None:
    marked = f"Hunter2{secret}"
    for url in (
        f"postgresql://me:{marked}@127.0.0.1:1/d",
        f"postgres://{marked}:{marked}@[::1:1/d",
    ):
        with pytest.raises(StoreError) as caught:
            PostgresStore(url)
        assert "unter2" not in caught.value.message


def test_a_password_with_special_characters_is_checked_by_scram(
    tmp_path: Path, url: str, postgres_server: Postgres
) -> None:
    rules = postgres_server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"local all scrambled scram-sha-256\n{before}")
    ask(
        url, "CREATE ROLE scrambled LOGIN SUPERUSER PASSWORD 'p@ss/w:rd#?'; SELECT pg_reload_conf()"
    )
    where = f"postgres?host={postgres_server.folder}"
    try:
        with pytest.raises(StoreError, match="password authentication failed"):
            eventually(
                lambda: open_store(tmp_path, f"postgresql://scrambled:wr0ng@/{where}").close(),
                "the server has read its rules",
            )
        with contextlib.closing(
            open_store(tmp_path, f"postgresql://scrambled:p%40ss%2Fw%3Ard%23%3F@/{where}")
        ) as db:
            assert db.execute("SELECT current_user").fetchone() == ("scrambled",)
    finally:
        rules.write_text(before)
        ask(url, "DROP OWNED BY scrambled; DROP ROLE scrambled; SELECT pg_reload_conf()")
