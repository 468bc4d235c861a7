"""Leases in a SQLite file of their own: exact across the processes of one machine.

Apart from the ledger, so that a batch being ingested never holds up a call. The file is state, not
history: what is spent is in the ledger.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from locavore.core.errors import StoreError
from locavore.ledger.leases import (
    Account,
    Gift,
    Granted,
    Short,
    Want,
    dead_holder,
    granted,
    left_behind,
)
from locavore.ledger.sqlite import transaction

BUSY_S = 0.25
"""A call waits so long for another worker's step, which takes a millisecond at most."""
KEEP_S = 86_400
"""Accounts of periods that ended so long ago are forgotten; a clock may jump back by less."""
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS accounts (quota TEXT, subject TEXT, start_s INTEGER,"
    " end_s INTEGER NOT NULL, committed INTEGER NOT NULL,"
    " PRIMARY KEY (quota, subject, start_s)) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS leases (holder TEXT, quota TEXT, subject TEXT, start_s INTEGER,"
    " slot INTEGER NOT NULL, held INTEGER NOT NULL,"
    " PRIMARY KEY (holder, quota, subject, start_s)) STRICT, WITHOUT ROWID",
)
_SAME = "quota = ? AND subject = ? AND start_s = ?"


def leases_path(home: Path) -> Path:
    return home / "leases.sqlite3"


class SqliteLeases:
    """`ledger.leases.LeaseStore` on one machine."""

    def __init__(self, home: Path, *, busy_s: float = BUSY_S) -> None:
        self._path = leases_path(home)
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                self._path, timeout=busy_s, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            for statement in _SCHEMA:
                self._db.execute(statement)
            self._path.chmod(0o600)
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StoreError:
        return StoreError(f"the limits in {str(self._path)!r} cannot be used: {error}")

    def take(self, holder: str, wants: Sequence[Want]) -> list[Granted] | Short:
        try:
            with transaction(self._db):
                return self._take(holder, wants)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _take(self, holder: str, wants: Sequence[Want]) -> list[Granted] | Short:
        lefts = [want.limit - self._committed(want.account) for want in wants]
        for want, left in zip(wants, lefts, strict=True):
            if want.hard and left < want.need:
                return Short(want.account, left)
        made = []
        for want, left in zip(wants, lefts, strict=True):
            amount = granted(left, want.need)
            self._commit(want.account, want.end_s, amount)
            self._hold(holder, want, amount)
            made.append(Granted(amount, left - amount))
        return made

    def _committed(self, account: Account) -> int:
        sql = f"SELECT committed FROM accounts WHERE {_SAME}"  # noqa: S608 - a constant
        row = self._db.execute(sql, account).fetchone()
        return int(row[0]) if row else 0

    def _commit(self, account: Account, end_s: int, amount: int) -> None:
        self._db.execute(
            "INSERT INTO accounts VALUES (?, ?, ?, ?, ?) ON CONFLICT (quota, subject, start_s)"
            " DO UPDATE SET committed = committed + excluded.committed",
            (*account, end_s, amount),
        )

    def _hold(self, holder: str, want: Want, amount: int) -> None:
        self._db.execute(
            "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (holder, quota, subject, start_s)"
            " DO UPDATE SET held = held + excluded.held",
            (holder, *want.account, want.slot, amount),
        )

    def give(self, holder: str, gifts: Sequence[Gift]) -> None:
        try:
            with transaction(self._db):
                for gift in gifts:
                    self._give(holder, gift)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _give(self, holder: str, gift: Gift) -> None:
        self._commit(gift.account, gift.end_s, -gift.amount)
        where = f"WHERE holder = ? AND {_SAME}"
        if gift.last:
            self._db.execute(f"DELETE FROM leases {where}", (holder, *gift.account))  # noqa: S608
        else:
            self._db.execute(
                f"UPDATE leases SET held = held - ? {where}",  # noqa: S608
                (gift.amount, holder, *gift.account),
            )

    def beat(self, holder: str) -> None:
        """Nothing to do: the lock on the holder's table tells."""

    def recover(self, leases_dir: Path, *, now_s: float) -> int:
        try:
            holders = [row[0] for row in self._db.execute("SELECT DISTINCT holder FROM leases")]
            dead = [name for name in holders if dead_holder(leases_dir / name)]
            count = sum(self._settle_dead(name, leases_dir / name) for name in dead)
            with transaction(self._db):
                self._db.execute("DELETE FROM accounts WHERE end_s < ?", (now_s - KEEP_S,))
            self._sweep(leases_dir)
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error
        return count

    def _sweep(self, leases_dir: Path) -> None:
        """Remove the tables of the dead whose rows are settled: no row can come any more."""
        for path in leases_dir.glob("[!.]*"):
            sql = "SELECT 1 FROM leases WHERE holder = ?"
            if dead_holder(path) and not self._db.execute(sql, (path.name,)).fetchone():
                path.unlink(missing_ok=True)

    def _settle_dead(self, holder: str, table: Path) -> int:
        """Exactly once: the rows go in the transaction that gives back what they held."""
        with transaction(self._db):
            rows = self._db.execute(
                "SELECT quota, subject, start_s, slot, held FROM leases WHERE holder = ?", (holder,)
            ).fetchall()
            for quota, subject, start_s, slot, held in rows:
                used = left_behind(table, slot)
                if ":concurrent:" in quota:
                    used = 0  # its calls ended with the process
                unused = held - (held if used is None else used)
                self._db.execute(
                    f"UPDATE accounts SET committed = committed - ? WHERE {_SAME}",  # noqa: S608
                    (unused, quota, subject, start_s),
                )
            self._db.execute("DELETE FROM leases WHERE holder = ?", (holder,))
        return len(rows)

    def committed(self) -> dict[Account, int]:
        try:
            rows = self._db.execute("SELECT quota, subject, start_s, committed FROM accounts")
            return {Account(*row[:3]): row[3] for row in rows}
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def close(self) -> None:
        self._db.close()
