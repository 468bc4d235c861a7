"""C82: a gateway under steady load, some of it abandoned, neither grows nor leaves things lying.

`LOCAVORE_SOAK_S` sets the length; a day shows what two minutes cannot, two minutes show most leaks.
"""

import contextlib
import os
import random
import statistics
import threading
import time
from http.client import HTTPException
from pathlib import Path

import psutil
import pytest

from locavore.ledger.books import verify
from locavore.ledger.query import open_current, report
from locavore.testing import Received, Reply, ScriptedUpstream, replies
from tests.conformance.client import backend
from tests.e2e.serving import QUIET, Serving, eventually, locavore

SOAK_S = float(os.environ.get("LOCAVORE_SOAK_S", "120"))
CLIENTS = 4
ABORTED = 0.01
GROWTH = 1.04
"""The last third may use so much of what the second third used."""


class Load:
    """Clients that call without pause; one call in a hundred hangs up before its answer."""

    def __init__(self, serving: Serving, seed: int) -> None:
        self._serving = serving
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self.answered = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError, HTTPException):
                if self._chance.random() < ABORTED:
                    self._serving.open_stream(model="home/m").close()
                    continue
                stream = self._chance.random() < 0.3
                answer = self._serving.chat(model="home/m", stream=stream)
                self.answered += answer.status == 200

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.answered


def resident(processes: list[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in processes)


def watched(serving: Serving, for_s: float) -> list[int]:
    """Bytes resident in all processes of the gateway, once a second."""
    family = [psutil.Process(serving.process.pid)]
    family += family[0].children(recursive=True)
    seen, end_s = [], time.monotonic() + for_s
    while time.monotonic() < end_s:
        seen.append(resident(family))
        time.sleep(1)
    return seen


@pytest.mark.torture
@pytest.mark.timeout(SOAK_S + 300)
def test_c82_memory_stays_flat_and_the_journal_is_taken_in(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        upstream.always(_answer)
        with Serving(tmp_path, backend("home/m", upstream) + QUIET, "--workers=2") as serving:
            load = [Load(serving, seed) for seed in range(CLIENTS)]
            seen = watched(serving, SOAK_S)
            answered = sum(each.stop() for each in load)
            third = len(seen) // 3
            before, after = (
                statistics.median(part) for part in (seen[third:-third], seen[-third:])
            )
            segments = list(tmp_path.glob("journal/*/*.seg"))
            assert len(segments) <= 2 * 2, "segments that were taken in are deleted"
            eventually(lambda: _open_sockets(serving) < 40, "connections are let go")
    assert after <= before * GROWTH, f"{before / 2**20:.1f} MiB -> {after / 2**20:.1f} MiB"
    assert locavore("ledger", "prune", "--before", "1h", home=tmp_path).returncode == 0
    with contextlib.closing(open_current(tmp_path)) as db:
        total = report(db).total
        assert total.served >= answered > 0
        assert verify(db).problems == ()


def _answer(received: Received) -> Reply:
    return replies.chat_stream() if received.json.get("stream") else replies.chat()


def _open_sockets(serving: Serving) -> int:
    family = [psutil.Process(serving.process.pid)]
    family += family[0].children(recursive=True)
    return sum(len(process.net_connections()) for process in family)
