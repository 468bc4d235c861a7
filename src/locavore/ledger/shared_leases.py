"""When the shared limiter is lost, this machine goes on with its share: limit ÷ nodes (C81).

What is granted meanwhile comes from a local store and is booked at the shared one as soon as that
answers again, so nothing that was spent is forgotten. A thread looks for it; calls do not wait for
a server that was silent once until it has answered there.
"""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from locavore.core.errors import StoreError
from locavore.ledger.leases import Account, Gift, Granted, LeaseStore, Short, Want
from locavore.ledger.sqlite_leases import SqliteLeases

RETRY_S = 1.0
"""How often a lost limiter is looked for."""
REMEMBERED = 100_000
"""Accounts whose state at the shared store a worker keeps in mind."""
log = logging.getLogger(__name__)


class Reachable(LeaseStore, Protocol):
    """A store on another machine."""

    def reachable(self) -> bool:
        """Whether it answers now. Asked from another thread than the rest."""
        ...


class SharedLeases:
    """`ledger.leases.LeaseStore`: `shared` while it answers, else a share of `local`."""

    def __init__(
        self,
        shared: Reachable,
        local: LeaseStore,
        *,
        nodes: int,
        retry_s: float = RETRY_S,
    ) -> None:
        """`nodes`: how many gateways share the limits when all are up."""
        if nodes < 1:
            raise ValueError(f"nodes = {nodes!r}: at least 1")
        self._shared = shared
        self._local = local
        self._nodes = nodes
        self._retry_s = retry_s
        self._lost = threading.Event()
        self._closed = threading.Event()
        self._left: dict[Account, int] = {}
        """What was left at the shared store when it last told."""
        self._owed: dict[Account, Gift] = {}
        """Granted locally, not booked at the shared store yet."""

    @property
    def lost(self) -> bool:
        return self._lost.is_set()

    def take(self, holder: str, wants: Sequence[Want]) -> list[Granted] | Short:
        if not self.lost:
            try:
                return self._take_shared(holder, wants)
            except StoreError as error:
                self._lose(error)
        return self._take_local(holder, wants)

    def _take_shared(self, holder: str, wants: Sequence[Want]) -> list[Granted] | Short:
        self._book(holder)
        answer = self._shared.take(holder, wants)
        if not isinstance(answer, Short):
            if len(self._left) > REMEMBERED and not self._owed:
                self._left.clear()
            self._left.update(
                (want.account, got.left) for want, got in zip(wants, answer, strict=True)
            )
        return answer

    def _take_local(self, holder: str, wants: Sequence[Want]) -> list[Granted] | Short:
        shares = [want._replace(limit=self._share(want)) for want in wants]
        answer = self._local.take(holder, shares)
        if not isinstance(answer, Short):
            for want, got in zip(wants, answer, strict=True):
                owed = self._owed.get(want.account)
                amount = -got.amount + (owed.amount if owed else 0)
                self._owed[want.account] = Gift(want.account, amount, False, want.end_s)
        return answer

    def _share(self, want: Want) -> int:
        left = self._left.setdefault(want.account, want.limit)
        return max(0, min(want.limit, left)) // self._nodes

    def _book(self, holder: str) -> None:
        """Tell the shared store what was granted without it, and empty the local one."""
        if not self._owed:
            return
        owed = list(self._owed.values())
        self._shared.give(holder, owed)
        self._owed.clear()
        for gift in owed:  # the next outage begins with what is left after this one
            self._left[gift.account] += gift.amount
        log.warning("limits: the shared store answers again; %d accounts booked", len(owed))
        self._local.give(holder, [Gift(g.account, -g.amount, True, g.end_s) for g in owed])

    def give(self, holder: str, gifts: Sequence[Gift]) -> None:
        if self.lost:
            raise StoreError("the shared limits are lost; given back later")
        try:
            self._book(holder)
            self._shared.give(holder, gifts)
        except StoreError as error:
            self._lose(error)
            raise

    def beat(self, holder: str) -> None:
        if not self.lost:
            try:
                self._book(holder)
                self._shared.beat(holder)
            except StoreError as error:
                self._lose(error)

    def _lose(self, error: StoreError) -> None:
        if not self._lost.is_set():
            self._lost.set()
            log.warning("limits: %s; a share of 1/%d holds here", error.message, self._nodes)
            threading.Thread(target=self._look_for_it, name="limits", daemon=True).start()

    def _look_for_it(self) -> None:
        while not self._closed.wait(self._retry_s):
            if self._shared.reachable():
                self._lost.clear()
                return

    def recover(self, leases_dir: Path, *, now_s: float) -> int:
        """A worker that was killed during an outage stays booked as the local store knows it."""
        return self._shared.recover(leases_dir, now_s=now_s) + self._local.recover(
            leases_dir, now_s=now_s
        )

    def committed(self) -> dict[Account, int]:
        return self._shared.committed()

    def close(self) -> None:
        self._closed.set()
        self._shared.close()
        self._local.close()


def open_leases(home: Path, url: str | None = None, *, nodes: int = 1) -> LeaseStore:
    """The lease store of a gateway: a file under `home`, or a Valkey or Redis server.

    `url`: `redis://...`, needs the extra `locavore[valkey]`; `nodes`: gateways that share it.
    """
    if url is None:
        return SqliteLeases(home)
    from locavore.ledger.valkey_leases import ValkeyLeases  # an optional dependency

    return SharedLeases(ValkeyLeases(url), SqliteLeases(home), nodes=nodes)
