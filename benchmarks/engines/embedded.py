"""What does the embedded engine add around a model? Start, memory, CPU of one call.

    python -m benchmarks.engines.embedded [--calls 400]

The built-in test model computes next to nothing, so what is measured is the engine's own
process, HTTP server, template, sampling and slots. CPU time of the child, because the machine is
shared; wall time only for start-up and for tokens per second, which are noisy upper bounds.
"""

import argparse
import asyncio
import json
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from locavore.engines.ask import ask
from locavore.engines.embedded import EmbeddedEngine, RunningModel
from locavore.engines.facts import engine_build
from locavore.engines.weights import built_in

PARALLEL = (1, 2, 4, 8)


async def call(running: RunningModel) -> int:
    """One short chat on a connection of its own; completion tokens."""
    answer = await ask(
        "http://engine/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Hello there"}]},
        headers={"authorization": f"Bearer {running.api_key}"},
        timeout_s=60,
        socket_path=str(running.socket_path),
    )
    return int(answer.json()["usage"]["completion_tokens"])


async def spread(running: RunningModel, calls: int, parallel: int) -> float:
    """Tokens per second of `calls` calls, `parallel` at a time."""
    gate = asyncio.Semaphore(parallel)

    async def one() -> int:
        async with gate:
            return await call(running)

    started = time.perf_counter()
    tokens = sum(await asyncio.gather(*(one() for _ in range(calls))))
    return tokens / (time.perf_counter() - started)


async def measure(home: Path, calls: int) -> dict[str, Any]:
    started = time.perf_counter()
    model = built_in(home)
    written = time.perf_counter()
    engine = EmbeddedEngine(home)
    try:
        running = await engine.start(model)
        ready = time.perf_counter()
        child = psutil.Process(engine.pid(model.name))
        await spread(running, 20, 1)
        before = sum(child.cpu_times()[:2])
        tokens_s = {f"{n}": round(await spread(running, calls, n)) for n in PARALLEL}
        cpu_s = sum(child.cpu_times()[:2]) - before
        return {
            "model_bytes": model.bytes,
            "write_ms": round((written - started) * 1000, 1),
            "ready_ms": round((ready - written) * 1000),
            "child_rss_mib": round(child.memory_info().rss / (1 << 20), 1),
            "child_cpu_us_per_call": round(cpu_s / (calls * len(PARALLEL)) * 1e6),
            "tokens_s_by_parallel_calls": tokens_s,
        }
    finally:
        await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=400)
    calls = parser.parse_args().calls
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    with tempfile.TemporaryDirectory() as home:
        result = asyncio.run(measure(Path(home), calls))
    about = {
        "commit": commit.stdout.strip(),
        "engine": engine_build(),
        "python": platform.python_version(),
        "cpus": psutil.cpu_count(),
    }
    print(json.dumps(about | result, indent=2))


if __name__ == "__main__":
    main()
