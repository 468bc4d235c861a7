"""CPU per proxied call: Locavore with everything on, its bare data plane, nginx, and peers.

One run, interleaved: every stack is started at once and stays idle while another is measured;
each round visits each case of each stack. The host's clock drifts between speeds, so ratios are
taken inside a round and the minimum is the figure to compare.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.gateway import stacks, tools
from benchmarks.gateway.cases import CASES, Case
from benchmarks.gateway.cpu import cpu_ns, rss_mb
from benchmarks.gateway.goals import goals_table
from benchmarks.gateway.stacks import Stack, Unavailable
from benchmarks.gateway.table import tables, write_page

RESULTS = Path(__file__).parent / "results"
SETTLE_S = 0.4
"""After a load: what a stack does behind the answer (its ledger, its logs) belongs to the call."""


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.install:
        stacks.install_peers()
    lacking = tools.missing()
    if lacking:
        print("Install first: " + "; ".join(lacking), file=sys.stderr)
        return 1
    tools.compile_tools()
    tools.make_certificate()
    with ExitStack() as stack:
        running = list(stack.enter_context(_started(options)))
        samples = _measure(running, options.rounds, set(options.only or ()))
        result = _result(running, samples)
    path = RESULTS / f"{result['date'][:10]}-{result['commit'][:10]}.json"
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(write_page([*tables(result), "", *goals_table(result)], save=options.save))
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--install", action="store_true", help="install the peers under build/")
    parser.add_argument("--peers", action="store_true", help="measure installed peers, too")
    parser.add_argument("--only", nargs="*", help="these cases alone")
    parser.add_argument("--stacks", nargs="*", help="these stacks alone")
    parser.add_argument("--save", action="store_true", help="keep the JSON and write the page")
    return parser.parse_args(arguments)


@contextmanager
def _started(options: argparse.Namespace) -> Iterator[list[Stack]]:
    """All stacks, running; peers that cannot run are named and left out."""
    with ExitStack() as stop:
        port = tools.free_port()
        upstream = tools.start(
            "upstream", [str(tools.BUILD / "upstream"), str(port)], port, cores=tools.LOAD_CPU
        )
        stop.callback(upstream.stop)
        secure = tools.free_port()
        command = tools.nginx("tls-front", secure, port, serves_tls=True, speaks_tls=False)
        stop.callback(tools.start("tls-front", command, secure, cores=tools.LOAD_CPU).stop)
        running = [Stack("direct", port, None)]
        makers: dict[str, Any] = {
            "nginx": lambda: stacks.nginx("nginx", port, tls=False),
            "bare": lambda: stacks.bare("bare", port, tls=False),
            "locavore": lambda: stacks.locavore("locavore", port, tls=False),
            "nginx-tls": lambda: stacks.nginx("nginx-tls", secure, tls=True),
            "bare-tls": lambda: stacks.bare("bare-tls", secure, tls=True),
            "locavore-tls": lambda: stacks.locavore("locavore-tls", secure, tls=True),
        }
        if options.peers:
            for name, maker in stacks.PEER_STACKS.items():
                makers[name] = lambda name=name, maker=maker: maker(name, port)
        for name, make in makers.items():
            if options.stacks and name not in options.stacks:
                continue
            try:
                one = make()
                stop.callback(one.running.stop)  # also when it does not answer
                _await_first_answer(one)
            except (Unavailable, RuntimeError) as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            running.append(one)
        yield running


def _await_first_answer(stack: Stack) -> None:
    if stack.running is not None:
        body = tools.write_body("first", stack.model, 1488, stream=False, burst=False)
        tools.first_answer(stack.running, stack.path, body.read_bytes(), stack.headers)


def _measure(running: list[Stack], rounds: int, only: set[str]) -> list[dict[str, Any]]:
    samples = []
    for index in range(-1, rounds):  # round -1 warms up and is thrown away
        for stack in running:
            for case in CASES:
                if case.applies(stack) and (not only or case.name in only):
                    sample = _sample(stack, case, short=index < 0)
                    if index >= 0:
                        samples.append({"round": index, **sample})
        print(f"round {index + 1} of {rounds}", file=sys.stderr)
    return samples


def _sample(stack: Stack, case: Case, *, short: bool) -> dict[str, Any]:
    model = case.model or stack.model
    body = tools.write_body(
        f"body-{case.body_bytes}-{case.stream}-{case.burst}-{model.replace('/', '-')}",
        model,
        case.body_bytes,
        stream=case.stream,
        burst=case.burst,
    )
    spin_ns = _spin()
    before = cpu_ns(stack.running.pid) if stack.running else 0
    load = tools.load(
        stack.port,
        stack.path,
        body,
        connections=case.slow_connections if stack.slow else case.connections,
        seconds=0.3 if short else case.seconds,
        rate=min(case.rate, 20) if stack.slow else case.rate,
        headers=stack.headers,
    )
    time.sleep(0.05 if short else SETTLE_S)
    used_ns = (cpu_ns(stack.running.pid) - before) if stack.running else 0
    units = load["events"] if case.stream else load["requests"]
    return {
        "stack": stack.name,
        "case": case.name,
        "cpu_us": used_ns / 1000 / units if units and stack.running else None,
        "requests": load["requests"],
        "errors": load["errors"],
        "rps": load["requests"] / load["seconds"],
        "p50_us": load["p50_us"],
        "p99_us": load["p99_us"],
        "spin_ns": spin_ns,
    }


def _spin() -> float:
    """Nanoseconds per turn of a fixed loop: how fast the host is right now."""
    began = time.perf_counter()
    for _ in range(100_000):
        pass
    return (time.perf_counter() - began) / 100_000 * 1e9


def _result(running: list[Stack], samples: list[dict[str, Any]]) -> dict[str, Any]:
    memory = {
        stack.name: sorted(rss_mb(stack.running.pid).values()) for stack in running if stack.running
    }
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "versions": {
            **{name: version(name) for name in ("uvloop", "httptools", "msgspec")},
            **{stack.name: stack.version for stack in running if stack.version},
        },
        "ready_s": {
            stack.name: round(stack.running.ready_s, 3) for stack in running if stack.running
        },
        "rss_mb": {name: [round(size, 1) for size in sizes] for name, sizes in memory.items()},
        "samples": samples,
    }


def _commit() -> str:
    shown = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no", "src"],
        capture_output=True,
        text=True,
    )
    return shown.stdout.strip() + ("-changed" if changed.stdout.strip() else "")


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
