"""The listening side: one port, an explicit table of hot routes, everything else to an ASGI app."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from email.utils import formatdate
from typing import Any

import msgspec

from locavore.engines.deadlines import Deadlines
from locavore.gateway.connection import Connection
from locavore.gateway.exchange import Handler

log = logging.getLogger("locavore.gateway")

LAST_WORDS_S = 1.0
"""For the errors of exchanges that are cut to reach their clients."""

Routes = Mapping[bytes, Mapping[bytes, Handler]]
"""path -> method -> handler. Paths match byte for byte."""
Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may take. Times in seconds; every limit answers with a 4xx or closes."""

    target_bytes: int = 8 * 1024
    head_bytes: int = 32 * 1024
    headers: int = 100
    body_bytes: int = 32 * 1024 * 1024
    connections: int = 10_000
    pipelined: int = 32
    """Requests waiting on one connection behind the one being answered."""
    pipelined_bytes: int = 256 * 1024
    unread_bytes: int = 8 * 1024 * 1024
    """Answer bytes a client may leave unread before its connection is dropped."""
    idle_s: float = 75.0
    head_s: float = 15.0
    body_gap_s: float = 30.0
    """Between two pieces of a request body."""
    body_s: float = 300.0
    stalled_s: float = 60.0
    """For a client that does not read its answer."""
    linger_s: float = 2.0
    """For a refused client to read why, before the connection is cut."""
    handover_s: float = 600.0
    """For a whole exchange of the ASGI app."""


class Server:
    """Listener, its connections and the ASGI app beside the hot routes.

    `hosts`: the only values of the Host header to answer, lower-case with port. A gateway that
    asks for no key needs them: a web page that rebinds its name to a loopback address still
    sends its own name (C100).
    """

    def __init__(
        self,
        routes: Routes,
        fallback: AsgiApp | None = None,
        *,
        limits: ServerLimits | None = None,
        deadlines: Deadlines | None = None,
        hosts: frozenset[bytes] | None = None,
    ) -> None:
        self.routes = routes
        self.fallback = fallback
        self.hosts = hosts
        self.limits = limits or ServerLimits()
        self.deadlines = deadlines or Deadlines()
        self.connections: set[Connection] = set()
        self.draining = False
        self.date_line = b""
        self.deadline = 0.0
        self._listeners: list[asyncio.AbstractServer] = []
        self._empty = asyncio.Event()
        self._bridge: Any = None

    async def start(
        self,
        host: str | None = "127.0.0.1",
        port: int = 0,
        *,
        reuse_port: bool = False,
        sock: socket.socket | None = None,
    ) -> int:
        """Listen on `host:port`, or on `sock` (already bound). Returns the port."""
        loop = asyncio.get_running_loop()
        if sock is not None:
            listener = await loop.create_server(lambda: Connection(self), sock=sock, backlog=2048)
        else:
            listener = await loop.create_server(
                lambda: Connection(self), host, port, reuse_port=reuse_port or None, backlog=2048
            )
        self._listeners.append(listener)
        self.expire()
        self.deadlines.watch(self)
        return int(listener.sockets[0].getsockname()[1])

    async def drain(self, timeout_s: float, late: Callable[[], None] | None = None) -> bool:
        """Stop accepting, let running exchanges finish, then cut. True: all had finished.

        `late` is called for those that did not: their last words get a second to arrive.
        """
        self.draining = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            connection.close_if_idle()
        clean = await self._wait_empty(timeout_s)
        if not clean and late is not None:
            late()
            await self._wait_empty(LAST_WORDS_S)
        self.cut()
        if not clean:
            await self._wait_empty(1.0)
        self.deadlines.forget(self)
        return clean

    def cut(self) -> None:
        """Drop every connection; whoever listens on one is told that its client is gone."""
        for connection in list(self.connections):
            connection.cut()

    async def _wait_empty(self, timeout_s: float) -> bool:
        self._empty.clear()
        if not self.connections:
            return True
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def expire(self) -> None:
        """Once a second: the Date header's new value (RFC 9110, 6.6.1)."""
        self.date_line = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        self.deadline = self.deadlines.now + 1.0

    def opened(self, connection: Connection) -> bool:
        """False: too many connections already."""
        full = len(self.connections) >= self.limits.connections
        self.connections.add(connection)
        self.deadlines.watch(connection)
        return not full

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.deadlines.forget(connection)
        if not self.connections:
            self._empty.set()

    def hand_over(self, connection: Connection, request: bytes) -> None:
        """Give the connection to the ASGI app, with `request` as its first and last bytes."""
        if self._bridge is None:
            # Imported on the first such request: uvicorn costs memory and start-up time.
            from locavore.gateway.bridge import Bridge

            assert self.fallback is not None  # noqa: S101  # the caller checked
            self._bridge = Bridge(self.fallback)
        self._bridge.take(connection, request)
