"""What every lease store promises, run against each: a SQLite file, a Valkey or Redis server."""

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from locavore.core.access import Quota
from locavore.core.errors import StoreError
from locavore.ledger.budgets import Authorizer, Refusal, Reservation, leases_dir
from locavore.ledger.leases import Account, Gift, Granted, LeaseStore, LeaseTable, Short, Want
from locavore.ledger.periods import FOREVER_S
from locavore.ledger.shared_leases import SharedLeases
from locavore.ledger.slices import NANO
from locavore.ledger.sqlite_leases import SqliteLeases
from locavore.ledger.valkey_leases import DEAD_S, ValkeyLeases
from tests.contracts.proxy import StallingProxy, stalled
from tests.contracts.servers import Valkey, valkey
from tests.e2e.serving import eventually
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
    redis.Redis.from_url(valkey_server.url).flushall()
    with StallingProxy(valkey_server.socket) as proxy, contextlib.ExitStack() as stack:
        nodes = []
        for name in ("one", "two", "three"):
            far = ValkeyLeases(f"redis://127.0.0.1:{proxy.port}/0", timeout_s=2)
            near = SqliteLeases(tmp_path / name)
            shared = stack.enter_context(
                contextlib.closing(SharedLeases(far, near, nodes=3, retry_s=0.01))
            )
            nodes.append(limits(tmp_path / name, shared, quota))
        with stalled(proxy):
            admitted = [take_all(node) for node in nodes]
            assert admitted == [4, 4, 4]  # 12 ÷ 3 each, not 12 each
        store = stack.enter_context(
            contextlib.closing(ValkeyLeases(valkey_server.url, timeout_s=5))
        )
        eventually(lambda: _booked(nodes, store) == 12, "booked, with no restart")
        for node in nodes:
            assert isinstance(node.reserve(None, None, None, 0), Refusal)


def _booked(nodes: list[Authorizer], store: ValkeyLeases) -> int:
    for node in nodes:
        node.tick()
    return sum(store.committed().values())


def test_c81_a_second_outage_begins_with_what_the_first_one_left(
    tmp_path: Path, valkey_server: Valkey
) -> None:
    redis.Redis.from_url(valkey_server.url).flushall()
    with StallingProxy(valkey_server.socket) as proxy:
        far = ValkeyLeases(f"redis://127.0.0.1:{proxy.port}/0", timeout_s=2)
        shared = SharedLeases(far, SqliteLeases(tmp_path), nodes=2, retry_s=0.01)
        with contextlib.closing(shared):
            with stalled(proxy):
                assert shared.take("h", [want(8, 16)]) == [Granted(8, 0)]
                assert shared.take("h", [want(1, 16)]) == Short(ACCOUNT, 0)
            eventually(lambda: not shared.lost, "it answers again")
            eventually(lambda: _books(shared) == {ACCOUNT: 8}, "booked")
            with stalled(proxy):
                assert shared.take("h", [want(5, 16)]) == Short(ACCOUNT, 4)


def _books(shared: SharedLeases) -> dict[Account, int]:
    shared.beat("h")
    return shared.committed()


def test_c80_a_take_without_an_answer_is_undone_and_a_gift_is_given_once(
    valkey_server: Valkey,
) -> None:
    redis.Redis.from_url(valkey_server.url).flushall()
    with StallingProxy(valkey_server.socket) as proxy:
        store = ValkeyLeases(f"redis://127.0.0.1:{proxy.port}/0", timeout_s=2)
        with contextlib.closing(store):
            assert store.take("h", [want(40)]) == [Granted(40, 60)]
            with stalled(proxy), pytest.raises(StoreError, match="do not answer"):
                store.take("h", [want(7)])
            proxy.flush()  # the server has done it, and nobody heard
            assert store.committed() == {ACCOUNT: 47}
            store.beat("h")
            assert store.committed() == {ACCOUNT: 40}
            with stalled(proxy):
                store.give("h", [gift(10)])
            store.beat("h")
            store.beat("h")
            assert store.committed() == {ACCOUNT: 30}


class Unreliable(ValkeyLeases):
    """Each step may be lost, done without an answer, or done only when the server wakes up."""

    def __init__(self, url: str) -> None:
        super().__init__(url, timeout_s=5)
        self.fates: list[str] = []
        self.late: list[tuple[Any, list[str | int]]] = []

    def _run(self, script: Any, args: list[str | int]) -> Any:
        fate = self.fates.pop() if self.fates else "answered"
        if fate == "late":
            self.late.append((script, args))
        answer = super()._run(script, args) if fate in ("answered", "unheard") else None
        if fate != "answered":
            raise StoreError(fate)
        return answer


STEP = st.tuples(
    st.sampled_from(["take", "give", "beat", "wake"]),
    st.integers(1, 9),
    st.sampled_from(["answered", "answered", "lost", "unheard", "late"]),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, max_size=30))
def test_c60_whatever_is_lost_on_the_way_what_is_committed_is_what_is_held(
    valkey_server: Valkey, steps: list[tuple[str, int, str]]
) -> None:
    redis.Redis.from_url(valkey_server.url).flushall()
    with contextlib.closing(Unreliable(valkey_server.url)) as store:
        held = 0
        for what, amount, fate in steps:
            store.fates = [fate]
            with contextlib.suppress(StoreError):
                if what == "take":
                    answer = store.take("h", [want(amount)])
                    held += 0 if isinstance(answer, Short) else answer[0].amount
                elif what == "give" and held:
                    store.give("h", [gift(min(amount, held))])
                    held -= min(amount, held)
                elif what == "beat":
                    store.beat("h")
                elif what == "wake":
                    for script, args in store.late:
                        ValkeyLeases._run(store, script, args)
                    store.late.clear()
            assert held <= 100
        store.fates = []
        store.beat("h")
        for script, args in store.late:
            ValkeyLeases._run(store, script, args)
        assert store.committed().get(ACCOUNT, 0) == held


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


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    ],
    ids=["full", "read-only"],
)
def test_c80_a_limiter_that_takes_no_writes_is_lost_and_found_again(
    tmp_path: Path, valkey_server: Valkey, broken: str, mended: str
) -> None:
    client = redis.Redis.from_url(valkey_server.url)
    client.flushall()
    far = ValkeyLeases(valkey_server.url, timeout_s=5)
    with contextlib.closing(
        SharedLeases(far, SqliteLeases(tmp_path), nodes=2, retry_s=0.01)
    ) as shared:
        assert shared.take("h", [want(10)]) == [Granted(10, 90)]
        try:
            client.execute_command(*broken.split())  # type: ignore[no-untyped-call]
            assert shared.take("h", [want(46)]) == Short(ACCOUNT, 45)  # 90 ÷ 2
            assert shared.lost
            assert shared.take("h", [want(45)]) == [Granted(45, 0)]
        finally:
            client.execute_command(*mended.split())  # type: ignore[no-untyped-call]
        eventually(lambda: not shared.lost, "it takes writes again")
        eventually(lambda: _books(shared) == {ACCOUNT: 55}, "booked")


def test_a_password_is_in_no_message() -> None:
    store = ValkeyLeases("redis://user:hunter2@127.0.0.1:1/0")
    with pytest.raises(StoreError) as caught:
        store.take("h", [want(1)])
    assert "hunter2" not in caught.value.message
    store.close()
