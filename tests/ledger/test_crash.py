"""`kill -9` at random moments, under load from four writers and while somebody ingests."""

import contextlib
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from locavore.ledger.query import open_current
from tests.ledger import crash_ingester, crash_writer

ROOT = Path(__file__).parents[2]
WRITERS = 4


@contextlib.contextmanager
def running(module: str | None, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    assert module
    process = subprocess.Popen(
        [sys.executable, module, *args],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def last_returned(process: subprocess.Popen[bytes], after: int) -> int:
    """Let it append `after` calls, kill it, and say which append had returned last."""
    assert process.stdout
    for _ in range(after):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split(b"\n")[:-1]  # a torn last line was never fully said
    return after - 1 + len(rest)


def crash_round(home: Path, seed: int) -> None:
    chance = random.Random(seed)
    with contextlib.ExitStack() as stack:
        ingester = stack.enter_context(running(crash_ingester.__file__, str(home)))
        writers = [
            stack.enter_context(running(crash_writer.__file__, str(home), f"w{n}"))
            for n in range(WRITERS)
        ]
        assert ingester.stdout
        assert ingester.stdout.readline() == b"up\n"
        returned = {}
        for n, writer in enumerate(writers):
            if n == WRITERS // 2:
                ingester.send_signal(signal.SIGKILL)
            returned[f"w{n}"] = last_returned(writer, chance.randrange(1, 150))
    check(home, returned)


def check(home: Path, returned: dict[str, int]) -> None:
    with contextlib.closing(open_current(home)) as db:
        found: dict[str, list[int]] = {name: [] for name in returned}
        for (call_id,) in db.execute("SELECT id FROM calls ORDER BY seq"):
            name, _, n = call_id.partition("-")
            found[name].append(int(n))
        for name, last in returned.items():
            # One more may be there: stored, but killed before it could say so.
            assert found[name] in (list(range(last + 1)), list(range(last + 2)))
        assert db.execute("SELECT count(*) FROM rejects").fetchone() == (0,)
        calls, kept = db.execute(
            "SELECT (SELECT count(*) FROM calls), (SELECT sum(calls) FROM sums WHERE span_s = 3600)"
        ).fetchone()
        assert calls == kept == sum(map(len, found.values()))
    assert list((home / "journal").iterdir()) == []


@pytest.mark.parametrize("seed", range(5))
def test_c83_kill_9_loses_no_returned_append_and_counts_none_twice(
    tmp_path: Path, seed: int
) -> None:
    crash_round(tmp_path, seed)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100, 175))
def test_c83_three_hundred_crashes(tmp_path: Path, seed: int) -> None:
    crash_round(tmp_path, seed)
