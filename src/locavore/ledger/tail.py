"""The reading end of the journal: whole frames in order, and which segments are done with.

A writer makes segment n + 1 only after its last frame in n. So when n + 1 exists *before* n is
read to its end, that end is final. A writer whose lock can be taken is dead; its end is final too.
"""

import fcntl
import mmap
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from locavore.ledger.frames import HEAD, MAGIC, Frame, after_damage, frames
from locavore.ledger.journal import segment_name


class Position(NamedTuple):
    """The next frame to read of one writer."""

    segment: int
    offset: int


START = Position(1, len(MAGIC))


class Damage(NamedTuple):
    """Bytes inside a segment that are no frame, although the writer had gone on behind them."""

    payload: bytes
    start: int
    end: int


def writer_dirs(journal: Path) -> list[Path]:
    """Folders of all writers, oldest first."""
    try:
        entries = [entry for entry in journal.iterdir() if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
    return sorted(entry for entry in entries if entry.is_dir())


def is_dead(writer: Path) -> bool:
    """Whether no process holds the writer's lock any more; it never comes back."""
    try:
        lock = os.open(writer / "lock", os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def first_position(writer: Path) -> Position:
    """Where to begin with a writer the store does not know: its oldest segment still there."""
    numbers = sorted(int(path.stem) for path in writer.glob("*.seg"))
    return START._replace(segment=numbers[0]) if numbers else START


PART = 256
"""Items taken together: enough for the fixed cost of a statement to vanish, few enough to stay in
the processor's cache from the first look to the last."""


class Part(NamedTuple):
    """What was read of one segment, in order; never empty."""

    segment: int
    items: list[Frame | Damage]

    @property
    def position(self) -> Position:
        return Position(self.segment, self.items[-1].end)


def read(
    writer: Path, start: Position, *, dead: bool, most: int = sys.maxsize, part: int = PART
) -> Iterator[Part]:
    """Up to `most` items of one writer from `start` on, in parts of up to `part`.

    `dead` must have been found out before this is called, else a last frame could be missed.
    """
    number, offset = start
    while True:
        rolled = (writer / segment_name(number + 1)).exists()
        segment = _map(writer / segment_name(number))
        if segment is None:
            return
        with segment:
            while items := _scan(segment, offset, min(part, most), rolled=rolled, dead=dead):
                yield Part(number, items)
                offset = items[-1].end
                most -= len(items)
        if not rolled:
            return
        number, offset = number + 1, len(MAGIC)


def has_more(writer: Path, position: Position) -> bool:
    """Whether anything may stand behind `position`: a few system calls, where `read` maps a file.

    It may say yes for bytes that are no frame, never no for one that is. A segment that is gone is
    a yes too: another process has read on and deleted it.
    """
    number, offset = position
    try:
        segment = os.open(writer / segment_name(number), os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        head = os.pread(segment, HEAD.size, offset)
        foreign = offset == START.offset and os.pread(segment, len(MAGIC), 0) != MAGIC
    finally:
        os.close(segment)
    return any(head) or foreign or (writer / segment_name(number + 1)).exists()


def _map(path: Path) -> mmap.mmap | None:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        return None


def _scan(
    segment: mmap.mmap, at: int, most: int, *, rolled: bool, dead: bool
) -> list[Frame | Damage]:
    """Frames, and between them what a disk or a stranger has spoilt."""
    if segment[: len(MAGIC)] != MAGIC and at == len(MAGIC):
        at = 0
    items: list[Frame | Damage] = []
    while len(items) < most:
        items += frames(segment, at, most - len(items))
        at = items[-1].end if items else at
        end = after_damage(segment, at) if rolled or dead else None
        if end is None and rolled and any(segment[at : at + HEAD.size]):
            end = len(segment)  # a torn frame can only be a writer's very last
        if end is None or len(items) >= most:
            break
        items.append(Damage(segment[at:end], at, end))
        at = end
    return items


def forget(writer: Path, done: Position, *, dead: bool) -> None:
    """Delete what the store holds durably: segments before `done`, the folder of a dead writer."""
    if dead:
        shutil.rmtree(writer, ignore_errors=True)
        return
    for number in range(done.segment - 1, 0, -1):
        path = writer / segment_name(number)
        if not path.exists():
            return
        path.unlink(missing_ok=True)
