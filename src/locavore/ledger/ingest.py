"""Journal -> store, exactly once: the rows and how far the journal is read are one transaction.

Whoever ingests (the supervisor's thread, `locavore report`, a look-up of a decision) runs this
code; SQLite's write lock lets one in at a time, and each begins where the last one committed.
"""

import logging
import threading
from pathlib import Path

from locavore.core.errors import StoreError
from locavore.ledger.batch import Batch
from locavore.ledger.database import Database
from locavore.ledger.journal import journal_dir
from locavore.ledger.sqlite import position_of, store_path, transaction, translated
from locavore.ledger.store import open_store
from locavore.ledger.tail import (
    Position,
    first_position,
    forget,
    has_more,
    is_dead,
    read,
    writer_dirs,
)

BATCH = 4096
"""Records in one transaction: its fixed cost vanishes, and others wait 0.1 s for it at most."""
INTERVAL_S = 1.0
"""Whoever asks for a report or a decision reads the journal first and need not wait for this."""
log = logging.getLogger(__name__)


class Ingester:
    """Reads every writer's journal, living or dead, into the store of this home."""

    def __init__(
        self,
        home: Path,
        *,
        url: str | None = None,
        interval_s: float = INTERVAL_S,
        batch: int = BATCH,
    ) -> None:
        """`url`: as for `ledger.store.open_store`. A store that cannot be opened now is tried
        again in each round; calls stay in the journal till then."""
        self._home = home
        self._url = url
        self._path = store_path(home)
        self._batch = batch
        self._interval_s = interval_s
        self._opened: Database | None = None
        self._read_to: dict[str, Position] = {}
        """Writer -> where its journal was read to here; another process may be further."""
        self._running = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: str | None = None
        """Why the last round failed; None: it did not. For health and metrics."""

    @property
    def _db(self) -> Database:
        if self._opened is None:
            self._opened = open_store(self._home, self._url)
        return self._opened

    def run_once(self) -> int:
        """Ingest everything that is there; how many records that was. Raises StoreError."""
        with self._running, translated(self._path):
            self._db  # noqa: B018 - opened even when there is nothing to take: that is a check
            return sum(self._drain(writer) for writer in writer_dirs(journal_dir(self._home)))

    def _drain(self, writer: Path) -> int:
        dead = is_dead(writer)  # before the last read, or a last frame could be missed
        known = self._read_to.get(writer.name)
        if known is not None and not dead and not has_more(writer, known):
            return 0  # as usual when nobody calls: the store is not even asked
        count = 0
        while (taken := self._take(writer, dead)) == self._batch:
            count += taken
        count += taken
        done = position_of(self._db, writer.name)
        if dead or done is not None:
            forget(writer, done or first_position(writer), dead=dead)
        if dead:
            self._read_to.pop(writer.name, None)
        else:
            self._read_to[writer.name] = done or first_position(writer)
        return count

    def _take(self, writer: Path, dead: bool) -> int:
        """One transaction's worth; fewer than a batch means that there is no more."""
        start = position_of(self._db, writer.name) or first_position(writer)
        if not has_more(writer, start):
            return 0
        with transaction(self._db):
            start = position_of(self._db, writer.name) or first_position(writer)
            batch = Batch(self._db, writer.name)
            for part in read(writer, start, dead=dead, most=self._batch):
                batch.add(part)
                start = part.position
            batch.finish(start)
        return batch.taken

    def start(self) -> None:
        """Go on ingesting in a thread of this process until `stop`."""
        self._thread = threading.Thread(target=self._loop, name="ledger-ingest", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, ingest what is left, close the store."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._round()
        self.close()

    def close(self) -> None:
        """Close the store without another round."""
        with self._running:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def _loop(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self._round()

    def _round(self) -> None:
        try:
            self.run_once()
        except StoreError as error:
            if self.failure is None:
                log.warning("ledger: %s; calls stay in the journal", error.message)
            self.failure = error.message
        else:
            if self.failure is not None:
                log.warning("ledger: works again")
            self.failure = None
