"""A gateway in a thread: the worker's own wiring, loopback port, a home of its own.

For tests that want to look at what was recorded without starting processes. The configuration is
the text of a configuration file, so a test says what a user would write.

    with RunningGateway(home, config) as gateway:
        openai.OpenAI(base_url=gateway.url, api_key="none")
        ...
        gateway.records()
"""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import uvloop

from locavore.compose.control import Channel, Drain, Load, Loaded, Resolve, Resolved
from locavore.compose.inventory import Inventory
from locavore.compose.promise_keeping import PromiseKeeping
from locavore.compose.worker import Worker
from locavore.config import Config
from locavore.config import load as load_config
from locavore.core.outcome import CallRecord
from locavore.ledger.query import open_current
from locavore.serving.snapshot import Snapshot

START_S = 20.0
NO_DISCOVERY = "\n[discover]\nlocal = false\n"


class RunningGateway:
    """Serves from `config` until the context ends."""

    def __init__(
        self,
        home: Path,
        config: str = "",
        *,
        env: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` is the worker's time of day, for tests in which it jumps."""
        self.home = home
        self.messages: list[str] = []
        """What the gateway told its operator."""
        self._env = dict(env or {})
        self._clock = clock
        self._promises = PromiseKeeping(home, tell=self.messages.append)
        self._path = home / "config.toml"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.write_text(config + NO_DISCOVERY, encoding="utf-8")
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self.port = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Base URL as OpenAI clients want it."""
        return f"{self.origin}/v1"

    def __enter__(self) -> Self:
        self._config()  # a bad configuration is told here, before anything runs
        self._thread.start()
        if not self._ready.wait(START_S):
            raise TimeoutError("the gateway did not start")
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._loop is not None and self._failure is None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)
        self._promises.close()

    def reload(self, config: str) -> None:
        """Replace the configuration and return once new calls are served from it."""
        self._path.write_text(config + NO_DISCOVERY, encoding="utf-8")
        if self._loop is None:
            raise RuntimeError("not started")
        asyncio.run_coroutine_threadsafe(self._reload(), self._loop).result(START_S)

    def keep_promises(self) -> bool:
        """One round of what a supervisor does for promises every few seconds, and its effect.

        Returns once new calls are served under the promises that hold then; True: they changed.
        """
        open_current(self.home, self._config().ledger.url).close()
        changed = self._promises.round()
        if changed and self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._reload(), self._loop).result(START_S)
        return changed

    def records(self) -> list[CallRecord]:
        """Every finished call, oldest first, as the ledger has it."""
        db = open_current(self.home, self._config().ledger.url)
        try:
            rows = db.execute("SELECT body FROM records ORDER BY seq").fetchall()
        finally:
            db.close()
        return [msgspec.msgpack.decode(body, type=CallRecord) for (body,) in rows]

    def wait_for_records(self, count: int) -> list[CallRecord]:
        """`records`, once there are that many: what stands beside a call is written after it."""
        self.wait_until(lambda: len(self.records()) >= count)
        return self.records()

    def wait_for_shadows(self) -> None:
        """Return once every explored call has its other answer, or will have none."""
        self.wait_until(lambda: self._worker.shadows == 0)

    def wait_until(self, holds: Callable[[], bool], limit_s: float = 3 * START_S) -> None:
        """Return once it holds. Raises TimeoutError."""
        end_s = time.monotonic() + limit_s
        while not holds():
            if time.monotonic() > end_s:
                raise TimeoutError(f"not within {limit_s} s")
            time.sleep(0.05)

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            self._failure = error
            self._ready.set()

    def _config(self) -> Config:
        flags = {"home": str(self.home), "port": 0}
        return load_config(self._path, self._env, flags)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        ours, theirs = socket.socketpair()
        self._channel = await Channel.over(ours)
        other_end = await Channel.over(theirs)
        self._worker = Worker(other_end, listener, home=self.home, workers=1, clock=self._clock)
        running = asyncio.ensure_future(self._worker.run())
        self._inventory = Inventory(self._config(), self._env, tell=self.messages.append)
        self._loaded = asyncio.Event()
        listening = asyncio.ensure_future(self._listen())
        await self._inventory.look(own_port=self.port)
        await self._load(self._inventory.compile())
        self._ready.set()
        await self._stop.wait()
        self._channel.send(Drain(timeout_s=0.2))
        await running
        await other_end.close()
        await listening
        await self._channel.close()
        await self._inventory.close()

    async def _load(self, snapshot: Snapshot) -> None:
        self._loaded.clear()
        self._channel.send(Load(snapshot=snapshot))
        await self._loaded.wait()

    async def _reload(self) -> None:
        await self._inventory.reconfigure(self._config(), own_port=self.port)
        await self._load(self._inventory.compile())

    async def _listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, Loaded):
                self._loaded.set()
            elif isinstance(message, Resolve):
                backend = self._inventory.resolve(message.name)
                self._channel.send(Resolved(name=message.name, backend=backend))
