"""Slices of a quota that one process holds: what is leased is reserved, for everybody.

The shared store keeps, per quota, subject and period (an *account*), one number: how much is
committed, i.e. spent or leased to somebody. It never passes the limit. A worker takes slices of
what is left, decides in memory, and gives back what it does not need.

What a worker has spent and reserved stands in a small memory-mapped table beside the store. If
the worker is killed, whoever recovers reads it there: what was spent stays committed, what was
reserved for calls in flight too (they may have cost that much), the rest is free again.
"""

import fcntl
import mmap
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from locavore.core.errors import StoreError

SHARE = 16
"""A worker takes at most this part of what is left: slices shrink as a limit comes near, until
each holds one call."""
SLOTS = 1 << 16
"""Accounts that one worker can hold slices of at a time."""


class Account(NamedTuple):
    """One quota of one subject in one period."""

    quota: str
    """`core.access.Quota.id`."""
    subject: str
    start_s: int


class Want(NamedTuple):
    account: Account
    slot: int
    """Line of the holder's table."""
    limit: int
    """Nano-dollars, requests, tokens or calls."""
    need: int
    hard: bool
    """False: granted even over the limit."""
    end_s: int


class Granted(NamedTuple):
    amount: int
    left: int
    """What nobody holds after this; negative: a soft quota is over its limit."""


class Short(NamedTuple):
    """Nothing was taken: this account has not enough left."""

    account: Account
    left: int


class Gift(NamedTuple):
    account: Account
    amount: int
    """Negative: more was spent than was held, and is committed now, over the limit or not."""
    last: bool
    """The holder is done with this account."""
    end_s: int


class LeaseStore(Protocol):
    """What several processes, or several machines, share. Each call is one atomic step.

    Raises StoreError when the store does not answer in bounded time.
    """

    def take(self, holder: str, wants: Sequence[Want]) -> list[Granted] | Short:
        """All of it or nothing: at least `need` for each."""
        ...

    def give(self, holder: str, gifts: Sequence[Gift]) -> None: ...

    def beat(self, holder: str) -> None:
        """The holder lives; needed where nobody can look at its lock."""
        ...

    def recover(self, leases_dir: Path, *, now_s: float) -> int:
        """Settle what dead holders have left; how many leases that were."""
        ...

    def committed(self) -> dict[Account, int]:
        """Spent or leased, by account; for reports and alerts, off the path."""
        ...

    def close(self) -> None: ...


def granted(left: int, need: int) -> int:
    """How large a slice to give of what is `left`."""
    return max(need, left // SHARE)


class LeaseTable:
    """Spent and reserved together, by slot, in a file that outlives its process.

    One number per slot, so that a process dying at any instruction leaves the old or the new one.
    """

    def __init__(self, folder: Path) -> None:
        self.holder = f"{int(time.time() * 1000):013d}-{os.getpid()}-{secrets.token_hex(4)}"
        self._path = folder / self.holder
        self._free = list(range(SLOTS - 1, -1, -1))
        size_bytes = SLOTS * 8
        part = folder / f".{self.holder}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(part, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(self._lock, 0, size_bytes)
            self._map = mmap.mmap(self._lock, size_bytes)
            part.rename(self._path)
        except OSError as error:
            raise StoreError(f"cannot make the lease table {str(self._path)!r}: {error}") from error
        # Native 8-byte items: each store is one aligned move, so a reader sees old or new.
        self.cells = memoryview(self._map).cast("q")

    def slot(self) -> int:
        """A free line. Raises StoreError when there is none."""
        if not self._free:
            raise StoreError(f"this worker holds slices of {SLOTS} accounts, the most it can")
        return self._free.pop()

    def free(self, slot: int) -> None:
        self.cells[slot] = 0
        self._free.append(slot)

    def close(self) -> None:
        """For an orderly end: everything was given back."""
        self.cells.release()
        self._map.close()
        self._path.unlink(missing_ok=True)
        os.close(self._lock)


def dead_holder(path: Path) -> bool:
    """Whether the process that held this table is gone, or the table itself is."""
    try:
        lock = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def left_behind(path: Path, slot: int) -> int | None:
    """What a dead holder had spent or reserved in a slot; None: nobody can tell."""
    try:
        data = memoryview(path.read_bytes()).cast("q")
    except FileNotFoundError:
        return None
    return data[slot]
