"""A scripted upstream: a real HTTP server on loopback that says exactly what a test tells it to.

It runs in a thread of its own, so that synchronous clients, other processes and asyncio tests can
all talk to it. A reply is a status, headers and *steps*: bytes to send, a hold until the test (or
the peer) lets go, an orderly close, or a TCP reset. What it received is in `requests`.

    from locavore.testing import ScriptedUpstream, replies

    with ScriptedUpstream() as upstream:
        upstream.script(replies.chat("Hello"))
        ...  # point a client at upstream.url
        assert upstream.requests[0].json["model"] == "some-model"

`script(*replies)` queues replies, served once each in order; `always(reply)` answers when the
queue is empty, and `route(path, reply)` answers one path. Without any of these the answer is
status 599, which no client mistakes for success.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

HOLD_LIMIT_S = 30.0
"""A hold that nobody releases ends by itself, so that a failed test does not hang."""


@dataclass(frozen=True)
class Chunk:
    """Bytes of the body, sent in one write (and in one chunk when the reply is chunked)."""

    data: bytes


@dataclass(frozen=True)
class Close:
    """Close the connection in order (FIN), whatever the framing still promises."""


@dataclass(frozen=True)
class Reset:
    """Drop the connection with RST."""


@dataclass
class Hold:
    """Wait until `release()`, or until the peer is gone, which `peer_left` then tells."""

    seconds: float | None = None
    """Let go by itself after so many seconds; None: wait for `release`."""
    reached: threading.Event = field(default_factory=threading.Event)
    peer_left: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        self.released.set()


Step = Chunk | Close | Reset | Hold


@dataclass(frozen=True)
class Reply:
    """One scripted answer. `framing`: `length`, `chunked`, `close` or `raw` (steps are all)."""

    steps: tuple[Step, ...] = ()
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    framing: str = "length"

    @classmethod
    def json(cls, body: Any, status: int = 200, **headers: str) -> "Reply":
        """A whole JSON answer; header names may use `_` for `-`."""
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        data = json.dumps(body).encode()
        return cls(
            (Chunk(data),), status=status, headers=(("content-type", "application/json"), *named)
        )

    @classmethod
    def sse(cls, *steps: Step | bytes | str, framing: str = "chunked") -> "Reply":
        """An event stream; text and bytes stand for a `Chunk`."""
        made = tuple(_step(step) for step in steps)
        return cls(made, headers=(("content-type", "text/event-stream"),), framing=framing)


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Responder = Callable[[Received], Reply]


class ScriptedUpstream:
    """A loopback HTTP/1.1 server that follows a script. Use it as a context manager."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        """Listens on a free port of `host`, an IPv4 address."""
        self.requests: list[Received] = []
        self.disconnects = 0
        """Peers that left before their reply was complete."""
        self.connections = 0
        self._tls = tls
        self.host = host
        self._queue: deque[Reply | Responder] = deque()
        self._routes: dict[str, Reply | Responder] = {}
        self._always: Reply | Responder | None = None
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="scripted-upstream", daemon=True)
        self.port = 0

    # -- the script ---------------------------------------------------------------------------

    def script(self, *replies: Reply | Responder) -> None:
        """Queue replies; each is used once, in order."""
        with self._lock:
            self._queue.extend(replies)

    def always(self, reply: Reply | Responder) -> None:
        """Answer with this whenever the queue is empty."""
        self._always = reply

    def route(self, path: str, reply: Reply | Responder) -> None:
        """Answer this path (without query) with this, before queue and `always`."""
        self._routes[path] = reply

    def wait_for_requests(self, count: int, timeout_s: float = 10.0) -> list[Received]:
        """The first `count` requests, once they have arrived. Raises TimeoutError."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, timeout_s):
                raise TimeoutError(f"{len(self.requests)} of {count} requests in {timeout_s} s")
            return self.requests[:count]

    def clear(self) -> None:
        """Forget script and requests."""
        with self._lock:
            self._queue.clear()
            self._routes.clear()
            self._always = None
            self.requests.clear()
            self.disconnects = 0

    # -- where it is --------------------------------------------------------------------------

    @property
    def origin(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Base URL as OpenAI clients want it, with `/v1`."""
        return f"{self.origin}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise TimeoutError("the scripted upstream did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    # -- the server ---------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._connection(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(
            accept, self.host, 0, ssl=self._tls, limit=1 << 26, backlog=2048
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (received := await _read_request(reader)) is not None:
                reply = self._next(received)
                if not await self._play(reply, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            self.disconnects += 1
        finally:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                writer.close()
                await writer.wait_closed()

    def _next(self, received: Received) -> Reply:
        with self._arrived:
            self.requests.append(received)
            self._arrived.notify_all()
            chosen = self._routes.get(received.path.partition("?")[0])
            if chosen is None:
                chosen = self._queue.popleft() if self._queue else self._always
        if chosen is None:
            return Reply.json({"error": {"message": "nothing scripted"}}, status=599)
        return chosen if isinstance(chosen, Reply) else chosen(received)

    async def _play(
        self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Send one reply; True when the connection can carry another."""
        writer.write(_head(reply))
        for step in reply.steps:
            match step:
                case Chunk(data):
                    writer.write(_framed(data, reply.framing))
                    await writer.drain()
                case Hold():
                    await writer.drain()
                    await self._hold(step, reader)
                case Close():
                    return False
                case Reset():
                    await writer.drain()
                    _reset(writer)
                    return False
        if reply.framing == "chunked":
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return reply.framing in ("length", "chunked")

    async def _hold(self, hold: Hold, reader: asyncio.StreamReader) -> None:
        hold.reached.set()
        limit_s = HOLD_LIMIT_S if hold.seconds is None else hold.seconds
        gone = asyncio.ensure_future(reader.read(1))
        released = asyncio.ensure_future(asyncio.to_thread(hold.released.wait, limit_s))
        await asyncio.wait({gone, released}, return_when=asyncio.FIRST_COMPLETED)
        hold.released.set()
        await released
        if not gone.done():
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone
        elif not gone.result():
            hold.peer_left.set()
            raise ConnectionResetError("the peer left during a hold")


def _step(step: Step | bytes | str) -> Step:
    if isinstance(step, str):
        return Chunk(step.encode())
    return Chunk(step) if isinstance(step, bytes) else step


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    request_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = request_line.split(" ", 2)
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body)


def _head(reply: Reply) -> bytes:
    if reply.framing == "raw":
        return b""
    lines = [f"HTTP/1.1 {reply.status} Scripted", *(f"{n}: {v}" for n, v in reply.headers)]
    if reply.framing == "length":
        size = sum(len(step.data) for step in reply.steps if isinstance(step, Chunk))
        lines.append(f"content-length: {size}")
    elif reply.framing == "chunked":
        lines.append("transfer-encoding: chunked")
    else:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _framed(data: bytes, framing: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if framing == "chunked" else data


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    # Linger of zero seconds turns close() into RST.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
