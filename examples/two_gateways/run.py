"""Two gateways, one budget: PostgreSQL keeps the books, Valkey (or Redis) the limits.

    .venv/bin/python examples/two_gateways/run.py

Fires 200 calls at once, alternating between both gateways, against a budget that holds 12. Exit
code 0: exactly 12 were served and the books balance; 3: a server is not installed.
"""

import http.client
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path

from locavore.testing import ScriptedUpstream, replies

CALLS, HELD = 200, 12
OUTPUT_TOKENS = 10
"""Of one cent each, so a call costs ten cents."""
START_S = 60.0
CONFIG = """
[server]
workers = 2

[discover]
env = false
local = false

[[backend]]
id = "home/m"
url = "{upstream}"
context_tokens = 32768
price = {{ input_mtok = "0", output_mtok = "10000" }}

[[budget]]
scope = "all"
unit = "usd"
limit = "1.20"
period = "total"

[ledger]
url = "${{LOCAVORE_LEDGER_URL}}"
limits_url = "${{LIMITS_URL}}"
nodes = 2
"""
BODY = {
    "model": "home/m",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": OUTPUT_TOKENS,
}
USED = {"prompt_tokens": 12, "completion_tokens": OUTPUT_TOKENS, "total_tokens": 22}


def main() -> int:
    valkey = shutil.which("valkey-server") or shutil.which("redis-server")
    postgres = _postgres_bin()
    if valkey is None or postgres is None:
        print("missing: PostgreSQL or Valkey/Redis; apt install postgresql redis-server")
        return 3
    if not all(importlib.util.find_spec(module) for module in ("asyncpg", "redis")):
        print("missing: .venv/bin/python -m pip install -e '.[postgres,valkey]'")
        return 3
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lv")))
        folder.chmod(0o755)  # PostgreSQL runs as another user when this runs as root
        limits_url = stack.enter_context(_valkey(valkey, folder))
        ledger_url = stack.enter_context(_postgres(postgres, folder / "pg"))
        upstream = stack.enter_context(ScriptedUpstream())
        upstream.always(replies.chat(usage=USED))
        env = os.environ | {"LOCAVORE_LEDGER_URL": ledger_url, "LIMITS_URL": limits_url}
        homes = [folder / "a", folder / "b"]
        with ExitStack() as gateways:
            ports = [gateways.enter_context(_gateway(h, upstream.url, env)) for h in homes]
            statuses = _fire(ports)
        served = sum(count for (_, status), count in statuses.items() if status == 200)
        for (port, status), count in sorted(statuses.items()):
            print(f"gateway on port {port}: {count:3} calls answered with {status}")
        print(f"{served} of {CALLS} calls were served, {len(upstream.requests)} reached the model")
        return _check(served, len(upstream.requests), env, homes[0])


def _check(served: int, reached: int, env: dict[str, str], home: Path) -> int:
    """The books: read from PostgreSQL, written by both gateways."""
    print(_locavore("ledger", "verify", env=env, home=home).strip())
    total = json.loads(_locavore("report", "--json", env=env, home=home))["total"]
    print(f"the books hold {total['served']} served calls for {Decimal(total['cost_usd'])} USD")
    exact = served == reached == total["served"] == HELD
    exact &= Decimal(total["cost_usd"]) == Decimal("1.20")
    print("exactly the budget" if exact else f"WRONG: {HELD} calls for 1.20 USD were to be served")
    return 0 if exact else 1


def _fire(ports: list[int]) -> Counter[tuple[int, int]]:
    """(port, status) -> how often; all calls start together."""
    barrier = threading.Barrier(CALLS)

    def call(number: int) -> tuple[int, int]:
        port = ports[number % len(ports)]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
        connection.connect()
        barrier.wait(START_S)
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(BODY), {"content-type": "application/json"}
        )
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return port, answer.status

    with ThreadPoolExecutor(CALLS) as pool:
        return Counter(pool.map(call, range(CALLS)))


def _locavore(*arguments: str, env: dict[str, str], home: Path) -> str:
    command = [sys.executable, "-m", "locavore", *arguments, "--home", str(home)]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


@contextmanager
def _gateway(home: Path, upstream: str, env: dict[str, str]) -> Iterator[int]:
    """`locavore serve` on a free port, which it tells; ends in order, so that all is booked."""
    home.mkdir()
    (home / "config.toml").write_text(CONFIG.format(upstream=upstream), "utf-8")
    command = [sys.executable, "-m", "locavore", "serve", "--port", "0", "--home", str(home)]
    out = home / "serve.out"
    with out.open("wb") as file:
        process = subprocess.Popen(command, env=env, stdout=file)
    try:
        _until(lambda: b"Locavore serves on " in out.read_bytes(), process)
        line = next(s for s in out.read_text("utf-8").splitlines() if "Locavore serves on" in s)
        yield int(line.rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(START_S)


@contextmanager
def _valkey(binary: str, folder: Path) -> Iterator[str]:
    path = folder / "valkey.sock"
    command = [binary, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _until(path.exists, process)
        # After 50 ms without an answer a gateway goes on with its share of the limit; a machine
        # that runs all of this at once may be slower than that.
        yield f"unix://{path}?socket_timeout=5"
    finally:
        process.terminate()
        process.wait(START_S)


@contextmanager
def _postgres(bin_dir: Path, folder: Path) -> Iterator[str]:
    folder.mkdir()
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    if user:
        shutil.chown(folder, user)
    data = folder / "data"
    null = subprocess.DEVNULL
    initdb: list[str | Path] = [bin_dir / "initdb", "-D", data, "-A", "trust", "-U", "postgres"]
    subprocess.run(initdb, check=True, stdout=null, stderr=null, user=user)
    quiet = ["-c", "listen_addresses="]  # the socket is enough
    command: list[str | Path] = [bin_dir / "postgres", "-D", data, "-k", folder, *quiet]
    process = subprocess.Popen(command, stdout=null, stderr=null, user=user)
    try:
        state = data / "postmaster.pid"
        _until(lambda: state.exists() and "ready" in state.read_text("utf-8"), process)
        yield f"postgresql:///postgres?host={folder}&user=postgres"
    finally:
        process.terminate()
        process.wait(START_S)


def _postgres_bin() -> Path | None:
    """Debian keeps it out of PATH; the newest version."""
    found = shutil.which("postgres")
    if found:
        return Path(found).parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def _until(holds: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    end_s = time.monotonic() + START_S
    while not holds():
        if process.poll() is not None or time.monotonic() > end_s:
            raise RuntimeError(f"{process.args!r} did not start (status {process.poll()})")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
