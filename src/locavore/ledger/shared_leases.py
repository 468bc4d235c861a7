"""When the shared limiter is lost, this machine goes on with its share: limit ÷ nodes (C81).

What is granted meanwhile comes from a local store and is booked at the shared one as soon as that
answers again, so nothing that was spent is forgotten.
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from locavore.core.errors import StoreError
from locavore.ledger.leases import Account, Gift, Granted, LeaseStore, Short, Want
from locavore.ledger.sqlite_leases import SqliteLeases

RETRY_S = 1.0
"""So long a lost limiter is left alone: each try may take its whole timeout."""
log = logging.getLogger(__name__)


class SharedLeases:
    """`ledger.leases.LeaseStore`: `shared` while it answers, else a share of `local`."""

    def __init__(
        self,
        shared: LeaseStore,
        local: LeaseStore,
        *,
        nodes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`nodes`: how many gateways share the limits when all are up."""
        if nodes < 1:
            raise ValueError(f"nodes = {nodes!r}: at least 1")
        self._shared = shared
        self._local = local
        self._nodes = nodes
        self._clock = clock
        self._lost_until_s = 0.0
        self._left: dict[Account, int] = {}
        """What was left at the shared store when it last told."""
        self._owed: dict[Account, Gift] = {}
        """Granted locally, not booked at the shared store yet."""

    @property
    def lost(self) -> bool:
        return self._clock() < self._lost_until_s

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
            if len(self._left) > 100_000:
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
        left = self._left.get(want.account, want.limit)
        return max(0, min(want.limit, left)) // self._nodes

    def _book(self, holder: str) -> None:
        """Tell the shared store what was granted without it, and empty the local one."""
        if not self._owed:
            return
        owed = list(self._owed.values())
        self._shared.give(holder, owed)
        self._owed.clear()
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
        self._lost_until_s = self._clock() + RETRY_S
        log.warning("limits: %s; a share of 1/%d holds here", error.message, self._nodes)

    def recover(self, leases_dir: Path, *, now_s: float) -> int:
        """A worker that was killed during an outage stays booked as the local store knows it."""
        return self._shared.recover(leases_dir, now_s=now_s) + self._local.recover(
            leases_dir, now_s=now_s
        )

    def committed(self) -> dict[Account, int]:
        return self._shared.committed()

    def close(self) -> None:
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
