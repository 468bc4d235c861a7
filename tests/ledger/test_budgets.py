"""Budgets and limits: never past them, whatever is interleaved and whoever dies."""

import contextlib
import fcntl
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from locavore.core.access import Grant, Period, Quota
from locavore.core.money import Price, Rate
from locavore.ledger.budgets import Authorizer, Refusal, Reservation, leases_dir, worst_case_usd
from locavore.ledger.leases import Gift, Granted, LeaseTable, Short, Want
from locavore.ledger.periods import bounds
from locavore.ledger.slices import NANO, limit_of
from locavore.ledger.sqlite_leases import SqliteLeases, leases_path
from tests.ledger import budget_worker

ROOT = Path(__file__).parents[2]
NOON_S = 1_767_268_800.0
CENT = Decimal("0.01")


class Clock:
    now_s = NOON_S

    def __call__(self) -> float:
        return self.now_s


def quota(unit: str = "usd", limit: str = "1", **changes: Any) -> Quota:
    fields = {"scope": "all", "unit": unit, "limit": Decimal(limit), "period": "day"}
    return Quota(**cast(Any, fields | changes))


def open_limits(
    home: Path, *quotas: Quota, clock: Clock | None = None, **options: Any
) -> Authorizer:
    table = LeaseTable(leases_dir(home))
    return Authorizer(quotas, SqliteLeases(home), table, clock=clock or Clock(), **options)


def kill(limits: Authorizer) -> None:
    """What the kernel does to a killed process: the lock goes, the memory stays in the file."""
    fcntl.flock(limits._table._lock, fcntl.LOCK_UN)
    limits._leases.close()


def recover(home: Path, now_s: float = NOON_S) -> int:
    with contextlib.closing(SqliteLeases(home)) as store:
        return store.recover(leases_dir(home), now_s=now_s)


def committed(home: Path) -> int:
    with contextlib.closing(SqliteLeases(home)) as store:
        return sum(store.committed().values())


def admitted(answer: Reservation | Refusal) -> Reservation:
    assert isinstance(answer, Reservation), answer
    return answer


def refused(answer: Reservation | Refusal) -> Refusal:
    assert isinstance(answer, Refusal)
    return answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Books(RuleBasedStateMachine):
    """Any interleaving of reserve, settle, release, tick, restart, death and recovery."""

    LIMIT = 1000

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.quotas = (
            quota("tokens", str(self.LIMIT), period="total"),
            quota("tokens", str(self.LIMIT // 2), scope="key", period="total"),
        )
        self.grants = [Grant(name="a"), Grant(name="b"), None]
        self.workers = [self.start() for _ in range(3)]
        self.flying: list[list[tuple[Reservation, str, int]]] = [[], [], []]
        self.spent = {"": 0, "a": 0, "b": 0}
        self.lost = {"": 0, "a": 0, "b": 0}
        """Reserved by calls whose process was killed: booked at their worst case."""

    def start(self) -> Authorizer:
        return open_limits(self.home, *self.quotas, clock=self.clock)

    @rule(who=st.integers(0, 2), grant=st.integers(0, 2), tokens=st.integers(0, 120))
    def reserve(self, who: int, grant: int, tokens: int) -> None:
        made = self.workers[who].reserve(self.grants[grant], None, None, tokens)
        if isinstance(made, Reservation):
            self.flying[who].append((made, "ab "[grant].strip(), tokens))

    @precondition(lambda self: any(self.flying))
    @rule(data=st.data(), share=st.sampled_from([0.0, 0.3, 1.0]))
    def settle(self, data: st.DataObject, share: float) -> None:
        who = data.draw(st.sampled_from([n for n in range(3) if self.flying[n]]))
        made, name, worst = self.flying[who].pop(0)
        self.workers[who].settle(made, None, int(worst * share))
        self._count(self.spent, name, int(worst * share))

    @precondition(lambda self: any(self.flying))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from([n for n in range(3) if self.flying[n]]))
        self.workers[who].release(self.flying[who].pop()[0])

    @staticmethod
    def _count(counts: dict[str, int], name: str, tokens: int) -> None:
        counts[""] += tokens
        if name:
            counts[name] += tokens

    @rule(who=st.integers(0, 2))
    def tick(self, who: int) -> None:
        self.workers[who].tick()

    @rule(who=st.integers(0, 2))
    def kill_one(self, who: int) -> None:
        kill(self.workers[who])
        for _, name, worst in self.flying[who]:
            self._count(self.lost, name, worst)
        self.flying[who] = []
        self.workers[who] = self.start()

    @rule()
    def recover(self) -> None:
        recover(self.home)

    @rule(later_s=st.sampled_from([0.05, 1.0]))
    def wait(self, later_s: float) -> None:
        self.clock.now_s += later_s

    @invariant()
    def no_limit_is_passed(self) -> None:
        flying = [(name, worst) for calls in self.flying for _, name, worst in calls]
        total = self.spent[""] + self.lost[""] + sum(worst for _, worst in flying)
        assert total <= self.LIMIT
        for key in "ab":
            own = sum(worst for name, worst in flying if name == key)
            assert self.spent[key] + self.lost[key] + own <= self.LIMIT // 2

    def teardown(self) -> None:
        for worker, calls in zip(self.workers, self.flying, strict=True):
            for made, _, _ in calls:
                worker.release(made)
            worker.close()
        recover(self.home)
        with contextlib.closing(SqliteLeases(self.home)) as store:
            found = {account.subject: value for account, value in store.committed().items()}
        for name in self.spent:
            assert found.get(name, 0) == self.spent[name] + self.lost[name]
        assert list(leases_dir(self.home).iterdir()) == []
        shutil.rmtree(self.home)


TestBooks = Books.TestCase  # C61: no free spend, no leak
TestBooks.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@contextlib.contextmanager
def spender(*args: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, str(budget_worker.__file__), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def say(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.write(b"\n")
    process.stdin.flush()


def line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout
    return process.stdout.readline()


def test_c60_of_1000_calls_in_4_processes_a_budget_for_3_admits_3(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(spender("burst", str(tmp_path), "250")) for _ in range(4)]
        assert [line(p) for p in processes] == [b"ready\n"] * 4
        for process in processes:
            say(process)
        assert sum(int(line(p)) for p in processes) == 3
    # All four are killed with their calls in flight: these count as spent.
    assert recover(tmp_path) > 0
    assert committed(tmp_path) == 3 * budget_worker.WORST_USD * NANO


def crash_round(home: Path, after: int) -> None:
    """Four processes spend; each is killed somewhere in the middle of it."""
    outputs = []
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(spender("steady", str(home))) for _ in range(4)]
        for n, process in enumerate(processes):
            assert process.stdout
            head = process.stdout.read(1 + (after * (n + 1)) % 97)
            process.kill()
            outputs.append(head + process.stdout.read())
    recover(home)
    settled = sum(output.count(b"-") for output in outputs)
    # At most one call of each was in flight or settled without having said so.
    least = settled * budget_worker.ACTUAL_USD
    assert least <= committed(home) / NANO <= least + 4 * budget_worker.WORST_USD
    assert committed(home) <= budget_worker.LARGE.limit * NANO
    assert recover(home) == 0
    assert list(leases_dir(home).iterdir()) == []


@pytest.mark.parametrize("after", range(3, 8))
def test_c61_kill_9_leaves_no_reservation_stuck_and_no_free_spend(
    tmp_path: Path, after: int
) -> None:
    crash_round(tmp_path, after)


@pytest.mark.torture
@pytest.mark.parametrize("after", range(100, 175))
def test_c61_three_hundred_crashes(tmp_path: Path, after: int) -> None:
    crash_round(tmp_path, after)


def test_what_one_worker_does_not_need_the_other_gets(tmp_path: Path) -> None:
    first, second = (open_limits(tmp_path, quota("requests", "10")) for _ in range(2))
    held = [admitted(first.reserve(None, None, None, 0)) for _ in range(10)]
    refused(second.reserve(None, None, None, 0))
    for reservation in held[:4]:
        first.release(reservation)
    second._clock = lambda: NOON_S + 1
    for _ in range(4):
        admitted(second.reserve(None, None, None, 0))
    refused(second.reserve(None, None, None, 0))


def test_every_quota_binds_or_none_is_charged(tmp_path: Path) -> None:
    limits = open_limits(
        tmp_path,
        quota(scope="tenant"),
        quota(scope="team", limit="0.05"),
        quota("requests", "3", scope="key", period="minute"),
        quota("requests", "2", scope="user"),
    )
    bob = Grant(name="bob", tenant="acme", team="red")
    eve = Grant(name="eve", tenant="acme", team="red")
    assert refused(limits.reserve(bob, "u1", Decimal("0.06"), 0)).quota.scope == "team"
    for user in ("u1", "u1", "u2"):
        limits.settle(admitted(limits.reserve(bob, user, CENT, 0)), CENT, None)
    assert refused(limits.reserve(eve, "u1", CENT, 0)).subject == "u1"
    assert refused(limits.reserve(bob, "u3", CENT, 0)).quota.scope == "key"
    for user in ("u3", "u4"):
        limits.settle(admitted(limits.reserve(eve, user, CENT, 0)), CENT, None)
    assert refused(limits.reserve(eve, "u5", CENT, 0)).subject == "acme/red"
    other = Grant(name="joe", tenant="other")
    admitted(limits.reserve(other, "u6", CENT, 0))
    limits.tick()
    assert committed(tmp_path) > 0


def test_c103_a_minted_key_spends_from_its_parents_budget(tmp_path: Path) -> None:
    own = Quota(scope="key", name="p", unit="requests", limit=Decimal(3), period="day")
    limits = open_limits(tmp_path)
    for name in ("p", "c", "c"):
        admitted(limits.reserve(Grant(name=name, quotas=(own,)), None, None, 0))
    assert refused(limits.reserve(Grant(name="c", quotas=(own,)), None, None, 0)).subject == "p"


def test_a_refusal_tells_what_is_left_from_what_is_used_up(tmp_path: Path) -> None:
    limits = open_limits(tmp_path, quota("requests", "1", period="day"))
    admitted(limits.reserve(None, None, None, 0))
    said = refused(limits.reserve(None, None, None, 0)).error().message
    assert "is used up: 1 requests per day" in said
    assert "left" not in said
    tokens = open_limits(tmp_path, quota("tokens", "100", period="day"))
    said = refused(tokens.reserve(None, None, None, 500)).error().message
    assert said.startswith("this call could exceed the limit of ")
    assert said.endswith("100 tokens per day, 100 left; a smaller max_tokens asks for less")


def test_c62_an_unknown_price_is_refused_under_a_budget_in_dollars(tmp_path: Path) -> None:
    limits = open_limits(tmp_path, quota())
    refusal = refused(limits.reserve(None, None, None, 10))
    assert (refusal.code, refusal.status) == ("unknown_price", 403)
    assert "set `price`" in refusal.error().message
    admitted(open_limits(tmp_path, quota(hard=False)).reserve(None, None, None, 10))
    admitted(open_limits(tmp_path, quota("tokens", "100")).reserve(None, None, None, 10))


def test_c62_an_unknown_cost_settles_at_the_worst_case(tmp_path: Path) -> None:
    limits = open_limits(tmp_path, quota(limit="0.02"))
    limits.settle(admitted(limits.reserve(None, None, CENT, 0)), None, None)
    limits.settle(admitted(limits.reserve(None, None, CENT, 0)), None, None)
    assert refused(limits.reserve(None, None, CENT, 0)).left == 0


def test_what_costs_more_than_its_worst_case_is_booked_all_the_same(tmp_path: Path) -> None:
    limits = open_limits(tmp_path, quota(limit="0.05"))
    limits.settle(admitted(limits.reserve(None, None, CENT, 0)), Decimal("0.07"), None)
    assert committed(tmp_path) == Decimal("0.07") * NANO
    assert refused(limits.reserve(None, None, CENT, 0)).left == 0


def test_a_soft_budget_flags_and_serves(tmp_path: Path) -> None:
    limits = open_limits(tmp_path, quota(limit="0.02", hard=False))
    flags = []
    for _ in range(4):
        reservation = admitted(limits.reserve(None, None, CENT, 0))
        flags.append(reservation.flags)
        limits.settle(reservation, CENT, None)
    assert flags == [(), (), ("over_budget",), ("over_budget",)]


def test_calls_at_a_time_are_free_again_when_they_end_or_die(tmp_path: Path) -> None:
    at_a_time = quota("concurrent", "2", period="total")
    first, second = open_limits(tmp_path, at_a_time), open_limits(tmp_path, at_a_time)
    running = admitted(first.reserve(None, None, None, 0))
    admitted(second.reserve(None, None, None, 0))
    assert refused(first.reserve(None, None, None, 0)).retry_after_s == 1.0
    first.settle(running, None, None)
    first._clock = lambda: NOON_S + 1
    admitted(first.reserve(None, None, None, 0))
    kill(second)
    recover(tmp_path)
    first._clock = lambda: NOON_S + 2
    admitted(first.reserve(None, None, None, 0))
    refused(first.reserve(None, None, None, 0))


def test_a_new_period_has_its_own_limit_and_returns_the_old_slice(
    tmp_path: Path, clock: Clock
) -> None:
    limits = open_limits(tmp_path, quota("requests", "1", period="minute"), clock=clock)
    over_midnight = admitted(limits.reserve(None, None, None, 0))
    refusal = refused(limits.reserve(None, None, None, 0))
    assert refusal.retry_after_s == 60
    clock.now_s += 60
    admitted(limits.reserve(None, None, None, 0))
    limits.release(over_midnight)
    limits.tick()
    assert committed(tmp_path) == 1  # the second minute's


def test_c85_a_clock_that_jumps_neither_gives_money_away_nor_locks_out(
    tmp_path: Path, clock: Clock
) -> None:
    limits = open_limits(tmp_path, quota("requests", "2", period="hour"), clock=clock)
    limits.settle(admitted(limits.reserve(None, None, None, 0)), None, None)
    clock.now_s += 3600
    limits.settle(admitted(limits.reserve(None, None, None, 0)), None, None)
    limits.tick()
    clock.now_s -= 3600
    limits.tick()
    admitted(limits.reserve(None, None, None, 0))
    refused(limits.reserve(None, None, None, 0))


def test_a_reload_changes_limits_and_keeps_what_is_spent(tmp_path: Path) -> None:
    limits = open_limits(tmp_path, quota("requests", "2"))
    for _ in range(2):
        limits.settle(admitted(limits.reserve(None, None, None, 0)), None, None)
    refused(limits.reserve(None, None, None, 0))
    limits.load([quota("requests", "3")])
    admitted(limits.reserve(None, None, None, 0))
    refused(limits.reserve(None, None, None, 0))


def test_c80_a_locked_store_refuses_or_serves_as_declared(tmp_path: Path) -> None:
    closed = open_limits(tmp_path, quota("requests", "5"))
    opened = open_limits(tmp_path, quota("requests", "5"), fail_open=True)
    for limits in (closed, opened):
        cast(SqliteLeases, limits._leases)._db.execute("PRAGMA busy_timeout = 10")
    with contextlib.closing(sqlite3.connect(leases_path(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refusal = refused(closed.reserve(None, None, None, 0))
        assert (refusal.status, refusal.code) == (503, "limits_unavailable")
        served = admitted(opened.reserve(None, None, None, 0))
        assert served.flags == ("limits_unavailable",)
        opened.settle(served, None, None)
        other.execute("ROLLBACK")
    opened.tick()
    opened.close()
    assert committed(tmp_path) == 1  # booked afterwards


class Asked:
    """A store that counts how often calls wait for it."""

    def __init__(self, store: SqliteLeases) -> None:
        self._store = store
        self.times = 0

    def take(self, holder: str, wants: Sequence[Want]) -> list[Granted] | Short:
        self.times += 1
        return self._store.take(holder, wants)

    def give(self, holder: str, gifts: Sequence[Gift]) -> None:
        self.times += 1
        self._store.give(holder, gifts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_c80_of_many_calls_one_a_second_waits_for_a_locked_store(tmp_path: Path) -> None:
    limits = open_limits(tmp_path, quota("requests", "7"))
    store = cast(SqliteLeases, limits._leases)
    store._db.execute("PRAGMA busy_timeout = 10")
    held = [admitted(limits.reserve(None, None, None, 0)) for _ in range(3)]
    asked = Asked(store)
    limits._leases = cast(SqliteLeases, asked)
    with contextlib.closing(sqlite3.connect(leases_path(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(50):
            assert refused(limits.reserve(None, None, None, 0)).code == "limits_unavailable"
        for made in held:
            limits.release(made)
        assert asked.times == 2  # a take and a gift
        other.execute("ROLLBACK")
    limits.tick()  # a second later
    limits.settle(admitted(limits.reserve(None, None, None, 0)), None, None)
    limits.close()
    assert committed(tmp_path) == 1


def test_an_idle_worker_keeps_nothing(tmp_path: Path) -> None:
    limits = open_limits(tmp_path, quota("tokens", "1000"))
    limits.settle(admitted(limits.reserve(None, None, None, 10)), None, 4)
    assert committed(tmp_path) > 4
    limits.tick()
    limits.tick()
    assert committed(tmp_path) == 4
    assert recover(tmp_path) == 0


def test_the_client_is_told_its_limits(tmp_path: Path) -> None:
    limits = open_limits(
        tmp_path, quota("requests", "10", period="minute"), quota("tokens", "1000"), quota()
    )
    headers = dict(limits.headers(admitted(limits.reserve(None, None, CENT, 100))))
    assert headers == {
        b"x-ratelimit-limit-requests": b"10",
        b"x-ratelimit-remaining-requests": b"9",
        b"x-ratelimit-reset-requests": b"60s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"900",
        b"x-ratelimit-reset-tokens": b"43200s",
    }


@pytest.mark.parametrize(
    ("period", "moment", "start", "end"),
    [
        ("day", "2026-03-29T12:00", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"),
        ("day", "2026-10-25T12:00", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"),
        ("month", "2026-03-31T23:59", "2026-03-01T00:00+01:00", "2026-04-01T00:00+02:00"),
        ("month", "2028-02-29T00:00", "2028-02-01T00:00+01:00", "2028-03-01T00:00+01:00"),
        ("month", "2026-12-31T23:59", "2026-12-01T00:00+01:00", "2027-01-01T00:00+01:00"),
        ("week", "2026-10-25T12:00", "2026-10-19T00:00+02:00", "2026-10-26T00:00+01:00"),
    ],
)
def test_c72_periods_begin_at_the_payers_midnight(
    period: Period, moment: str, start: str, end: str
) -> None:
    berlin = datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    first, last = bounds(period, "Europe/Berlin", berlin.timestamp())
    assert first == datetime.fromisoformat(start).timestamp()
    assert last == datetime.fromisoformat(end).timestamp()


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "UTC"])
@pytest.mark.parametrize("period", ["minute", "hour", "day", "week", "month"])
def test_c72_periods_follow_on_each_other_without_gap(zone: str, period: Period) -> None:
    start, end = bounds(period, zone, NOON_S)
    for _ in range(60):
        assert bounds(period, zone, end - 1) == (start, end)
        start, end = end, bounds(period, zone, end)[1]
        assert bounds(period, zone, start)[0] == start


def test_a_zone_or_limit_that_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match="'Europe/Atlantis'"):
        bounds("day", "Europe/Atlantis", NOON_S)
    with pytest.raises(ValueError, match="10000000"):
        limit_of(quota(limit="10000000"))
    with pytest.raises(ValueError, match="'day'"):
        limit_of(quota("concurrent", "2"))


def test_the_worst_case_takes_the_dearest_kind_of_prompt() -> None:
    plain = Rate(input_mtok=Decimal(1), output_mtok=Decimal(4))
    writes = Rate(input_mtok=Decimal(1), output_mtok=Decimal(4), cache_write_mtok=Decimal("1.25"))
    tokens = {"input_tokens": 1_000_000, "output_tokens": 500_000}
    assert worst_case_usd(Price(rate=plain, source="t"), **tokens) == 3
    assert worst_case_usd(Price(rate=writes, source="t"), **tokens) == Decimal("3.25")
    assert worst_case_usd(None, **tokens) is None
