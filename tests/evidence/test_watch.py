"""Achieved quality and the monitors under simulation: workloads whose truth is known."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from math import sqrt
from random import Random

import msgspec
import pytest

from locavore.evidence.achieved import Achieved, achieved
from locavore.evidence.watch import ALPHA, Watch
from locavore.ledger.migrations import migrate
from locavore.ledger.verdicts import Explored
from locavore.routing.bounds import flawless_needed
from locavore.routing.estimators.promised import Entry
from locavore.routing.monitor import Monitor
from locavore.routing.promise import Promise, Target

TARGET = 0.9


def entry(target: float = TARGET, made_s: float = 0.0) -> Entry:
    promise = Promise(
        target=Target(quality=target),
        basis="labels",
        labels=300,
        threshold=0.0,
        share=0.5,
        quality=0.95,
        lower=target,
    )
    return Entry(
        local="home/small",
        cloud="cloud/big",
        pre=promise,
        local_quality=0.8,
        cloud_quality=0.9,
        made_s=made_s,
    )


class Traffic:
    """Explored calls: half are kept; `loses` of these the local model gets wrong."""

    def __init__(
        self,
        random: Random,
        loses: float,
        *,
        solved: float = 0.9,
        judged: tuple[float, float] = (1.0, 1.0),
        noise: float = 0.0,
    ) -> None:
        """`judged`: share of the calls kept at home that are judged, and of those that are not."""
        self.random = random
        self.loses = loses
        self.solved = solved
        self.judged = {True: judged[0], False: judged[1]}
        self.noise = noise
        self.made = 0

    @property
    def truth(self) -> float:
        """Achieved quality as a share of the cloud's."""
        return 1 - 0.5 * self.loses

    def call(self, promise: str) -> Explored:
        """Hard calls are explored four times as often as easy ones; they are those that lose."""
        random, self.made = self.random, self.made + 1
        hard = random.random() < 0.8  # of what is explored: half of the traffic
        kept = random.random() < 0.5
        strong = random.random() < self.solved
        weak = strong and not (hard and random.random() < 2 * self.loses)
        said = random.random() < self.judged[kept]
        return Explored(
            id=f"{self.made:09d}",
            promise=promise,
            local="home/small",
            cloud="cloud/big",
            task="code" if hard else "chat",
            kept=kept,
            propensity=0.2 if hard else 0.05,
            started_s=float(self.made),
            form_served=1.0,
            form_shadow=1.0,
            agrees=weak == strong,
            served=self._score(weak if kept else strong) if said else None,
            shadow=self._score(strong) if said and kept else None,
        )

    def _score(self, right: bool) -> float:
        wrong = self.random.random() < self.noise
        return float(right is not wrong)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        migrate(opened)
        yield opened


def write(db: sqlite3.Connection, calls: list[Explored]) -> None:
    """As ingestion and verdicts leave them."""
    last = db.execute("SELECT coalesce(max(shadow_seq), 0) FROM explored").fetchone()[0]
    said = db.execute("SELECT coalesce(max(n), 0) FROM verdicts").fetchone()[0]
    with_forms = [c for c in calls if c.form_served is not None]
    seqs = {c.id: last + k for k, c in enumerate(with_forms, 1)}
    db.execute("BEGIN")
    db.executemany(
        f"INSERT INTO explored VALUES ({', '.join('?' * 12)})",
        [
            (
                *(c.id, c.promise, c.local, c.cloud, c.task, int(c.kept), c.propensity),
                *(int(c.started_s * 1000), seqs.get(c.id), c.form_served, c.form_shadow),
                None if c.agrees is None else int(c.agrees),
            )
            for c in calls
        ],
    )
    judged = [c for c in calls if c.served is not None]
    db.executemany(
        "INSERT INTO verdicts VALUES (?, ?, ?, ?, 0)",
        [(c.id, said + k, c.served, c.shadow) for k, c in enumerate(judged, 1)],
    )
    db.execute("COMMIT")


def withdrawn(db: sqlite3.Connection, traffic: Traffic, calls: int, looks: int = 4) -> bool:
    """Whether the promise falls, looked at again and again."""
    traffic.made = db.execute("SELECT count(*) FROM explored").fetchone()[0]
    made, watch = entry(made_s=float(traffic.made)), Watch()
    for _ in range(looks):
        write(db, [traffic.call(made.id) for _ in range(calls // looks)])
        if watch.look(db, [made]):
            return True
    return False


@pytest.mark.parametrize("judged", [(1.0, 1.0), (0.4, 1.0)], ids=["all", "unevenly"])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_promise_that_holds_is_seldom_withdrawn(
    db: sqlite3.Connection, judged: tuple[float, float], noise: float
) -> None:
    random, runs = Random(3), 100
    loses = 2 * (1 - TARGET)  # exactly at the promise: the hardest honest case
    fallen = sum(
        withdrawn(db, Traffic(random, loses, judged=judged, noise=noise), 160) for _ in range(runs)
    )
    assert fallen <= runs * ALPHA + 3.1 * sqrt(runs * ALPHA * (1 - ALPHA))


@pytest.mark.parametrize("judged", [(1.0, 1.0), (0.5, 1.0), (1.0, 0.0)])
def test_a_promise_that_breaks_is_withdrawn(
    db: sqlite3.Connection, judged: tuple[float, float]
) -> None:
    random, runs = Random(5), 12
    fallen = sum(withdrawn(db, Traffic(random, 0.5, judged=judged), 800) for _ in range(runs))
    assert fallen == runs


def test_a_long_good_time_costs_a_later_discovery_little() -> None:
    random, found = Random(29), []
    for _ in range(20):
        monitor = Monitor(0.95, alpha=0.025)
        for good in (True, False):
            losing, since = (0.01, monitor.n) if good else (0.35, monitor.n)
            while not monitor.withdrawn and monitor.n - since < (3000 if good else 500):
                lost = random.random() < losing
                monitor.observe(kept=True, weak=float(not lost), strong=1.0)
        found.append(monitor.n - 3000)
    assert all(0 < n < 300 for n in found)


def test_a_drift_is_found_within_some_hundred_judged_calls(db: sqlite3.Connection) -> None:
    made, watch, traffic = entry(), Watch(), Traffic(Random(7), loses=0.05)
    write(db, [traffic.call(made.id) for _ in range(600)])
    assert watch.look(db, [made]) == []
    traffic.loses = 0.5
    for _ in range(12):
        write(db, [traffic.call(made.id) for _ in range(50)])
        if broken := watch.look(db, [made]):
            break
    ((found, withdrawal),) = broken
    assert (found, withdrawal.judged) == (made, "quality")
    assert withdrawal.achieved.high < TARGET, "of the bad calls, not of the good ones before"
    assert withdrawal.achieved.n < 600


def test_answers_of_the_wrong_form_break_a_promise_without_any_verdict(
    db: sqlite3.Connection,
) -> None:
    made, watch, traffic = entry(), Watch(), Traffic(Random(9), loses=0.0, judged=(0.0, 0.0))
    calls = [traffic.call(made.id) for _ in range(400)]
    broken_form = [msgspec.structs.replace(c, form_served=0.0) if c.kept else c for c in calls]
    write(db, broken_form)
    ((_, withdrawal),) = watch.look(db, [made])
    assert withdrawal.judged == "form"


def test_what_a_watch_knows_survives_a_restart_and_belongs_to_one_promise(
    db: sqlite3.Connection,
) -> None:
    made, traffic = entry(), Traffic(Random(11), loses=0.35)
    running, restarted = Watch(lambda: 1.0), Watch(lambda: 1.0)
    for _ in range(40):
        write(db, [traffic.call(made.id) for _ in range(20)])
        broken = running.look(db, [made])
        assert Watch(lambda: 1.0).look(db, [made]) == broken
        if broken:
            break
    assert broken
    assert restarted.look(db, [made]) == broken
    assert restarted.look(db, [entry(made_s=1.0)]) == [], "another calibration starts anew"


@pytest.mark.parametrize("judged", [(1.0, 1.0), (0.3, 1.0)], ids=["all", "unevenly"])
def test_what_is_achieved_is_that_of_the_traffic_and_its_interval_holds(
    judged: tuple[float, float],
) -> None:
    random, made, missed, runs = Random(13), entry(), 0, 50
    means = []
    for _ in range(runs):
        traffic = Traffic(random, loses=0.2, judged=judged)
        found = whole(made, [traffic.call(made.id) for _ in range(600)])
        assert found.quality is not None
        missed += not found.quality.low <= traffic.truth <= found.quality.high
        means.append(found.quality.mean)
    assert missed <= runs * 0.05 + 3.1 * sqrt(runs * 0.05 * 0.95)
    deviation = sqrt(sum((m - sum(means) / runs) ** 2 for m in means) / runs)
    assert abs(sum(means) / runs - 0.9) < 4 * deviation / sqrt(runs)


def test_the_interval_is_about_twice_as_wide_as_the_normal_one() -> None:
    """What docs/explain/routing.md says its validity costs."""
    random, made = Random(37), entry()
    for loses in (0.1, 0.4):
        calls = [Traffic(random, loses).call(made.id) for _ in range(1500)]
        alike = [msgspec.structs.replace(c, propensity=0.1) for c in calls]
        found = whole(made, alike).quality
        assert found is not None
        pairs = [(c.served or 0.0, (c.shadow if c.kept else c.served) or 0.0) for c in alike]
        spread = sqrt(sum((got - found.mean * cloud) ** 2 for got, cloud in pairs))
        normal = 2 * 1.96 * spread / sum(cloud for _, cloud in pairs)
        assert 1.3 < (found.high - found.low) / normal < 2.7


def whole(made: Entry, calls: list[Explored]) -> Achieved:
    return achieved([made], calls)[0]


def test_quality_form_and_agreement_are_told_apart_by_task() -> None:
    made, traffic = entry(), Traffic(Random(17), loses=0.2)
    found = achieved([made, entry(made_s=5.0)], [traffic.call(made.id) for _ in range(500)])
    assert [(a.task, a.promise == made.id) for a in found] == [
        (None, True),
        ("chat", True),
        ("code", True),
        (None, False),
    ]
    every, chat, code, none = found
    assert every.quality is not None
    assert every.form is not None
    assert every.agreement is not None
    assert every.form.mean == 1.0
    assert every.agreement.mean < 1.0
    assert chat.quality is not None
    assert code.quality is not None
    assert chat.quality.mean == 1.0 > code.quality.mean
    assert chat.explored + code.explored == every.explored == 500
    assert (none.explored, none.quality, none.missing) == (0, None, flawless_needed(TARGET, 0.05))


def test_without_verdicts_on_calls_kept_at_home_there_is_no_evidence() -> None:
    made, traffic = entry(), Traffic(Random(19), loses=0.2, judged=(0.0, 1.0))
    found = whole(made, [traffic.call(made.id) for _ in range(200)])
    assert found.judged > 50
    assert (found.judged_kept, found.quality) == (0, None)


def test_as_many_flawless_calls_as_are_said_to_be_needed_confirm_a_promise() -> None:
    made, traffic = entry(), Traffic(Random(23), loses=0.0, solved=1.0)
    alike = [msgspec.structs.replace(traffic.call(made.id), propensity=0.1) for _ in range(400)]
    needed = whole(made, []).missing
    for n, confirmed in ((needed, True), (needed // 2, False)):
        found = whole(made, alike[:n])
        assert found.quality is not None
        assert (found.quality.low >= TARGET) is confirmed
