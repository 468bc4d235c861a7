"""A gateway worker: one process, one loop, one listening socket.

    python -m locavore.compose.worker --control FD --listen FD --index N --of N --home DIR

Imports neither the price library nor the engine nor the CLI: a worker stays small. Everything it
serves from comes as a `Snapshot` over the control channel.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from locavore.compose.control import Channel, Drain, Load, Loaded, Resolve, Resolved, Status
from locavore.core.backend import Backend
from locavore.core.errors import StoreError
from locavore.core.outcome import CallRecord
from locavore.core.ports import Engine
from locavore.engines.deadlines import Deadlines
from locavore.engines.pool import HttpEngine, PoolLimits
from locavore.gateway.keys import KeyCheck
from locavore.gateway.routes import hot_routes
from locavore.gateway.server import LAST_WORDS_S, AsgiApp, Message, Server, ServerLimits
from locavore.ledger.conversations import FileHomes
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.session_labels import FileSessionLabels
from locavore.serving.pipeline import Pipeline
from locavore.serving.shadow import Shadows
from locavore.serving.snapshot import Snapshot, Target
from locavore.serving.state import State

if TYPE_CHECKING:
    from locavore.ledger.budgets import Authorizer

log = logging.getLogger(__name__)
STATUS_EVERY_S = 1.0
DRAIN_S = 30.0
RESOLVE_S = 2.0
"""The supervisor answers in milliseconds. Without it, a model is served at an unknown price."""


class Worker:
    """Wires one worker together and keeps it in step with the supervisor."""

    def __init__(
        self,
        channel: Channel,
        listener: socket.socket,
        *,
        home: Path,
        workers: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` tells the time of day; durations never come from it."""
        self._channel = channel
        self._listener = listener
        self._home = home
        self._workers = workers
        self._clock = clock
        self._deadlines = Deadlines()
        self._engines: dict[Target, HttpEngine] = {}
        self._sessions = FileSessionLabels(home / "sessions")
        self._pipeline: Pipeline | None = None
        self._shadows: Shadows | None = None
        self._server: Server | None = None
        self._keys = KeyCheck({})
        self._authorizer: Authorizer | None = None
        self._waiting: dict[str, list[asyncio.Future[Backend | None]]] = {}

    @property
    def shadows(self) -> int:
        """Calls of our own beside those of clients: waiting or in flight."""
        return self._shadows.pending if self._shadows is not None else 0

    async def run(self) -> None:
        """Serve until drained; a lost supervisor is a reason to drain."""
        try:
            while (message := await self._channel.receive()) is not None:
                if isinstance(message, Load):
                    await self._load(message.snapshot)
                elif isinstance(message, Resolved):
                    self._resolved(message)
                elif isinstance(message, Drain):
                    await self._finish(message.timeout_s)
                    return
            await self._drain(DRAIN_S)
        finally:
            for engine in self._engines.values():
                await engine.aclose()
            if self._pipeline is not None:
                self._pipeline.close()

    async def _load(self, snapshot: Snapshot) -> None:
        state = State(snapshot, self._engine)
        hosts = self._hosts(snapshot)
        self._keys = KeyCheck(snapshot.grants, hosts)
        limits = self._limits(snapshot)
        if self._pipeline is None:
            await self._open(state, limits)
        else:
            self._pipeline.load(state, limits)
            self._forget_unused(snapshot)
        if self._server is not None:
            # A name that somebody else's DNS points at us is not ours (rebinding); with a key the
            # attacker's page would have none, so any name may lead here.
            self._server.hosts = None if snapshot.grants else hosts
        self._channel.send(Loaded(version=snapshot.version))

    async def _open(self, state: State, limits: "Authorizer | None") -> None:
        loop = asyncio.get_running_loop()
        self._pipeline = Pipeline(
            state,
            SegmentJournal(self._home),
            limits=limits,
            loop=loop,
            sessions=self._sessions,
            homes=self._homes(),
            resolve=self._resolve,
            workers=self._workers,
            clock=self._clock,
        )
        self._pipeline.watcher = self._shadows = Shadows(self._pipeline)
        self._server = Server(
            hot_routes(self._pipeline, lambda: self._keys),
            LazyApp(self.admin_app),
            limits=ServerLimits(body_bytes=state.snapshot.max_body_bytes),
            deadlines=self._deadlines,
        )
        await self._server.start(sock=self._listener)
        gc.collect()
        gc.freeze()  # what is loaded by now stays: the collector need not walk it again and again
        loop.call_later(STATUS_EVERY_S, self._report)

    def _homes(self) -> FileHomes | None:
        """Where conversations were served; without it every turn is decided afresh."""
        try:
            return FileHomes(self._home / "run" / "conversations", clock=self._clock)
        except StoreError as error:
            log.warning("%s", error.message)
            return None

    def _hosts(self, snapshot: Snapshot) -> frozenset[bytes]:
        """Names of this gateway, with and without its port (clients differ behind a forward)."""
        address, port = self._listener.getsockname()[:2]
        names = {"127.0.0.1", "localhost", "[::1]", address, *snapshot.hosts}
        spelled = names | {f"{name}:{port}" for name in names}
        return frozenset(name.lower().encode() for name in spelled)

    def _limits(self, snapshot: Snapshot) -> "Authorizer | None":
        """Keeps budgets and rate limits, once there are any: it costs a database connection."""
        if self._authorizer is not None:
            self._authorizer.load(snapshot.quotas)
        elif snapshot.limited:
            from locavore.ledger.budgets import Authorizer, leases_dir
            from locavore.ledger.leases import LeaseTable
            from locavore.ledger.shared_leases import open_leases

            self._authorizer = Authorizer(
                snapshot.quotas,
                open_leases(self._home, snapshot.limits_url, nodes=snapshot.limits_nodes),
                LeaseTable(leases_dir(self._home)),
                fail_open=snapshot.store_failure == "open",
                clock=self._clock,
            )
        return self._authorizer

    def _engine(self, target: Target) -> Engine:
        engine = self._engines.get(target)
        if engine is None:
            engine = self._engines[target] = HttpEngine(
                target.url,
                headers=[(n.encode(), v.encode()) for n, v in target.headers],
                ca_file=target.ca_file,
                proxy_url=target.proxy_url,
                limits=PoolLimits(connections=target.max_connections),
                deadlines=self._deadlines,
            )
        return engine

    def _forget_unused(self, snapshot: Snapshot) -> None:
        """Targets that are no longer configured; calls in flight keep theirs to their end."""
        kept = set(snapshot.targets.values())
        for target in [t for t in self._engines if t not in kept]:
            del self._engines[target]

    # -- models that a provider serves and nobody listed ---------------------------------------

    def _resolve(self, name: str) -> "asyncio.Future[Backend | None]":
        """Ask the supervisor, which has the price library, about a wildcard's model."""
        future: asyncio.Future[Backend | None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(name, [])
        waiting.append(future)
        if len(waiting) == 1:
            self._channel.send(Resolve(name=name))
        asyncio.get_running_loop().call_later(RESOLVE_S, self._unanswered, name, future)
        return future

    def _unanswered(self, name: str, future: "asyncio.Future[Backend | None]") -> None:
        """Nobody answered in time: this call goes on without, the next one asks again."""
        if future.done():
            return
        waiting = self._waiting.get(name, [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._waiting.pop(name, None)
        future.set_result(None)

    def _resolved(self, message: Resolved) -> None:
        for future in self._waiting.pop(message.name, []):
            if not future.done():
                future.set_result(message.backend)

    # -- status and end -----------------------------------------------------------------------

    def _report(self) -> None:
        pipeline = self._pipeline
        if pipeline is None or pipeline.closed:
            return
        self._channel.send(
            Status(
                pid=os.getpid(),
                inflight=pipeline.inflight,
                used=tuple(pipeline.used),
                breakers=pipeline.breakers.states(pipeline.mono()),
                refusals=dict(pipeline.refusals),
                store_error=pipeline.store_error.message if pipeline.store_error else None,
            )
        )
        pipeline.used.clear()
        asyncio.get_running_loop().call_later(STATUS_EVERY_S, self._report)

    async def _finish(self, timeout_s: float) -> None:
        """Drain; when told so once more, cut what still runs."""
        draining = asyncio.ensure_future(self._drain(timeout_s))
        while not draining.done():
            told = asyncio.ensure_future(self._channel.receive())
            await asyncio.wait({draining, told}, return_when=asyncio.FIRST_COMPLETED)
            if not told.done():
                told.cancel()
                break
            message = told.result()
            if message is None:
                break
            if isinstance(message, Resolved):
                self._resolved(message)
            elif isinstance(message, Drain) and self._server is not None:
                self._end_calls()
                asyncio.get_running_loop().call_later(LAST_WORDS_S, self._server.cut)
        await draining

    def _end_calls(self) -> None:
        if self._pipeline is not None:
            self._pipeline.cut()

    async def _drain(self, timeout_s: float) -> None:
        if self._server is not None:
            await self._server.drain(timeout_s, late=self._end_calls)
        self._end_calls()  # those whose client has left and whose engine must be read to the end
        if self._shadows is not None:
            self._shadows.close()
        if self._pipeline is not None:
            with contextlib.suppress(StoreError):
                self._pipeline.journal.close()
        if self._authorizer is not None:
            with contextlib.suppress(StoreError):
                self._authorizer.close()

    # -- what the ASGI app needs --------------------------------------------------------------

    def admin_app(self) -> AsgiApp:
        """Built when the first request for it comes: Starlette costs 15 MB and 100 ms."""
        from locavore.compose.metrics import exposition, lost_stores
        from locavore.gateway.app import Admin
        from locavore.ledger.keys import KeyStore
        from locavore.ledger.query import find_decision
        from locavore.ledger.verdicts import VerdictStore

        home, pipeline = self._home, self._pipeline
        if pipeline is None:
            raise RuntimeError("asked for the admin app before the first snapshot")
        ledger_url = pipeline.state.snapshot.ledger_url

        def find(id_: str) -> CallRecord | None:
            return find_decision(home, id_, url=ledger_url)

        return Admin(
            pipeline,
            lambda: self._keys,
            find=find,
            exposition=lambda: exposition(home, pipeline.state.snapshot),
            key_store=lambda: KeyStore(home, url=ledger_url),
            home=home,
            verdict_store=lambda: VerdictStore(home, url=ledger_url),
            degraded=lambda: lost_stores(home),
        ).app()


class LazyApp:
    """An ASGI app that is imported when it is first called."""

    def __init__(self, build: Callable[[], AsgiApp]) -> None:
        self._build = build
        self._app: AsgiApp | None = None

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if self._app is None:
            self._app = self._build()
        await self._app(scope, receive, send)


async def _run(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A terminal or an init system sends these to all of us; the supervisor decides what they
        # mean, and a worker whose supervisor is gone sees its channel close.
        loop.add_signal_handler(number, lambda: None)
    channel = await Channel.over(socket.socket(fileno=args.control))
    listener = socket.socket(fileno=args.listen)
    worker = Worker(channel, listener, home=Path(args.home), workers=args.of)
    await worker.run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="locavore-worker")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--of", type=int, default=1)
    parser.add_argument("--home", required=True)
    uvloop.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
