"""The C programs of the benchmark, the request bodies, and small process handling."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE / "build"
GATEWAY_CPU, LOAD_CPU = {0}, {1}
"""Gateways on one core, upstream and load on another; with one core everything shares it."""


def compile_tools() -> None:
    BUILD.mkdir(exist_ok=True)
    for name in ("upstream", "load"):
        source, binary = HERE / f"{name}.c", BUILD / name
        if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["cc", "-O2", "-o", binary, source], check=True)


def missing() -> list[str]:
    """What has to be installed first, with the command that does it."""
    wanted = {"cc": "apt-get install gcc libc6-dev", "nginx": "apt-get install nginx-light"}
    wanted["openssl"] = "apt-get install openssl"
    return [f"{name} (Debian: {how})" for name, how in wanted.items() if not find(name)]


def find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def write_body(name: str, model: str, size_bytes: int, *, stream: bool, burst: bool) -> Path:
    """A chat request of exactly `size_bytes` bytes."""
    messages = [
        {"role": "system", "content": "You are a careful assistant. " * 4},
        {"role": "user", "content": "What is the capital of France, and why?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": ""},
    ]
    body: dict[str, object] = {"model": model, "messages": messages, "max_tokens": 256}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if burst:
        body["user"] = "burst"
    bare = len(json.dumps(body, separators=(",", ":")))
    text = "Tell me more about the history of that city. " * (size_bytes // 40)
    messages[-1]["content"] = text[: size_bytes - bare]
    path = BUILD / f"{name}.json"
    path.write_text(json.dumps(body, separators=(",", ":")), encoding="utf-8")
    return path


def load(
    port: int,
    path: str,
    body: Path,
    *,
    connections: int,
    seconds: float,
    rate: float,
    headers: list[str],
) -> dict[str, float]:
    """Run the load client; see `load.c` for the figures."""
    command = [BUILD / "load", str(port), path, body, str(connections), str(seconds), str(rate)]
    done = subprocess.run(
        pinned([str(part) for part in [*command, *headers]], LOAD_CPU),
        capture_output=True,
        text=True,
        timeout=seconds + 90,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def pinned(command: list[str], cores: set[int]) -> list[str]:
    if (os.cpu_count() or 1) < 2:
        return command
    return ["taskset", "-c", ",".join(map(str, cores)), *command]


@dataclass
class Running:
    """A started process; `ready_s` is how long it took until its first good answer."""

    process: subprocess.Popen[bytes]
    log: Path
    began: float
    ready_s: float = 0.0
    port: int = 0
    url_path: str = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(
    name: str,
    command: list[str],
    port: int,
    *,
    cores: set[int],
    environment: dict[str, str] | None = None,
    timeout_s: float = 120.0,
    cwd: Path | None = None,
) -> Running:
    """Start and wait until the port accepts. RuntimeError with the log's end when it does not."""
    running = _spawn(name, command, cores, environment, cwd)
    running.port = port
    _await(running, lambda: accepts(port), timeout_s)
    return running


def start_printing_url(name: str, command: list[str], *, cores: set[int]) -> Running:
    """For a process that chooses its own port and prints its URL as the first line."""
    running = _spawn(name, command, cores, None, None)
    _await(running, lambda: b"http://" in running.log.read_bytes(), 60.0)
    line = running.log.read_text().partition("http://")[2].split()[0]
    address, _, path = line.partition("/")
    running.port, running.url_path = int(address.rpartition(":")[2]), f"/{path}"
    return running


def _spawn(
    name: str,
    command: list[str],
    cores: set[int],
    environment: dict[str, str] | None,
    cwd: Path | None,
) -> Running:
    log = BUILD / f"{name}.log"
    began = time.monotonic()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            pinned(command, cores),
            stdout=sink,
            stderr=sink,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
        )
    return Running(process, log, began)


def _await(running: Running, ready: Callable[[], bool], timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while not ready():
        if running.process.poll() is not None or time.monotonic() > until:
            running.stop()
            end = running.log.read_text(errors="replace")[-600:]
            raise RuntimeError(f"{running.log.stem} did not start: {end}")
        time.sleep(0.005)


def first_answer(running: Running, path: str, body: bytes, headers: list[str]) -> None:
    """Ask until status 200 and note how long after the start that was; RuntimeError after 60 s."""
    given = dict(line.split(": ", 1) for line in headers)
    status, until = 0, time.monotonic() + 60
    while status != 200:
        if time.monotonic() > until:
            raise RuntimeError(f"{running.log.stem} does not answer: status {status}")
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        try:
            connection.request("POST", path, body, {"content-type": "application/json", **given})
            status = connection.getresponse().status
        except OSError:
            time.sleep(0.01)
        finally:
            connection.close()
    running.ready_s = time.monotonic() - running.began


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def make_certificate() -> Path:
    """A self-signed certificate for 127.0.0.1 and localhost: `tls.pem` and `tls.key`."""
    certificate, key = BUILD / "tls.pem", BUILD / "tls.key"
    if not certificate.exists():
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "3650",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=IP:127.0.0.1,DNS:localhost",
                "-keyout",
                key,
                "-out",
                certificate,
            ],
            check=True,
            capture_output=True,
        )
    return certificate


def nginx(name: str, port: int, upstream: int, *, serves_tls: bool, speaks_tls: bool) -> list[str]:
    """Command line of one nginx worker with its own configuration."""
    folder = BUILD / name
    folder.mkdir(exist_ok=True)
    certificate = BUILD / "tls.pem"
    extra = ""
    if serves_tls:
        extra = f"ssl_certificate {certificate}; ssl_certificate_key {BUILD / 'tls.key'};"
    tls = ""
    if speaks_tls:
        tls = (
            f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {certificate}; "
            "proxy_ssl_name localhost; proxy_ssl_session_reuse on;"
        )
    template = (HERE / "nginx.conf.template").read_text(encoding="utf-8")
    config = folder / "nginx.conf"
    config.write_text(
        template.format(
            dir=folder,
            port=port,
            upstream=upstream,
            extra=extra,
            tls=tls,
            listen="ssl" if serves_tls else "",
            scheme="https" if speaks_tls else "http",
        ),
        encoding="utf-8",
    )
    return [
        str(find("nginx")),
        "-p",
        str(folder),
        "-c",
        str(config),
        "-e",
        str(folder / "error.log"),
    ]


PYTHON = sys.executable
