"""What the supervisor does for promises, in a thread: watch them, withdraw what is broken, notice
what `locavore calibrate` has written, and delete other answers whose time is over."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from locavore.core.errors import ConfigError, StoreError
from locavore.evidence.watch import Watch
from locavore.ledger import kept_answers
from locavore.ledger.database import Database
from locavore.ledger.sqlite import store_path, translated
from locavore.ledger.store import open_store
from locavore.routing.estimators import promised
from locavore.routing.estimators.promised import Entry, Withdrawal

Tell = Callable[[str], None]


class PromiseKeeping:
    """Of one gateway. Blocking."""

    def __init__(
        self,
        home: Path,
        *,
        url: str | None = None,
        tell: Tell,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`url`: as for `ledger.store.open_store`."""
        self._home = home
        self._url = url
        self._folder = home / promised.FOLDER
        self._tell = tell
        self._clock = clock
        self._watch = Watch(clock)
        self._seen = self._read = self._stamp()
        self._entries: list[Entry] | None = None
        self._db: Database | None = None
        self._failure: str | None = None
        self._at_work = threading.Lock()

    def round(self) -> bool:
        """Look at what is new; True: other promises hold than before, so publish them."""
        with self._at_work:
            return self._round()

    def _round(self) -> bool:
        try:
            kept_answers.expire(self._home, now_s=self._clock())
            for entry, withdrawal in self._broken():
                if promised.withdraw(self._folder, entry.id, withdrawal) is not None:
                    self._tell(told(entry, withdrawal))
        except (StoreError, ConfigError) as error:
            self._failed(str(error))
            self._let_go()
        else:
            self._failure = None
        stamp = self._stamp()
        changed, self._seen = stamp != self._seen, stamp
        return changed

    def _broken(self) -> list[tuple[Entry, Withdrawal]]:
        stamp = self._stamp()
        if self._entries is None or stamp != self._read:
            self._entries, self._read = promised.read(self._folder), stamp
        if all(entry.withdrawn is not None for entry in self._entries):
            return []
        if self._db is None:
            self._db = open_store(self._home, self._url)
        with translated(store_path(self._home)):
            return self._watch.look(self._db, self._entries)

    def close(self) -> None:
        """After the round that runs, if one does."""
        with self._at_work:
            self._let_go()

    def _let_go(self) -> None:
        """Of the store; the next round opens it again."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _failed(self, why: str) -> None:
        if why != self._failure:
            self._tell(f"promises: {why}; tried again")
        self._failure = why

    def _stamp(self) -> tuple[tuple[str, int, int], ...]:
        """Changes with any promise's file."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                info = path.stat()
            except FileNotFoundError:
                continue
            found.append((path.name, info.st_mtime_ns, info.st_size))
        return tuple(found)


def told(entry: Entry, withdrawal: Withdrawal) -> str:
    """One line about a broken promise."""
    achieved, what = withdrawal.achieved, withdrawal.judged
    return (
        f"the promise for {entry.local} is withdrawn: {what} {achieved.mean:.3f} "
        f"({achieved.low:.3f}-{achieved.high:.3f}) of {entry.cloud}'s over the last {achieved.n} "
        f"judged calls, {entry.pre.target.quality:.3f} was promised; its calls go to the cloud "
        "until `locavore calibrate` makes a new promise"
    )
