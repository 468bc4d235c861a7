"""`locavore serve` as a real process with a home and a port of its own."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil

T = TypeVar("T")
LIMIT_S = 40.0
QUIET = "[discover]\nlocal = false\n"
ASK: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}


def eventually(look: Callable[[], T], what: str, limit_s: float = LIMIT_S) -> T:
    """The first truthy value of `look`. Raises TimeoutError."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {limit_s} s")


def environment(home: Path, **more: str) -> dict[str, str]:
    """No key, proxy or path of the machine that runs the tests."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LOCAVORE_HOME": str(home), **more}


def locavore(*arguments: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "locavore", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=environment(home, **env),
        stdin=subprocess.DEVNULL,
        check=False,
    )


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """Content of a whole or streamed chat completion."""
        if b"data:" not in self.body:
            return str(self.json["choices"][0]["message"]["content"])
        data = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        chunks = [json.loads(text) for text in data if text != "[DONE]"]
        deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)


class Serving:
    """A gateway process. Use it as a context manager; `port` is known once it serves."""

    def __init__(
        self,
        home: Path,
        config: str = QUIET,
        *flags: str,
        env: dict[str, str] | None = None,
        command: tuple[str, ...] = (sys.executable, "-m", "locavore"),
        port: int = 0,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.home = home
        self._stdin = stdin
        home.mkdir(parents=True, exist_ok=True)
        self.configure(config)
        self._command = [*command, "serve", f"--port={port}", *flags]
        self._env = environment(home, **(env or {}))
        self._out, self._err = home / "serve.out", home / "serve.err"
        self.port = 0

    def configure(self, config: str) -> None:
        """Replaced whole: the gateway looks once a second and must not find half of it."""
        part = self.home / "config.toml.part"
        part.write_text(config, encoding="utf-8")
        part.replace(self.home / "config.toml")

    def __enter__(self) -> Self:
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                self._command, stdout=out, stderr=err, stdin=self._stdin, env=self._env
            )
        self.port = eventually(self._serves, "the gateway serves")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()

    def _serves(self) -> int:
        if self.process.poll() is not None:
            raise AssertionError(f"exit {self.process.returncode}: {self.stderr}")
        lines = [s for s in self.stdout.splitlines() if s.startswith("Locavore serves on ")]
        return int(lines[0].rpartition(":")[2]) if lines else 0

    @property
    def stdout(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def told(self, words: str) -> None:
        """Return once the gateway told its operator so."""
        eventually(lambda: words in self.stderr, f"{words!r} on stderr")

    def children(self) -> dict[str, list[psutil.Process]]:
        """`workers` and `engines`."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        workers = [p for p in found if "locavore.compose.worker" in p.cmdline()]
        return {"workers": workers, "engines": [p for p in found if p not in workers]}

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Exit status after this signal."""
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)

    # -- calls ----------------------------------------------------------------------------------

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(
                method, path, data, {"content-type": "application/json", **(headers or {})}
            )
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self.call("GET", path, headers=headers)

    def chat(self, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        return self.call("POST", "/v1/chat/completions", ASK | fields, headers)

    def open_stream(self, **fields: Any) -> socket.socket:
        """A connection on which a streamed chat was asked for."""
        data = json.dumps(ASK | {"stream": True} | fields).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            f"content-length: {len(data)}\r\n"
        )
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S)
        sock.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + data)
        return sock


def read_until(sock: socket.socket, marker: bytes) -> bytes:
    received = b""
    while marker not in received:
        data = sock.recv(65536)
        assert data, f"ended before {marker!r}: {received!r}"
        received += data
    return received
