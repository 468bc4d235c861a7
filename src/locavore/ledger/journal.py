"""Where a finished call is written before its last byte leaves: no system call, no lock.

Each worker process owns one folder of memory-mapped segments:

    LOCAVORE_HOME/journal/<writer id>/lock            held (flock) as long as the writer lives
    LOCAVORE_HOME/journal/<writer id>/00000001.seg    preallocated, so a full disk cannot SIGBUS

What was stored into a shared mapping belongs to the kernel's page cache: it survives the death
of the process, but not of the machine. `locavore.ledger.tail` reads the other end.
"""

import fcntl
import mmap
import os
import secrets
import time
from pathlib import Path

import msgspec

from locavore.core.errors import StoreError
from locavore.core.outcome import CallRecord
from locavore.ledger.frames import CALL, HEAD, MAGIC, MAX_PAYLOAD_BYTES, head_of

SEGMENT_BYTES = 8 << 20
"""About 4,000 calls; a roll costs some 100 µs."""
ROOM_BYTES = 256 << 10
"""What `ensure_room` asks for: more than any ordinary record takes."""
_BODY = HEAD.size


def journal_dir(home: Path) -> Path:
    """The folder all writers of this home share."""
    return home / "journal"


def segment_name(number: int) -> str:
    return f"{number:08d}.seg"


class SegmentJournal:
    """`core.ports.Journal` for one process and one thread. Make it after the worker has forked."""

    def __init__(self, home: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.writer = f"{int(time.time() * 1000):013d}-{os.getpid()}-{secrets.token_hex(4)}"
        self._dir, self._lock = _claim(journal_dir(home), self.writer)
        self._segment_bytes = segment_bytes
        self._encode = msgspec.msgpack.Encoder().encode
        self._number = 0
        self._map: mmap.mmap | None = None
        self._at = self._end = 0
        try:
            self._roll(segment_bytes)
        except StoreError:
            self.close()
            raise

    def append(self, record: CallRecord) -> None:
        """Survives `kill -9` once it returned; raises StoreError when it cannot keep that."""
        self.append_payload(self._encode(record))

    def append_payload(self, payload: bytes, kind: int = CALL) -> None:
        """`append` for bytes that are encoded already, of any kind of frame."""
        body = self._at + _BODY
        end = body + len(payload)
        if end > self._end:
            self._roll(_BODY + len(payload))
            body = self._at + _BODY
            end = body + len(payload)
        segment = self._map
        if segment is None:
            raise StoreError("the journal is closed: this process is shutting down")
        segment[body:end] = payload
        segment[self._at : body] = head_of(kind, payload)  # last: now a reader may see it
        self._at = end

    def ensure_room(self, room_bytes: int = ROOM_BYTES) -> None:
        """Raise StoreError now, before a call costs money, if its record could not be kept."""
        if self._end - self._at < room_bytes:
            self._roll(room_bytes)

    def close(self) -> None:
        """Let go of the segments and of the lock; what was appended stays for the ingester."""
        if self._map is not None:
            self._map.close()
            self._map = None
        self._at = self._end = 0
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _roll(self, need_bytes: int) -> None:
        """Go on in a fresh segment; the old one stays in use if that fails."""
        if self._lock < 0:
            raise StoreError("the journal is closed: this process is shutting down")
        if need_bytes > MAX_PAYLOAD_BYTES:
            raise StoreError(f"a journal record of {need_bytes} bytes is over the frame's limit")
        size_bytes = max(self._segment_bytes, len(MAGIC) + need_bytes)
        fresh = _new_segment(self._dir, self._number + 1, size_bytes)
        if self._map is not None:
            self._map.close()
        self._map = fresh
        self._number += 1
        self._at, self._end = len(MAGIC), size_bytes


def _claim(parent: Path, writer: str) -> tuple[Path, int]:
    """Make the writer's folder with its lock already held: no reader ever sees it unlocked."""
    hidden, final = parent / f".{writer}", parent / writer
    try:
        hidden.mkdir(mode=0o700, parents=True)
        lock = os.open(hidden / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden.rename(final)
    except OSError as error:
        raise StoreError(f"cannot make the journal folder {str(final)!r}: {error}") from error
    return final, lock


def _new_segment(folder: Path, number: int, size_bytes: int) -> mmap.mmap:
    """A mapped segment whose every block is allocated before anybody can see it."""
    final = folder / segment_name(number)
    part = final.with_suffix(".part")
    try:
        fd = os.open(part, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(fd, 0, size_bytes)
            os.pwrite(fd, MAGIC, 0)
            segment = mmap.mmap(fd, size_bytes)
        finally:
            os.close(fd)
        part.rename(final)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(
            f"cannot allocate {size_bytes} bytes for the journal at {str(final)!r}: {error}; "
            "free disk space or move LOCAVORE_HOME"
        ) from error
    return segment
