"""The promise under simulation: workloads whose truth is known."""

from math import exp, sqrt
from random import Random

import msgspec
import pytest

from locavore.routing.estimators.pair import Scored
from locavore.routing.monitor import Monitor
from locavore.routing.promise import (
    FEWEST_LABELS,
    Evidence,
    Label,
    Look,
    Promise,
    Target,
    Transfer,
    gather,
    make_promise,
)

WORKLOADS, PART = 2000, 500
"""Simulated in parts, so that no test is long."""
TARGET = Target(quality=0.95, confidence=0.9)


class Workload:
    """Calls whose chance of losing or gaining by staying local is known exactly."""

    def __init__(
        self, random: Random, *, moved: float = 0.0, shape: tuple[float, float] | None = None
    ):
        self.random = random
        self.shape = shape or (random.uniform(-3.5, -0.5), random.uniform(0.0, 2.0))
        self.moved = moved
        self.solved = 0.8

    def losing(self, score: float) -> float:
        level, slope = self.shape
        return min(max(0.8 / (1 + exp(-(level - slope * score))) + self.moved, 0.0), 0.8)

    def gaining(self, score: float) -> float:
        return 0.03

    def call(self, prompt: int, noise: float = 0.0) -> Label:
        score, chance = self.random.gauss(0, 1), self.random.random()
        lost = chance < self.losing(score)
        won = not lost and chance > 1 - self.gaining(score)
        weak = float(won or (not lost and chance < self.solved))
        strong = float(lost or (not won and chance < self.solved))
        weak, strong = self._judged(weak, noise), self._judged(strong, noise)
        return Label(look=Look(prompt=str(prompt), score=score), weak=weak, strong=strong)

    def _judged(self, score: float, noise: float) -> float:
        return 1 - score if noise and self.random.random() < noise else score

    def excess(self, promise: Promise, points: int = 400) -> float:
        """Mean of kept * gain + (1 - target) * strong: negative when the promise is false."""
        total: float = 0.0
        for k in range(points):
            score = -3.0 + 6.0 * (k + 0.5) / points
            weight: float = exp(-score * score / 2) * 6.0 / points / 2.5066
            lost, won = self.losing(score), self.gaining(score)
            kept = promise.keeps(Look(prompt="new", score=score))
            strong = self.solved  # lost and solved overlap: the cloud solves 80 % throughout
            total += weight * ((won - lost if kept else 0.0) + 0.05 * strong)
        return total


def _false_promises(noise: float, labels: int, part: int) -> tuple[int, int]:
    random = Random(7 + part)
    false = made = 0
    for _ in range(PART):
        workload = Workload(random)
        calls = [workload.call(k, noise) for k in range(labels)]
        promise = make_promise(calls, TARGET, noise=noise)
        made += promise.share > 0
        false += workload.excess(promise) < -1e-3
    return false, made


def _most(rate: float, runs: int = WORKLOADS) -> float:
    """What a true rate of `rate` stays below in all but one of a thousand runs."""
    return runs * rate + 3.1 * sqrt(runs * rate * (1 - rate))


@pytest.mark.parametrize("part", range(WORKLOADS // PART))
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_false_promises_from_labels_alone_stay_at_the_stated_rate(noise: float, part: int) -> None:
    false, made = _false_promises(noise, 240, part)
    assert made > PART / 4
    assert false <= _most(1 - TARGET.confidence, PART)


def _evidence(shape: tuple[float, float], spread: float) -> Evidence | None:
    elsewhere = Workload(Random(1), shape=shape)
    calls = [elsewhere.call(k) for k in range(4000)]
    return gather(
        [Scored(c.look.score, c.gain, c.strong) for c in calls],
        alike=Transfer(level=0.3, slope=0.15, other=0.3, task=0.3, rest=spread),
    )


@pytest.mark.parametrize("part", range(WORKLOADS // PART))
def test_false_promises_from_evidence_stay_at_the_stated_rate_over_workloads_that_differ(
    part: int,
) -> None:
    shape, spread, random = (-2.0, 1.2), 0.03, Random(11 + part)
    evidence = _evidence(shape, spread)
    false = made = 0
    for number in range(PART):
        noise = 0.05 if number % 2 else 0.0
        workload = Workload(random, shape=shape, moved=random.gauss(0, spread))
        calls = [workload.call(k, noise) for k in range(100)]
        promise = make_promise(calls, TARGET, evidence, noise=noise)
        made += promise.share > 0
        false += workload.excess(promise) < -1e-3
    assert made > PART / 2
    assert false <= _most(1 - TARGET.confidence, PART)


@pytest.mark.parametrize("informed", [False, True])
def test_a_stricter_target_never_keeps_more_local(informed: bool) -> None:
    random = Random(3)
    for _ in range(20):
        workload = Workload(random, shape=(-3.0, 1.0))
        evidence = _evidence((-3.0, 1.0), 0.03) if informed else None
        calls = [workload.call(k) for k in range(150)]
        shares = [
            make_promise(calls, Target(quality=q, confidence=c), evidence).share
            for q, c in (
                (0.8, 0.8),
                (0.9, 0.8),
                (0.9, 0.95),
                (0.95, 0.95),
                (0.98, 0.95),
                (0.99, 0.99),
            )
        ]
        assert shares == sorted(shares, reverse=True)
        assert shares[0] > 0


def test_too_few_labels_promise_nothing_and_say_how_many_are_missing() -> None:
    workload = Workload(Random(5), shape=(-6.0, 0.0))
    promise = make_promise([workload.call(k) for k in range(12)], TARGET)
    assert promise.share == 0
    assert promise.basis == "none"
    assert promise.missing == f"{FEWEST_LABELS - 12} more labelled calls"
    assert not promise.keeps(Look(prompt="x", score=99.0))


def test_labels_of_a_task_change_its_score() -> None:
    random = Random(9)
    calls = []
    for k in range(200):
        bad = k % 2 == 0
        calls.append(
            Label(
                look=Look(prompt=str(k), score=random.gauss(0, 1), task="bad" if bad else "good"),
                weak=float(not bad or random.random() < 0.4),
                strong=1.0,
            )
        )
    promise = make_promise(calls, Target(quality=0.9, confidence=0.8))
    assert promise.keeps(Look(prompt="new", score=0.0, task="good"))
    assert not promise.keeps(Look(prompt="new", score=0.0, task="bad"))


def test_one_prompt_labelled_often_is_not_many_witnesses() -> None:
    look = Look(prompt="same", score=0.0, task="one")
    labels = [Label(look=look, weak=1.0, strong=1.0) for _ in range(200)]
    promise = make_promise(labels, TARGET)
    assert promise.share == 0
    assert promise.missing == f"{FEWEST_LABELS - 1} more labelled calls"


def test_a_promise_made_on_another_estimators_scores_keeps_nothing() -> None:
    workload = Workload(Random(13), shape=(-6.0, 0.0))
    promise = make_promise([workload.call(k) for k in range(400)], TARGET, _evidence((-6, 0), 0.03))
    look = Look(prompt="new", score=3.0)
    assert promise.keeps(look)
    assert not promise.keeps(msgspec.structs.replace(look, artifact="another"))


def test_a_workload_is_like_the_evidence_when_it_is_as_familiar_neither_less_nor_more() -> None:
    evidence = _evidence((-2.0, 1.2), 0.03)
    assert evidence is not None
    known = msgspec.structs.replace(evidence, familiarity=0.6)

    def like(familiarity: float) -> float:
        look = Look(prompt="x", score=0.0, familiarity=familiarity)
        return known.like([Label(look=look, weak=1.0, strong=1.0)])

    assert like(0.6) == 1
    assert like(0.45) == like(0.75) == 0
    assert 0 < like(0.52) < 1


def test_where_all_scores_are_equal_all_stay_or_none_does() -> None:
    random = Random(15)
    calls = [
        Label(look=Look(prompt=str(k), score=0.0), weak=float(random.random() < 0.5), strong=1.0)
        for k in range(300)
    ]
    bad = make_promise(calls, TARGET, _evidence((-2.0, 1.2), 0.03))
    assert not bad.keeps(Look(prompt="new", score=0.0))
    good = make_promise(
        [msgspec.structs.replace(c, weak=1.0) for c in calls], TARGET, _evidence((-2.0, 1.2), 0.03)
    )
    assert good.share == 1
    assert good.keeps(Look(prompt="new", score=0.0))


def _served(monitor: Monitor, random: Random, losing: float, calls: int) -> None:
    for _ in range(calls):
        lost = random.random() < losing
        monitor.observe(kept=True, weak=float(not lost), strong=1.0)


def test_the_monitor_withdraws_under_drift_and_seldom_otherwise() -> None:
    random = Random(4)
    withdrawn = 0
    for _ in range(400):
        monitor = Monitor(0.95, alpha=0.05)
        _served(monitor, random, 0.05, 200)  # exactly at the promise: the hardest honest case
        withdrawn += monitor.withdrawn
    assert withdrawn <= 400 * 0.05 + 3.1 * (400 * 0.05 * 0.95) ** 0.5
    drifting = Monitor(0.95, alpha=0.05)
    history = []
    for losing, calls in ((0.03, 200), (0.25, 300)):
        _served(drifting, random, losing, calls)
        history.append(drifting.withdrawn)
    assert history == [False, True]
    achieved = drifting.achieved()
    assert achieved is not None
    assert achieved.low < achieved.mean < achieved.high < 0.95


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("explored", [(1.0, 1.0), (0.5, 0.1)], ids=["evenly", "unevenly"])
def test_promises_that_hold_are_withdrawn_at_most_at_the_stated_rate(
    noise: float, explored: tuple[float, float]
) -> None:
    """`explored`: propensity of hard calls and of easy ones; looked at after each call."""
    random, target, alpha = Random(31), 0.9, 0.05
    least = min(explored)
    withdrawn = 0
    for _ in range(WORKLOADS):
        losing, monitor = random.uniform(0.3, 1.0), Monitor(target, alpha=alpha)
        hard_share = (1 - target) / losing  # exactly at the promise: the hardest honest case
        while monitor.n < 100:
            hard = random.random() < hard_share
            propensity = explored[0] if hard else explored[1]
            if random.random() >= propensity:
                continue
            weak = 0.0 if hard and random.random() < losing else 1.0
            weak, strong = (1 - v if random.random() < noise else v for v in (weak, 1.0))
            weight = least / propensity
            if monitor.observe(kept=True, weak=weak, strong=strong, weight=weight):
                break
        withdrawn += monitor.withdrawn
    assert withdrawn <= _most(alpha)


def test_calls_explored_more_often_do_not_bias_what_is_achieved() -> None:
    random = Random(6)
    monitor = Monitor(0.9)
    for _ in range(6000):
        hard = random.random() < 0.5
        propensity = 0.5 if hard else 0.1
        if random.random() < propensity:
            monitor.observe(kept=True, weak=float(not hard), strong=1.0, weight=0.1 / propensity)
    achieved = monitor.achieved()
    assert achieved is not None
    assert achieved.low < 0.5 < achieved.high


@pytest.mark.parametrize("bad", [{"quality": 98.0}, {"confidence": 1.0}])
def test_a_target_outside_its_range_is_refused_with_its_value(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        Target(**bad)


def test_what_was_promised_is_achieved_on_new_calls_and_shown_with_its_interval() -> None:
    random = Random(21)
    workload = Workload(random, shape=(-2.5, 1.5))
    target = Target(quality=0.95, confidence=0.99)  # one draw of labels: let it be a sure one
    promise = make_promise(
        [workload.call(k) for k in range(400)], target, _evidence((-2.5, 1.5), 0.03)
    )
    assert promise.share > 0.2
    monitor, kept, gains, cloud = Monitor(TARGET.quality), 0, 0.0, 0.0
    for k in range(8000):
        call = workload.call(10_000 + k)
        stays = promise.keeps(call.look)
        kept += stays
        gains += call.gain if stays else 0.0
        cloud += call.strong
        if random.random() < 0.1:
            monitor.observe(kept=stays, weak=call.weak, strong=call.strong)
    assert workload.excess(promise) >= 0
    assert 1 + gains / cloud >= TARGET.quality - 3.1 * 0.3 / sqrt(8000)  # 8,000 calls are a sample
    assert abs(kept / 8000 - promise.share) < 0.1
    achieved = monitor.achieved()
    assert achieved is not None
    assert achieved.low < 1 + gains / cloud < achieved.high
    assert not monitor.withdrawn
