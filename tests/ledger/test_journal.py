"""The journal's two ends: what was appended is read, whole, once, and nothing else."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from locavore.core.errors import StoreError
from locavore.ledger.frames import CALL, HEAD, MAGIC, Frame, head_of
from locavore.ledger.journal import SegmentJournal, journal_dir
from locavore.ledger.tail import (
    START,
    Damage,
    Position,
    first_position,
    has_more,
    is_dead,
    read,
    writer_dirs,
)
from tests.ledger.records import call


def folder(home: Path) -> Path:
    (only,) = writer_dirs(journal_dir(home))
    return only


def items(writer: Path, start: Position = START, *, dead: bool = False) -> list[Frame | Damage]:
    return [item for part in read(writer, start, dead=dead, part=3) for item in part.items]


def payloads(home: Path) -> list[bytes]:
    writer = folder(home)
    return [item.payload for item in items(writer, dead=is_dead(writer))]


def append_raw(home: Path, data: bytes, number: int = 1) -> None:
    """Bytes behind the last frame of a segment, as a dying or a broken machine leaves them."""
    writer = folder(home)
    end = len(MAGIC)
    for part in read(writer, START, dead=False):
        end = part.position.offset
    with (writer / f"{number:08d}.seg").open("r+b") as segment:
        segment.seek(end)
        segment.write(data)


@contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """The kernel refuses to allocate files beyond `limit_bytes`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_appended_is_read_in_order_over_many_segments(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path, segment_bytes=256)
    written = [b"%04d" % n * 10 for n in range(200)]
    for payload in written:
        journal.append_payload(payload)
    assert payloads(tmp_path) == written
    journal.close()
    assert payloads(tmp_path) == written


def test_a_record_larger_than_a_segment_gets_its_own(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path, segment_bytes=256)
    written = [b"small", b"x" * 10_000, b"small again"]
    for payload in written:
        journal.append_payload(payload)
    assert payloads(tmp_path) == written
    journal.close()


def test_reading_goes_on_from_any_position(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path, segment_bytes=128)
    written = [b"%d" % n * 20 for n in range(10)]
    for payload in written:
        journal.append_payload(payload)
    writer = folder(tmp_path)
    everything = list(read(writer, START, dead=False, part=1))
    assert len(everything) == len(written)
    for n, part in enumerate(everything):
        assert [item.payload for item in items(writer, part.position)] == written[n + 1 :]
        assert has_more(writer, part.position) == (n + 1 < len(written))
    journal.close()


@pytest.mark.parametrize("cut", range(1, HEAD.size + 6))
def test_a_torn_tail_is_not_read_and_is_no_damage(tmp_path: Path, cut: int) -> None:
    journal = SegmentJournal(tmp_path)
    journal.append_payload(b"whole")
    journal.close()
    append_raw(tmp_path, (head_of(CALL, b"broken") + b"broken")[:cut])
    assert payloads(tmp_path) == [b"whole"]


def test_a_damaged_frame_is_set_aside_and_the_ones_behind_it_are_read(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    for payload in (b"first", b"second", b"third"):
        journal.append_payload(payload)
    journal.close()
    path = folder(tmp_path) / "00000001.seg"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"second", b"sXcond"))
    found = items(folder(tmp_path), dead=True)
    assert [type(item) for item in found] == [Frame, Damage, Frame]
    assert b"sXcond" in found[1].payload
    assert found[2].payload == b"third"


def test_a_rolled_segment_with_an_unreadable_rest_is_reported(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path, segment_bytes=64)
    journal.append_payload(b"a" * 40)
    journal.append_payload(b"b" * 40)
    path = folder(tmp_path) / "00000001.seg"
    data = bytearray(path.read_bytes())
    data[len(MAGIC) + 2] = 0xFF  # the length itself
    path.write_bytes(data)
    assert has_more(folder(tmp_path), START)
    assert [type(item) for item in items(folder(tmp_path))] == [Damage, Frame]
    journal.close()


def test_a_segment_that_is_no_journal_is_reported(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path, segment_bytes=64)
    journal.append_payload(b"a" * 40)
    journal.append_payload(b"b" * 40)
    (folder(tmp_path) / "00000001.seg").write_bytes(b"something else altogether")
    assert has_more(folder(tmp_path), START)
    assert [type(item) for item in items(folder(tmp_path))] == [Damage, Frame]
    journal.close()


def test_a_living_writer_is_seen_as_living_and_a_closed_one_as_dead(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    assert not is_dead(folder(tmp_path))
    journal.close()
    assert is_dead(folder(tmp_path))


def test_reading_an_unknown_writer_begins_at_its_oldest_segment(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path, segment_bytes=64)
    for _ in range(3):
        journal.append_payload(b"a" * 40)
    (folder(tmp_path) / "00000001.seg").unlink()
    assert first_position(folder(tmp_path)).segment == 2
    journal.close()


def test_c80_a_full_disk_is_an_error_before_the_call_and_nothing_is_lost(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path, segment_bytes=4096)
    journal.append_payload(b"kept" * 100)
    with full_disk(1024):
        with pytest.raises(StoreError, match="free disk space"):
            journal.ensure_room(4096)
        with pytest.raises(StoreError, match="free disk space"):
            journal.append_payload(b"x" * 4096)
        journal.append_payload(b"what still fits")
    journal.append_payload(b"y" * 4096)
    assert payloads(tmp_path) == [b"kept" * 100, b"what still fits", b"y" * 4096]
    journal.close()


def test_a_journal_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file in the way")
    with pytest.raises(StoreError, match="journal"):
        SegmentJournal(tmp_path)


def test_a_closed_journal_refuses(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    journal.close()
    with pytest.raises(StoreError, match="closed"):
        journal.append(call())
    with pytest.raises(StoreError, match="closed"):
        journal.ensure_room()
