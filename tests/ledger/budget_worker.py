"""A process that spends: `burst HOME N` reserves N calls at once; `steady HOME` never ends."""

import os
import sys
from decimal import Decimal
from pathlib import Path

from locavore.core.access import Quota
from locavore.ledger.budgets import Authorizer, Reservation, leases_dir
from locavore.ledger.leases import LeaseTable
from locavore.ledger.sqlite_leases import SqliteLeases
from locavore.ledger.valkey_leases import ValkeyLeases

WORST_USD = Decimal("0.01")
ACTUAL_USD = Decimal("0.004")
BUDGET = Quota(scope="all", unit="usd", limit=3 * WORST_USD, period="total")
LARGE = Quota(scope="all", unit="usd", limit=Decimal(10_000), period="total")


def authorizer(home: Path, quota: Quota) -> Authorizer:
    url = os.environ.get("LEASES_URL")
    leases = ValkeyLeases(url, timeout_s=10) if url else SqliteLeases(home, busy_s=10)
    return Authorizer([quota], leases, LeaseTable(leases_dir(home)))


def burst(home: Path, calls: int) -> None:
    """All calls are in flight at the same time; says how many were admitted, and waits."""
    limits = authorizer(home, BUDGET)
    os.write(1, b"ready\n")
    sys.stdin.readline()
    made = [limits.reserve(None, None, WORST_USD, 0) for _ in range(calls)]
    admitted = [r for r in made if isinstance(r, Reservation)]
    os.write(1, b"%d\n" % len(admitted))
    sys.stdin.readline()


def steady(home: Path) -> None:
    """Call after call; says `+` before one is admitted and `-` when it is settled."""
    limits = authorizer(home, LARGE)
    while True:
        made = limits.reserve(None, None, WORST_USD, 0)
        if isinstance(made, Reservation):
            os.write(1, b"+")
            limits.settle(made, ACTUAL_USD, None)
            os.write(1, b"-")
        else:
            os.write(1, b"!")
            sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "burst":
        burst(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        steady(Path(sys.argv[2]))
