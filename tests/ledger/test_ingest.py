"""Journal to store: exactly once whatever is interleaved, and nothing dropped unseen."""

import contextlib
import shutil
import sqlite3
import tempfile
import threading
from pathlib import Path
from typing import cast

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from locavore.core.errors import StoreError
from locavore.ledger.database import Database
from locavore.ledger.frames import CALL, head_of
from locavore.ledger.ingest import Ingester
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.query import decision, find_decision, open_current, rejects, report
from locavore.ledger.sqlite import connect, store_path
from tests.ledger.records import attempt, call, usd


class ExactlyOnce(RuleBasedStateMachine):
    """Any interleaving of append, roll, death, ingestion by two parties, and their death."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.writers: list[SegmentJournal] = []
        self.ingesters = [Ingester(self.home, batch=2), Ingester(self.home, batch=3)]
        self.appended: list[str] = []

    @rule()
    def start_writer(self) -> None:
        if len(self.writers) < 3:
            self.writers.append(SegmentJournal(self.home, segment_bytes=6000))

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), count=st.integers(1, 7))
    def append(self, data: st.DataObject, count: int) -> None:
        writer = data.draw(st.sampled_from(self.writers))
        for _ in range(count):
            record = call(f"c{len(self.appended)}")
            writer.append(record)
            self.appended.append(record.id)

    @precondition(lambda self: self.writers)
    @rule(torn=st.binary(max_size=40), data=st.data())
    def kill_writer_in_mid_append(self, torn: bytes, data: st.DataObject) -> None:
        writer = data.draw(st.sampled_from(self.writers))
        # The payload is there, the head is not, or only its first bytes.
        half = head_of(CALL, torn)[: len(torn) % 8]
        at, segment = writer._at, writer._map
        assert segment is not None
        if at + 8 + len(torn) <= writer._end:
            segment[at + 8 : at + 8 + len(torn)] = torn
            segment[at : at + len(half)] = half
        writer.close()
        self.writers.remove(writer)

    @rule(who=st.sampled_from([0, 1]))
    def ingest(self, who: int) -> None:
        self.ingesters[who].run_once()

    @rule(who=st.sampled_from([0, 1]))
    def kill_ingester_in_mid_transaction(self, who: int) -> None:
        dying = self.ingesters[who]
        cast(sqlite3.Connection, dying._db).set_progress_handler(
            lambda: 1, 50
        )  # SQLite gives up in the middle
        with contextlib.suppress(StoreError):
            dying.run_once()
        dying.close()
        self.ingesters[who] = Ingester(self.home, batch=2)

    @invariant()
    def nothing_twice(self) -> None:
        with contextlib.closing(connect(store_path(self.home))) as db:
            ids = [row[0] for row in db.execute("SELECT id FROM calls")]
        assert len(ids) == len(set(ids))
        assert set(ids) <= set(self.appended)

    def teardown(self) -> None:
        for writer in self.writers:
            writer.close()
        with contextlib.closing(open_current(self.home)) as db:
            ids = {row[0] for row in db.execute("SELECT id FROM calls")}
            assert ids == set(self.appended)
            assert report(db).total.calls == len(self.appended)
            assert rejects(db) == []
        for ingester in self.ingesters:
            ingester.close()
        assert list((self.home / "journal").glob("*")) == []
        shutil.rmtree(self.home)


TestExactlyOnce = ExactlyOnce.TestCase  # C83: replay is idempotent
TestExactlyOnce.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


def ingested(home: Path, *records: object) -> Database:
    journal = SegmentJournal(home)
    for record in records:
        journal.append_payload(msgspec.msgpack.encode(record))
    journal.close()
    return open_current(home)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = call("d7", attempt(0, fault="reset", status=None), attempt(1, kind="retry"))
    with contextlib.closing(ingested(tmp_path, record)) as db:
        assert decision(db, "d7") == record
        assert decision(db, "another") is None


def test_a_decision_is_found_at_once_although_nobody_has_ingested_yet(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    record = call("d8")
    journal.append(record)
    assert find_decision(tmp_path, "d8") == record
    assert find_decision(tmp_path, "d9") is None
    journal.close()


@pytest.mark.parametrize(
    "poison",
    [b"\xc1", b"\x80", msgspec.msgpack.encode(call("big", attempt(cost=usd("1e30"))))],
    ids=["no msgpack", "no call", "absurd amount"],
)
def test_what_cannot_be_read_is_kept_counted_and_holds_nothing_up(
    tmp_path: Path, poison: bytes
) -> None:
    journal = SegmentJournal(tmp_path)
    journal.append(call("before"))
    journal.append_payload(poison)
    journal.append(call("after"))
    journal.close()
    with contextlib.closing(open_current(tmp_path)) as db:
        assert [row[0] for row in db.execute("SELECT id FROM calls ORDER BY seq")] == [
            "before",
            "after",
        ]
        assert db.execute("SELECT body FROM rejects").fetchall() == [(poison,)]
        assert report(db).rejects == 1
        assert rejects(db)[0].size_bytes == len(poison)


def test_an_unknown_kind_of_frame_is_kept(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    journal.append_payload(b"from the future", kind=7)
    journal.close()
    with contextlib.closing(open_current(tmp_path)) as db:
        assert rejects(db)[0].reason == "unknown kind 7"


def test_ingested_segments_are_deleted_while_the_writer_lives(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path, segment_bytes=8192)
    for n in range(50):
        journal.append(call(f"c{n}"))
    open_current(tmp_path).close()
    assert len(list(tmp_path.glob("journal/*/*.seg"))) == 1
    journal.append(call("one more"))
    journal.close()
    with contextlib.closing(open_current(tmp_path)) as db:
        assert report(db).total.calls == 51


def test_c80_a_locked_store_is_an_error_in_bounded_time_and_loses_nothing(tmp_path: Path) -> None:
    connect(store_path(tmp_path)).close()
    journal = SegmentJournal(tmp_path)
    journal.append(call())
    journal.close()
    ingester = Ingester(tmp_path)
    ingester._db.execute("PRAGMA busy_timeout = 10")
    with contextlib.closing(sqlite3.connect(store_path(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            ingester.run_once()
        other.execute("ROLLBACK")
    assert ingester.run_once() == 1
    ingester.close()


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with contextlib.closing(connect(store_path(tmp_path))) as db:
        db.execute("PRAGMA user_version = 9999")
    with pytest.raises(StoreError, match="newer"):
        connect(store_path(tmp_path))


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    store_path(tmp_path).write_bytes(b"not a database, but long enough to look like one" * 20)
    with pytest.raises(StoreError, match="not a database"):
        connect(store_path(tmp_path))


def test_the_thread_ingests_and_stop_takes_the_rest(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    ingester = Ingester(tmp_path, interval_s=0.001)
    first = threading.Event()
    cast(sqlite3.Connection, ingester._db).set_trace_callback(
        lambda sql: first.set() if "INTO calls" in sql else None
    )
    ingester.start()
    journal.append(call("a"))
    assert first.wait(10)
    journal.append(call("b"))
    journal.close()
    ingester.stop()
    assert ingester.failure is None
    with contextlib.closing(connect(store_path(tmp_path))) as db:
        assert db.execute("SELECT count(*) FROM calls").fetchone() == (2,)
