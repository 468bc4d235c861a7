"""The goals of the gateway, judged by a result: what was measured, and whether it suffices."""

from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

from benchmarks.gateway.table import added_latency_us, cpu_by_round, ratio_to_nginx

PEERS = (("tensorzero", 4.0), ("portkey", 20.0), ("litellm", 100.0))
WORKER_MB, READY_S, ADDED_US = 60.0, 1.0, 500.0


class Goal(NamedTuple):
    what: str
    measured: str
    met: bool


def goals(result: dict[str, Any]) -> Iterator[Goal]:
    """Those that the result has figures for."""
    yield from _ratio(result, "at most 2.0 × nginx at 1.5 KB", "locavore", ("1.5 KB",), 2.0)
    yield from _ratio(result, "the same with `auto`", "locavore", ("1.5 KB, auto",), 2.0)
    yield from _ratio(result, "at most 3 × at 30 KB", "locavore", ("30 KB",), 3.0)
    paced = ("10 paced streams", "60 paced streams")
    yield from _ratio(result, "at most 1.5 × per paced chunk", "locavore", paced, 1.5)
    yield from _ratio(result, "at most 2 × with a TLS upstream", "locavore-tls", ("1.5 KB",), 2.0)
    for peer, times in PEERS:
        yield from _peer(result, peer, times)
    yield from _latency(result)
    if sizes := result["rss_mb"].get("locavore"):
        worker = min(sizes)
        yield Goal("a worker within 60 MB", f"{worker:.0f} MB", worker <= WORKER_MB)
        ready_s = result["ready_s"]["locavore"]
        yield Goal("ready within 1 s", f"{ready_s:g} s", ready_s <= READY_S)


def _ratio(
    result: dict[str, Any], what: str, stack: str, cases: tuple[str, ...], most: float
) -> Iterator[Goal]:
    found = [r for case in cases if (r := ratio_to_nginx(result, stack, case)) is not None]
    if found:
        shown = " and ".join(f"{ratio:.1f} ×" for ratio in found)
        yield Goal(what, shown, max(found) <= most)


def _peer(result: dict[str, Any], peer: str, times: float) -> Iterator[Goal]:
    """Ratios inside each round, as those to nginx are taken."""
    ours = dict(cpu_by_round(result, "locavore", "1.5 KB"))
    theirs = cpu_by_round(result, peer, "1.5 KB")
    ratios = [cpu / ours[index] for index, cpu in theirs if index in ours]
    if ratios:
        below = median(ratios)
        yield Goal(f"{times:g} × below {peer} at 1.5 KB", f"{below:.1f} ×", below >= times)


def _latency(result: dict[str, Any]) -> Iterator[Goal]:
    added_us = added_latency_us(result, "locavore")
    if added_us is not None:
        what = "at most 0.5 ms of added median latency"
        yield Goal(what, f"{added_us / 1000:.2f} ms", added_us <= ADDED_US)


def goals_table(result: dict[str, Any]) -> list[str]:
    rows = [
        f"| {goal.what} | {goal.measured} | {'met' if goal.met else 'missed'} |"
        for goal in goals(result)
    ]
    return ["| goal, everything on | measured | |", "|---|---|---|", *rows] if rows else []
