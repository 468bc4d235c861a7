"""What every lease store promises, run against each: a SQLite file, a Valkey or Redis server."""

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import redis

from locavore.core.access import Quota
from locavore.core.errors import StoreError
from locavore.ledger.budgets import Authorizer, Refusal, Reservation, leases_dir
from locavore.ledger.leases import Account, Gift, Granted, LeaseStore, LeaseTable, Short, Want
from locavore.ledger.periods import FOREVER_S
from locavore.ledger.shared_leases import SharedLeases
from locavore.ledger.slices import NANO
from locavore.ledger.sqlite_leases import SqliteLeases
from locavore.ledger.valkey_leases import DEAD_S, ValkeyLeases
from tests.contracts.servers import Valkey, valkey
from tests.ledger import budget_worker

ROOT = Path(__file__).parents[2]
ACCOUNT = Account("all:*:requests:total:UTC", "", 0)
AT_A_TIME = Account("key:*:concurrent:total:UTC", "bob", 0)
Store = SqliteLeases | ValkeyLeases
Open = Callable[[], Store]


@pytest.fixture(params=["sqlite", "valkey"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            yield lambda: stack.enter_context(contextlib.closing(SqliteLeases(tmp_path)))
        else:
            server: Valkey = request.getfixturevalue("valkey_server")
            redis.Redis.from_url(server.url).flushall()
            yield lambda: stack.enter_context(
                contextlib.closing(ValkeyLeases(server.url, timeout_s=5))
            )


def want(need: int, limit: int = 100, *, hard: bool = True, account: Account = ACCOUNT) -> Want:
    return Want(account, 0, limit, need, hard, FOREVER_S)


def gift(amount: int, *, last: bool = False, account: Account = ACCOUNT) -> Gift:
    return Gift(account, amount, last, FOREVER_S)


def test_slices_shrink_to_the_need_and_end_at_the_limit(open_store: Open) -> None:
    store = open_store()
    taken = []
    while isinstance(answer := store.take("h", [want(1)]), list):
        taken.append(answer[0].amount)
    assert answer == Short(ACCOUNT, 0)
    assert taken[0] == 100 // 16
    assert taken[-1] == 1
    assert sum(taken) == store.committed()[ACCOUNT] == 100


def test_all_wants_are_met_or_none(open_store: Open) -> None:
    store = open_store()
    other = Account("key:*:tokens:day:UTC", "bob", 86_400)
    assert store.take("h", [want(1), want(7, 5, account=other)]) == Short(other, 5)
    assert sum(store.committed().values()) == 0
    answer = store.take("h", [want(1), want(5, 5, account=other)])
    assert answer == [Granted(6, 94), Granted(5, 0)]


def test_what_is_given_back_is_free_for_others_and_debts_count(open_store: Open) -> None:
    first, second = open_store(), open_store()
    first.take("a", [want(100)])
    assert second.take("b", [want(1)]) == Short(ACCOUNT, 0)
    first.give("a", [gift(30)])
    assert second.take("b", [want(20)]) == [Granted(20, 10)]
    first.give("a", [gift(-15)])  # spent more than it held
    assert second.take("b", [want(1)]) == Short(ACCOUNT, -5)


def test_a_soft_limit_is_passed_and_says_so(open_store: Open) -> None:
    store = open_store()
    store.take("h", [want(100)])
    assert store.take("h", [want(7, hard=False)]) == [Granted(7, -7)]


def test_numbers_stay_exact_up_to_nine_million_dollars(open_store: Open) -> None:
    store = open_store()
    limit = 9_000_000 * 10**9
    store.take("h", [want(limit - 1, limit)])
    assert store.take("h", [want(2, limit)]) == Short(ACCOUNT, 1)
    assert store.take("h", [want(1, limit)]) == [Granted(1, 0)]


def test_a_dead_holders_slices_come_back_but_for_what_it_used(
    open_store: Open, tmp_path: Path
) -> None:
    store = open_store()
    table = LeaseTable(leases_dir(tmp_path))
    slots = [table.slot(), table.slot()]
    store.take(
        table.holder,
        [
            want(40)._replace(slot=slots[0]),
            want(3, 10, account=AT_A_TIME)._replace(slot=slots[1]),
        ],
    )
    for slot, used in zip(slots, (15, 3), strict=True):
        table.cells[slot] = used
    assert store.recover(leases_dir(tmp_path), now_s=0) == 0  # it lives
    fcntl.flock(table._lock, fcntl.LOCK_UN)
    assert store.recover(leases_dir(tmp_path), now_s=0) == 2
    assert store.committed() == {ACCOUNT: 15, AT_A_TIME: 0}
    assert store.recover(leases_dir(tmp_path), now_s=0) == 0
    assert list(leases_dir(tmp_path).iterdir()) == []


def test_c60_of_1000_calls_in_4_processes_a_budget_for_3_admits_3(
    open_store: Open, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = open_store()
    env = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    if isinstance(store, ValkeyLeases):
        env["LEASES_URL"] = store._url
    command = [sys.executable, str(budget_worker.__file__), "burst", str(tmp_path), "250"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        for _ in range(4)
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write(b"\n")
            process.stdin.flush()
        assert sum(int(p.stdout.readline()) for p in processes if p.stdout) == 3
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert store.recover(leases_dir(tmp_path), now_s=0) > 0
    assert sum(store.committed().values()) == 3 * budget_worker.WORST_USD * NANO


def test_a_silent_holder_of_another_machine_is_taken_for_dead(
    valkey_server: Valkey, tmp_path: Path
) -> None:
    client = redis.Redis.from_url(valkey_server.url)
    client.flushall()
    with contextlib.closing(ValkeyLeases(valkey_server.url, timeout_s=5)) as store:
        store.take("elsewhere", [want(10), want(3, 10, account=AT_A_TIME)])
        assert store.recover(tmp_path, now_s=0) == 0
        client.zincrby("{locavore}:h", -DEAD_S - 1, "elsewhere")
        store.beat("elsewhere")
        assert store.recover(tmp_path, now_s=0) == 0  # it was only slow
        client.zincrby("{locavore}:h", -DEAD_S - 1, "elsewhere")
        assert store.recover(tmp_path, now_s=0) == 2
        assert store.committed() == {ACCOUNT: 10, AT_A_TIME: 0}
        # It comes back after all: what it did not spend is free, its calls are not freed twice.
        store.give("elsewhere", [gift(4, last=True), gift(3, last=True, account=AT_A_TIME)])
        assert store.committed() == {ACCOUNT: 6, AT_A_TIME: 0}


def limits(home: Path, store: LeaseStore, quota: Quota) -> Authorizer:
    return Authorizer([quota], store, LeaseTable(leases_dir(home)), clock=lambda: 4e9)


def test_c81_a_lost_limiter_leaves_each_node_its_share_and_is_told_afterwards(
    tmp_path: Path, valkey_server: Valkey
) -> None:
    quota = Quota(scope="all", unit="requests", limit=Decimal(12), period="day")
    clock = [0.0]
    with valkey() as server:
        nodes = []
        for name in ("one", "two", "three"):
            shared = SharedLeases(
                ValkeyLeases(server.url, timeout_s=1),
                SqliteLeases(tmp_path / name),
                nodes=3,
                clock=lambda: clock[0],
            )
            nodes.append(limits(tmp_path / name, shared, quota))
        server.kill()
        admitted = [take_all(node) for node in nodes]
        assert admitted == [4, 4, 4]  # 12 ÷ 3 each, not 12 each
    # The server comes back, empty: what was spent meanwhile is booked there.
    clock[0] += 10
    client = redis.Redis.from_url(valkey_server.url)
    client.flushall()
    for node in nodes:
        shared_leases = node._leases
        assert isinstance(shared_leases, SharedLeases)
        shared_leases._shared = ValkeyLeases(valkey_server.url, timeout_s=5)
        node.tick()
    with contextlib.closing(ValkeyLeases(valkey_server.url, timeout_s=5)) as store:
        assert sum(store.committed().values()) == 12
    for node in nodes:
        assert isinstance(node.reserve(None, None, None, 0), Refusal)


def take_all(node: Authorizer) -> int:
    count = 0
    while isinstance(made := node.reserve(None, None, None, 0), Reservation):
        node.settle(made, None, None)
        count += 1
    return count


def test_c80_a_frozen_limiter_costs_bounded_time(tmp_path: Path) -> None:
    with valkey() as server, contextlib.closing(ValkeyLeases(server.url)) as store:
        store.take("h", [want(1)])
        os.kill(server.process.pid, 19)  # SIGSTOP: connected, and silent
        with pytest.raises(StoreError, match="do not answer"):
            store.take("h", [want(1)])
        os.kill(server.process.pid, 18)


def test_a_password_is_in_no_message() -> None:
    store = ValkeyLeases("redis://user:hunter2@127.0.0.1:1/0")
    with pytest.raises(StoreError) as caught:
        store.take("h", [want(1)])
    assert "hunter2" not in caught.value.message
    store.close()
