"""What a supervisor does with the stores now and then, in a thread: each failure is told once."""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from locavore.config import Config
from locavore.core.errors import StoreError
from locavore.ledger import alerts
from locavore.ledger.budgets import leases_dir
from locavore.ledger.keys import KeyStore
from locavore.ledger.shared_leases import open_leases
from locavore.ledger.sqlite import store_path
from locavore.ledger.sqlite_leases import leases_path
from locavore.ledger.store import open_store
from locavore.serving.snapshot import Snapshot

T = TypeVar("T")
Tell = Callable[[str], None]


class Upkeep:
    """Blocking work with the stores that one gateway uses. One call at a time."""

    def __init__(self, config: Config, tell: Tell) -> None:
        self._home = config.home
        self._ledger = config.ledger
        self._tell = tell
        self._open = threading.Lock()
        self._keys: KeyStore | None = None
        """Kept open: opening a store costs 60 times what reading one number from it does."""
        self._keys_file: int | None = None
        self._keys_seen: int | None = None
        self.failures: dict[str, str] = {}
        """What does not work now -> why. For readiness and doctor."""

    def keys_changed(self) -> bool:
        """Whether `locavore keys` wrote to the store since the last question."""
        version = self._attempt("keys", self._keys_version)
        changed = version is not None and version != self._keys_seen
        self._keys_seen = self._keys_seen if version is None else version
        return changed

    def _keys_version(self) -> int:
        with self._open:
            if self._keys is not None and self._keys_file != _inode(store_path(self._home)):
                self._close_keys()  # the file was replaced under us: a restore, or a new home
            if self._keys is None:
                self._keys = KeyStore(self._home, url=self._ledger.url)
                self._keys_file = _inode(store_path(self._home))
            try:
                return self._keys.version()
            except StoreError:
                self._close_keys()
                raise

    def close(self) -> None:
        """Let go of the stores, once a call that still runs in its thread has ended."""
        with self._open:
            self._close_keys()

    def _close_keys(self) -> None:
        store, self._keys = self._keys, None
        if store is not None:
            store.close()

    def recover_leases(self) -> None:
        """Book what a worker that died had spent of its budget slices, and free the rest."""
        if self._ledger.limits_url is not None or leases_path(self._home).exists():
            self._attempt("limits", self._recover)

    def _recover(self) -> None:
        leases = open_leases(self._home, self._ledger.limits_url, nodes=self._ledger.nodes)
        with contextlib.closing(leases):
            leases.recover(leases_dir(self._home), now_s=time.time())

    def alert(self, snapshot: Snapshot) -> None:
        """Tell the webhook about budgets that passed a threshold."""
        if self._ledger.alert_webhook is not None and snapshot.limited:
            self._attempt("alerts", lambda: self._alert(snapshot, self._ledger.alert_webhook or ""))

    def _alert(self, snapshot: Snapshot, webhook: str) -> None:
        of_keys = (quota for grant in snapshot.grants.values() for quota in grant.quotas)
        leases = open_leases(self._home, self._ledger.limits_url, nodes=self._ledger.nodes)
        with (
            contextlib.closing(leases),
            contextlib.closing(open_store(self._home, self._ledger.url)) as db,
        ):
            quotas = (*snapshot.quotas, *of_keys)
            alerts.run(db, quotas, leases.committed(), webhook, self._ledger.alert_secret)

    def _attempt(self, name: str, work: Callable[[], T]) -> T | None:
        try:
            done = work()
        except StoreError as error:
            if name not in self.failures:
                self._tell(f"{name}: {error.message}; tried again")
            self.failures[name] = error.message
            return None
        if self.failures.pop(name, None) is not None:
            self._tell(f"{name}: works again")
        return done


def _inode(path: Path) -> int | None:
    """Which file stands there; None: none (a ledger in PostgreSQL)."""
    try:
        return path.stat().st_ino
    except OSError:
        return None
