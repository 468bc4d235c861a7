"""The supervisor: workers, engines, the ledger's ingestion, reloads, an orderly end.

One per LOCAVORE_HOME. It holds the listening sockets, so that a worker that dies is replaced
without a refused connection, and everything that is heavy or slow, so that workers stay small.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TextIO

import msgspec

from locavore.compose.control import Channel, Drain, Load, Loaded, Resolve, Resolved, Status
from locavore.compose.inventory import Inventory
from locavore.compose.local_pricing import READ_S, LocalPricing, on_this_machine, priced
from locavore.compose.promise_keeping import PromiseKeeping
from locavore.compose.telling import Telemetry, telemetry
from locavore.compose.upkeep import Upkeep
from locavore.config import Config
from locavore.config import load as load_config
from locavore.core.errors import ConfigError, LocavoreError, StoreError
from locavore.ledger.ingest import Ingester
from locavore.serving.snapshot import Snapshot

RESTART_MIN_S = 0.2
RESTART_MAX_S = 10.0
WATCH_S = 1.0
CUT_S = 5.0
"""After a second signal: for so long workers may write down what they cut."""
ALERT_S = 10.0
PROMISES_S = 2.0
REPRICE_S = 3600.0
"""The list has prices with dates from which they hold."""
Tell = Callable[[str], None]


class StartError(LocavoreError):
    """The gateway cannot start here; the message says what to do."""


class WorkerProcess:
    """One worker and the channel to it."""

    def __init__(self, index: int, listener: socket.socket) -> None:
        self.index = index
        self.listener = listener
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: Channel | None = None
        self.loaded_version: str | None = None
        self.changed = asyncio.Event()
        self.status: Status | None = None
        self.restarts = 0

    async def spawn(self, *, of: int, home: Path) -> None:
        ours, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-m",
            "locavore.compose.worker",
            f"--control={theirs.fileno()}",
            f"--listen={self.listener.fileno()}",
            f"--of={of}",
            f"--home={home}",
        ]
        self.process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own module; it only forks
            command, pass_fds=(theirs.fileno(), self.listener.fileno())
        )
        theirs.close()
        self.loaded_version = None
        self.channel = await Channel.over(ours)


class Supervisor:
    """Runs a gateway until it is told to stop."""

    def __init__(self, config: Config, *, env: Mapping[str, str], tell: Tell) -> None:
        self.config = config
        self._env = env
        self._tell = tell
        self._workers: list[WorkerProcess] = []
        self._snapshot: Snapshot | None = None
        self._stopping = asyncio.Event()
        self._publishing = asyncio.Lock()
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock: TextIO | None = None
        self._refusals: Counter[str] = Counter()
        """Of workers that have ended."""
        self._ingester: Ingester | None = None
        self._terminal = False
        """Whether it was started in the foreground of a terminal, whose end is then its own."""
        self._telemetry: Telemetry | None = None
        self.port = config.server.port
        self.inventory = Inventory(config, env, tell=tell, changed=self._inventory_changed)
        self._seen = _stamp(config.path)
        self._upkeep = Upkeep(config, tell)
        self._promises = PromiseKeeping(config.home, url=config.ledger.url, tell=tell)
        self._pricing: LocalPricing | None = None
        if config.machine is not None and config.ledger.url is None:
            self._pricing = LocalPricing(config.home, config.machine, tell=tell)
        self._written = b""
        """What stands in `run/status.json`."""

    # -- start --------------------------------------------------------------------------------

    async def start(self) -> Snapshot:
        """Return when every worker serves. Raises StartError or ConfigError."""
        home = self.config.home
        _make_home(home)
        self._lock = _lock(home)
        count = self.config.server.workers or _cores()
        listeners = _listen(self.config.server.host, self.config.server.port, count)
        self.port = listeners[0].getsockname()[1]
        self._workers = [WorkerProcess(i, s) for i, s in enumerate(listeners)]
        for worker in self._workers:
            await self._spawn(worker)
        self._ingester = Ingester(home, url=self.config.ledger.url)
        self._ingester.start()
        await self.inventory.look(own_port=self.port)
        await asyncio.to_thread(self._upkeep.keys_changed)
        await self._publish()
        self._telemetry = await asyncio.to_thread(
            telemetry, self.config, lambda: self.snapshot.policy, env=self._env, tell=self._tell
        )
        self._write_status()
        self._heed_signals()  # before anybody is told that it serves
        loops = (self._watch(), self._keep(), self._keep_promises(), self._alert(), self._reprice())
        for work in loops:
            self._background(work)
        if self._pricing is not None:
            self._background(self._price_machine(self._pricing))
        return self.snapshot

    @property
    def snapshot(self) -> Snapshot:
        if self._snapshot is None:
            raise StartError("not started")
        return self._snapshot

    async def _spawn(self, worker: WorkerProcess) -> None:
        await worker.spawn(of=len(self._workers), home=self.config.home)
        self._background(self._listen_to(worker))

    async def _publish(self) -> None:
        """Compile a snapshot and return once every worker serves from it."""
        async with self._publishing:  # one after the other: the newest configuration stays
            self._snapshot = snapshot = await asyncio.to_thread(self.inventory.compile)
            for worker in self._workers:
                if worker.channel is not None:
                    worker.channel.send(Load(snapshot=snapshot))
            await asyncio.gather(*(_serves(w, snapshot.version) for w in self._workers))

    def _inventory_changed(self) -> None:
        """A model was loaded, lost or found: new calls should know."""
        if self._snapshot is not None and not self._stopping.is_set():
            self._background(self._publish())

    # -- while it runs ------------------------------------------------------------------------

    async def run(self) -> None:
        """Until SIGTERM or Ctrl-C; then drain. A second signal ends at once."""
        await self._stopping.wait()
        await self._close()

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_signal)
        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # under nohup
        self._terminal = not ignored and _in_foreground()
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)

    def _hung_up(self) -> None:
        """Asked to reload, or the terminal that this ran in was closed: then nobody would know of a
        gateway that goes on."""
        if self._terminal and not _has_terminal():
            self._stop_signal()
        else:
            self._background(self.reload())

    def _stop_signal(self) -> None:
        if self._stopping.is_set():
            self._tell("stopping at once")
            for worker in self._workers:
                if worker.channel is not None:
                    worker.channel.send(Drain(timeout_s=0.0))
            asyncio.get_running_loop().call_later(CUT_S, self._kill_workers)
            return
        self._tell("finishing calls in flight (press Ctrl-C again to stop at once)")
        self._stopping.set()

    def _kill_workers(self) -> None:
        """For one that does not even write its records down."""
        for worker in self._workers:
            if worker.process is not None:
                worker.process.kill()

    async def reload(self) -> None:
        """Read the configuration again; a bad one is told and the old one stays."""
        async with self._reloading:  # a signal and the changed file may ask for it at once
            await self._reload()

    async def _reload(self) -> None:
        flags = {
            "host": self.config.server.host,
            "port": self.config.server.port,
            "home": str(self.config.home),
            "env": self.config.discover.env,
        }
        try:
            config = await asyncio.to_thread(load_config, self.config.path, dict(self._env), flags)
            if config.ledger != self.config.ledger:
                self._tell("[ledger] is read at start: restart to change it")
                config = msgspec.structs.replace(config, ledger=self.config.ledger)
            await self.inventory.reconfigure(config, own_port=self.port)
        except ConfigError as error:
            self._tell("configuration rejected, the old one stays:")
            for problem in error.problems:
                self._tell(f"  {problem}")
            return
        self.config = config
        await self._publish()
        self._tell(f"configuration reloaded (policy {self.snapshot.policy.version})")

    async def _watch(self) -> None:
        """Once a second: has the file changed, has a worker died."""
        while not self._stopping.is_set():
            await asyncio.sleep(WATCH_S)
            stamp = _stamp(self.config.path)
            if stamp != self._seen:
                self._seen = stamp
                await self.reload()
            self._write_status()

    async def _keep(self) -> None:
        """Once a second: have keys changed, has a worker left a budget slice behind."""
        while not self._stopping.is_set():
            await asyncio.sleep(WATCH_S)
            if await asyncio.to_thread(self._upkeep.keys_changed):
                await self._publish()
            await asyncio.to_thread(self._upkeep.recover_leases)

    async def _keep_promises(self) -> None:
        while not self._stopping.is_set():
            await asyncio.sleep(PROMISES_S)
            try:
                if await asyncio.to_thread(self._promises.round):
                    await self._publish()
            except ConfigError as error:  # a promise's file that nobody can read
                self._tell(f"promises: {error}; the old ones stay")

    async def _alert(self) -> None:
        while not self._stopping.is_set():
            await asyncio.sleep(ALERT_S)
            await asyncio.to_thread(self._upkeep.alert, self.snapshot)

    async def _reprice(self) -> None:
        while not self._stopping.is_set():
            await asyncio.sleep(REPRICE_S)
            if await asyncio.to_thread(self.inventory.reprice):
                await self._publish()
                self._tell("prices changed")

    async def _price_machine(self, pricing: LocalPricing) -> None:
        while not self._stopping.is_set():
            here = on_this_machine((*self.snapshot.backends, *self.snapshot.named))
            with contextlib.suppress(StoreError):  # ingestion has told it; counters lose nothing
                used = await asyncio.to_thread(pricing.read)
                if self._telemetry is not None:
                    self._telemetry.energy(used)
                if await asyncio.to_thread(pricing.reprice, here):
                    self.inventory.local_prices = pricing.prices
                    await self._publish()
                    self._tell(f"prices of models on this machine: {priced(pricing.prices)}")
            await asyncio.sleep(READ_S)

    async def _listen_to(self, worker: WorkerProcess) -> None:
        """Take a worker's messages until its channel closes; replace it if it died."""
        channel = worker.channel
        while channel is not None and (message := await channel.receive()) is not None:
            if isinstance(message, Loaded):
                worker.loaded_version = message.version
                worker.restarts = 0
                worker.changed.set()
            elif isinstance(message, Status):
                worker.status = message
                self._background(self.inventory.probe_used(message.used))
            elif isinstance(message, Resolve):
                backend = await asyncio.to_thread(self.inventory.resolve, message.name)
                channel.send(Resolved(name=message.name, backend=backend))
        if not self._stopping.is_set():
            await self._replace(worker)

    async def _replace(self, worker: WorkerProcess) -> None:
        code = worker.process.poll() if worker.process else None
        pause_s = min(RESTART_MAX_S, RESTART_MIN_S * 2**worker.restarts)
        worker.restarts += 1
        if worker.status is not None:
            self._refusals.update(worker.status.refusals)
            worker.status = None
        self._tell(f"worker {worker.index} ended (status {code}); another starts in {pause_s} s")
        await asyncio.sleep(pause_s)
        await self._spawn(worker)
        if self._snapshot is not None and worker.channel is not None:
            worker.channel.send(Load(snapshot=self._snapshot))

    def _write_status(self) -> None:
        """What metrics and doctor read: one file, replaced whole."""
        statuses = [w.status for w in self._workers if w.status is not None]
        refusals = sum((Counter(status.refusals) for status in statuses), self._refusals)
        ingestion = self._ingester.failure if self._ingester else None
        stores = self._upkeep.failures | ({"ledger": ingestion} if ingestion else {})
        data = msgspec.json.encode(
            {
                "pid": os.getpid(),
                "port": self.port,
                "workers": statuses,
                "refusals": refusals,
                "engines": self.inventory.states(),
                "ingestion": ingestion,
                "stores": stores,
            }
        )
        if data == self._written:
            return
        path = self.config.home / "run" / "status.json"
        part = path.with_suffix(".part")
        with contextlib.suppress(OSError):  # a full disk must not end the gateway
            part.write_bytes(data)
            part.replace(path)
            self._written = data

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._tell(f"supervisor: {task.exception()!r}")

    async def abandon(self) -> None:
        """End a gateway that did not come up."""
        self._stopping.set()
        for worker in self._workers:
            if worker.process is not None:
                worker.process.kill()
                await asyncio.to_thread(worker.process.wait)
        await self.inventory.close()
        if self._ingester is not None:
            await asyncio.to_thread(self._ingester.stop)
        if self._telemetry is not None:
            await asyncio.to_thread(self._telemetry.stop)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._upkeep.close)
        await asyncio.to_thread(self._promises.close)

    # -- end ----------------------------------------------------------------------------------

    async def _close(self) -> None:
        drain_s = self.config.server.drain_s
        for worker in self._workers:
            if worker.channel is not None:
                worker.channel.send(Drain(timeout_s=drain_s))
            # Our copy too, or new connections would wait in a queue that nobody serves.
            worker.listener.close()
        await asyncio.gather(*(_ended(w, drain_s + 5.0) for w in self._workers))
        await self.inventory.close()
        if self._ingester is not None:
            await asyncio.to_thread(self._ingester.stop)
        if self._telemetry is not None:
            await asyncio.to_thread(self._telemetry.stop)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._upkeep.close)
        await asyncio.to_thread(self._promises.close)
        (self.config.home / "run" / "status.json").unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()


async def _serves(worker: WorkerProcess, version: str) -> None:
    while worker.loaded_version != version:
        worker.changed.clear()
        process = worker.process
        if process is not None and process.poll() is not None and worker.restarts > 3:
            raise StartError(f"worker {worker.index} does not stay up (status {process.poll()})")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.changed.wait(), 1.0)


async def _ended(worker: WorkerProcess, within_s: float) -> None:
    process = worker.process
    if process is None:
        return
    try:
        await asyncio.to_thread(process.wait, within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)


def _make_home(home: Path) -> None:
    """State holds prompts' metadata and sockets: for its owner only."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("run", "journal", "weights", "sessions"):
            (home / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"cannot write to {str(home)!r} ({error.strerror}); set LOCAVORE_HOME to a folder "
            "you own"
        ) from error


def _lock(home: Path) -> TextIO:
    file = (home / "run" / "gateway.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise StartError(
            f"another gateway (pid {holder}) runs from {str(home)!r}; stop it, or give this one "
            "its own LOCAVORE_HOME"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _listen(host: str, port: int, count: int) -> list[socket.socket]:
    """One listening socket per worker on one port; the kernel spreads connections."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    host = host.strip("[]")
    try:
        # Without SO_REUSEPORT first: two gateways must not share a port unnoticed.
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            port = probe.getsockname()[1]
        return [_listener(family, host, port) for _ in range(count)]
    except OSError as error:
        raise StartError(
            f"cannot listen on {host}:{port} ({error.strerror}); "
            "stop what uses it or choose another with --port"
        ) from error


def _listener(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    sock.listen(2048)
    sock.setblocking(False)
    return sock


def _in_foreground() -> bool:
    """Whether we are what runs in a terminal."""
    try:
        with Path(os.ctermid()).open("rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def _has_terminal() -> bool:
    try:
        with Path(os.ctermid()).open("rb"):
            return True
    except OSError:
        return False


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """Changes when the file does; None: there is none."""
    try:
        info = path.stat() if path else None
    except OSError:
        return None
    return (info.st_mtime_ns, info.st_size) if info else None
