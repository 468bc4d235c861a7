"""`kill -9` of gateway workers under load: every answered call is in the books once, the budget
knows what was spent, and nothing stays reserved."""

import contextlib
import random
import threading
import time
from decimal import Decimal
from http.client import HTTPException
from pathlib import Path

import psutil
import pytest

from locavore.ledger.books import verify
from locavore.ledger.budgets import leases_dir
from locavore.ledger.query import open_current, report
from locavore.ledger.slices import NANO
from locavore.ledger.sqlite_leases import SqliteLeases
from locavore.testing import ScriptedUpstream, replies
from tests.conformance.client import backend
from tests.e2e.serving import QUIET, Serving, eventually

WORKERS, CLIENTS = 4, 4
PRICE = {"input_mtok": "0", "output_mtok": "1000"}
USED = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
COST_USD, WORST_USD = Decimal("0.003"), Decimal("0.01")
CONFIG = '[[budget]]\nscope = "all"\nunit = "usd"\nlimit = "100000"\nperiod = "total"\n' + QUIET


class Load:
    """Clients that call without pause and note each decision they got a whole answer for."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._stop = threading.Event()
        self.answered: list[str] = []
        self.broken: list[Exception] = []
        """Calls whose connection broke: their worker was killed."""
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._serving.chat(model="home/m", max_tokens=10)
            except (OSError, HTTPException) as error:
                self.broken.append(error)
                continue
            assert answer.status == 200, answer.body
            self.answered.append(answer.headers["x-locavore-decision"])


def kill_workers(serving: Serving, load: Load, times: int, chance: random.Random) -> None:
    for _ in range(times):
        before = len(load.answered)
        count = chance.randrange(1, 25)
        eventually(lambda b=before, n=count: len(load.answered) >= b + n, "calls are answered")  # type: ignore[misc]
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(eventually(lambda: serving.children()["workers"], "a worker")).kill()


def crash_session(home: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    with ScriptedUpstream() as upstream:
        upstream.always(replies.chat("Hello", usage=USED))
        config = backend("home/m", upstream, price=PRICE) + CONFIG
        with Serving(home, config, f"--workers={WORKERS}") as serving:
            with Load(serving) as load:
                kill_workers(serving, load, kills, chance)
            assert serving.stop() == 0, serving.stderr
    check(home, load)


def check(home: Path, load: Load) -> None:
    with contextlib.closing(open_current(home)) as db:
        booked = [row[0] for row in db.execute("SELECT id FROM calls").fetchall()]
        assert len(booked) == len(set(booked))
        assert set(load.answered) <= set(booked)
        assert len(booked) <= len(load.answered) + len(load.broken)
        assert verify(db).problems == ()
        spent = report(db).total.cost_usd
    with contextlib.closing(SqliteLeases(home)) as leases:
        leases.recover(leases_dir(home), now_s=time.time())
        (committed,) = leases.committed().values()
    # A call in flight in a killed worker has no record; the budget has it at its worst case.
    assert spent == len(booked) * COST_USD
    assert spent <= committed / NANO <= spent + len(load.broken) * WORST_USD
    assert list(leases_dir(home).glob("[!.]*")) == []


def test_c61_c83_twenty_crashes_under_load(tmp_path: Path) -> None:
    crash_session(tmp_path, kills=20, seed=1)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(2, 5))
def test_c61_c83_three_hundred_crashes_under_load(tmp_path: Path, seed: int) -> None:
    crash_session(tmp_path, kills=100, seed=seed)
