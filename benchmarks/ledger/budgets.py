"""What do budgets cost a call? Reserve + settle in memory, and the step to the lease store.

    python -m benchmarks.ledger.budgets [--valkey unix:///path/to/valkey.sock]

CPU microseconds of this process; wall time beside it where another process takes part.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from locavore.core.access import Grant, Quota
from locavore.ledger.budgets import Authorizer, Reservation, leases_dir
from locavore.ledger.leases import LeaseStore, LeaseTable
from locavore.ledger.sqlite_leases import SqliteLeases
from locavore.ledger.valkey_leases import ValkeyLeases

WORST, ACTUAL = Decimal("0.000125"), Decimal("0.0001")
AMPLE = (
    Quota(scope="tenant", unit="usd", limit=Decimal(1_000_000)),
    Quota(scope="key", unit="usd", limit=Decimal(100_000), period="day"),
    Quota(scope="key", unit="requests", limit=Decimal(10**8), period="day"),
    Quota(scope="key", unit="tokens", limit=Decimal(10**12), period="day"),
)
ONE_AT_A_TIME = (Quota(scope="key", unit="concurrent", limit=Decimal(4), period="total"),)
CALLER = Grant(name="bob", tenant="acme")


def calls(limits: Authorizer, count: int) -> None:
    for _ in range(count):
        made = limits.reserve(CALLER, None, WORST, 500)
        assert isinstance(made, Reservation)
        limits.settle(made, ACTUAL, 100)


def timed(action: Callable[[], object], count: int) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return {
        "cpu_us": round((time.process_time() - cpu) / count * 1e6, 2),
        "wall_us": round((time.perf_counter() - wall) / count * 1e6, 2),
    }


def measure(home: Path, store: Callable[[], LeaseStore], count: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, quotas, calls_made in (
        ("no_quota", (), count),
        ("four_ample_quotas", AMPLE, count),
        ("lease_step_each_call", ONE_AT_A_TIME, count // 20),
    ):
        limits = Authorizer(quotas, store(), LeaseTable(leases_dir(home)))
        calls(limits, 100)
        figures[name] = timed(lambda made=calls_made: calls(limits, made), calls_made)  # type: ignore[misc]  # noqa: B023
        limits.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--valkey", help="URL of a Valkey or Redis server that may be written to.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        print(json.dumps({"sqlite": measure(home, lambda: SqliteLeases(home), options.calls)}))
        if options.valkey:
            found = measure(home, lambda: ValkeyLeases(options.valkey), options.calls)
            print(json.dumps({"valkey": found}))


if __name__ == "__main__":
    main()
