"""The time of day jumps by an hour, both ways: durations, limits and order do not follow."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from locavore.testing import Hold, Reply, ScriptedUpstream, replies
from locavore.testing.gateway import RunningGateway
from tests.conformance.client import Client, backend

HOUR_S = 3600.0
PATIENT = "[retry]\nattempts = 1\n[breaker]\nfailures = 1\nopen_s = 600\n"


class Clock:
    """The time of day, and how wrong it is."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gateway(tmp_path: Path, clock: Clock, upstream: ScriptedUpstream) -> Iterator[Client]:
    config = PATIENT + backend("home/m", upstream, max_concurrency=1)
    with RunningGateway(tmp_path / "home", config, clock=clock) as running:
        yield Client(running)


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_c85_a_jump_during_a_call_does_not_end_it_and_its_latency_is_sane(
    gateway: Client, upstream: ScriptedUpstream, clock: Clock, jump_s: float
) -> None:
    hold = Hold()
    upstream.script(Reply((hold, *replies.chat().steps)), replies.chat())
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(gateway.chat)
        assert hold.reached.wait(10)
        clock.ahead_s = jump_s
        hold.release()
        assert call.result().status == 200
    assert gateway.chat().status == 200
    first, second = gateway.records()
    for record in (first, second):
        assert 0 <= record.duration_s < 30
        assert 0 <= record.attempts[0].duration_s < 30
    # Each tells the time of day at which it began, whatever that was.
    assert abs(second.started_s - first.started_s - jump_s) < 30
    assert first.id != second.id


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_c85_an_open_breaker_stays_open_for_its_own_time(
    gateway: Client, upstream: ScriptedUpstream, clock: Clock, jump_s: float
) -> None:
    upstream.always(replies.openai_error(500))
    gateway.chat()
    asked = len(upstream.requests)
    clock.ahead_s = jump_s
    refused = gateway.chat()
    assert (refused.status, len(upstream.requests)) == (503, asked)
    assert 0 < int(refused.headers["retry-after"]) <= 600


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_c85_a_queue_neither_empties_nor_blocks(
    gateway: Client, upstream: ScriptedUpstream, clock: Clock, jump_s: float
) -> None:
    hold = Hold()
    upstream.script(Reply((hold, *replies.chat().steps)), replies.chat())
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(gateway.chat)]
        assert hold.reached.wait(10)
        calls.append(pool.submit(gateway.chat))
        clock.ahead_s = jump_s
        hold.release()
        assert [call.result().status for call in calls] == [200, 200]


def test_c85_past_calls_are_found_after_the_clock_went_back(
    gateway: Client, upstream: ScriptedUpstream, clock: Clock
) -> None:
    upstream.always(replies.chat())
    clock.ahead_s = HOUR_S
    before = gateway.chat().headers["x-locavore-decision"]
    clock.ahead_s = -HOUR_S
    after = gateway.chat().headers["x-locavore-decision"]
    for id_ in (before, after):
        assert gateway.get(f"/v1/decisions/{id_}").json["id"] == id_
    assert gateway.get("/health/ready").status == 200
