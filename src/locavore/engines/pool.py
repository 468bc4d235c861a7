"""The HTTP engine adapter: one upstream host, its credentials and its kept connections."""

import asyncio
import os
import ssl
from collections import deque
from collections.abc import Mapping

import msgspec

from locavore.core.errors import Fault, UpstreamError
from locavore.core.ports import Headers, Receiver, Timeouts
from locavore.engines.deadlines import Deadlines
from locavore.engines.dial import Origin, dial, parse_origin, parse_proxy, proxy_from, trust
from locavore.engines.http1 import Connection
from locavore.engines.http_call import HttpCall


class PoolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Connections to one host."""

    connections: int = 512
    waiting: int = 1024
    """Calls that may wait for a connection; the next one fails as overloaded."""
    idle_connections: int = 128
    idle_s: float = 30.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer, for metadata endpoints."""

    status: int
    headers: Headers
    body: bytes


class HttpEngine:
    """`core.ports.Engine` over HTTP/1.1: http, https, or a Unix socket.

    `headers` hold the credentials and go with every call; they appear in no message and no repr.
    `proxy_url=None` reads the proxy variables of `environment`; `""` means no proxy.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Headers = (),
        ca_file: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        proxy_url: str | None = None,
        environment: Mapping[str, str] | None = None,
        limits: PoolLimits | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        self.origin = _origin(url, proxy_url, os.environ if environment is None else environment)
        self.limits = limits or PoolLimits()
        self.deadlines = deadlines or Deadlines()
        self.name = self.origin.name
        self.is_tls = self.origin.scheme == "https"
        self._credentials = _lines(headers)
        self._ca_file = ca_file
        self._context = ssl_context
        self._heads: dict[bytes, bytes] = {}
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._waiting: deque[HttpCall] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<HttpEngine {self.name} open={len(self._open)} idle={len(self._idle)}>"

    # the port

    def send(
        self,
        path: bytes,
        body: bytes,
        receiver: Receiver,
        *,
        timeouts: Timeouts,
        headers: Headers = (),
    ) -> HttpCall:
        """POST `body` as JSON to base path + `path`. Failures go to the receiver, never from here.

        Without a free connection the call waits for one to be opened or freed.
        """
        start = self._heads.get(path) or self._keep_head(path)
        if headers:
            start += _lines(headers)
        call = HttpCall(
            self, b"%bcontent-length: %d\r\n\r\n" % (start, len(body)), body, receiver, timeouts
        )
        self.submit(call)
        return call

    async def fetch(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        timeouts: Timeouts | None = None,
        headers: Headers = (),
        from_root: bool = False,
    ) -> Answer:
        """One whole exchange. `from_root` leaves the base path out. Raises UpstreamError."""
        start = self._head(method.encode(), path.encode(), from_root=from_root)
        if body or method != "GET":
            start += b"content-length: %d\r\n" % len(body)
        head = b"%b%b\r\n" % (start, _lines(headers))
        collector = _Collector()
        call = HttpCall(self, head, body, collector, timeouts or Timeouts())
        self.submit(call)
        try:
            return await collector.answer
        finally:
            call.cancel()

    def _keep_head(self, path: bytes) -> bytes:
        head = self._head(b"POST", path, from_root=False)
        if len(self._heads) < 64:  # paths are our own constants; this is for callers who forget
            self._heads[path] = head
        return head

    def _head(self, method: bytes, path: bytes, *, from_root: bool) -> bytes:
        target = path if from_root else self.origin.base_path + path
        if not target.startswith(b"/") or any(byte <= 0x20 or byte > 0x7E for byte in target):
            raise ValueError(f"an upstream path is absolute and escaped: {target!r}")
        via_proxy = b""
        if self.origin.proxy is not None and not self.is_tls:
            target = b"http://%b%b" % (self.origin.host_header, target)
            if self.origin.proxy.authorization is not None:
                via_proxy = b"proxy-authorization: %b\r\n" % self.origin.proxy.authorization
        kind = b"content-type: application/json\r\n" if method == b"POST" else b""
        return b"%b %b HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity\r\n%b%b%b" % (
            method,
            target,
            self.origin.host_header,
            kind,
            via_proxy,
            self._credentials,
        )

    # connections

    def submit(self, call: HttpCall) -> None:
        """Start on an idle connection, the most recently used one, or wait."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                connection.begin(call)
                return
        self._wait(call)

    def _wait(self, call: HttpCall) -> None:
        loop = asyncio.get_running_loop()
        if self._closed:
            loop.call_soon(call.fail, self._error(Fault.CONNECT, "the engine was closed"))
        elif len(self._waiting) >= self.limits.waiting:
            reason = f"{len(self._waiting)} calls wait for a connection already"
            loop.call_soon(call.fail, self._error(Fault.OVERLOADED, reason))
        else:
            self._waiting.append(call)
            self.deadlines.watch(call)
            now = self.deadlines.now
            call.total_at = min(call.total_at, now + call.timeouts.total_s)
            call.deadline = now + call.timeouts.connect_s
            self._open_more()

    def _open_more(self) -> None:
        """One opening per waiting call, within the limit."""
        room = self.limits.connections - len(self._open) - len(self._opening)
        if len(self._opening) < len(self._waiting) and room > 0:
            connect_s = self._waiting[-1].timeouts.connect_s
            task = asyncio.get_running_loop().create_task(self._open_one(connect_s))
            self._opening.add(task)
            task.add_done_callback(self._opening_ended)

    async def _open_one(self, connect_s: float) -> None:
        connection = Connection(self)
        try:
            async with asyncio.timeout(connect_s):
                await dial(connection, self.origin, self._tls())
        except TimeoutError:
            reason = f"connecting took more than {connect_s} s"
            self._opening_failed(self._error(Fault.CONNECT_TIMEOUT, reason))
        except (OSError, ValueError) as error:
            self._opening_failed(self._error(Fault.CONNECT, f"cannot connect: {error}"))
        else:
            self._open.add(connection)
            self.deadlines.watch(connection)
            self.release(connection)

    def _tls(self) -> ssl.SSLContext | None:
        if not self.is_tls:
            return None
        if self._context is None:
            self._context = trust(self._ca_file)
        return self._context

    def _opening_ended(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if not self._closed:
            self._open_more()

    def _opening_failed(self, error: UpstreamError) -> None:
        call = self._next_waiting()
        if call is not None:
            call.fail(error)

    def _next_waiting(self) -> HttpCall | None:
        if not self._waiting:
            return None
        call = self._waiting.popleft()
        self.deadlines.forget(call)
        return call

    def release(self, connection: Connection) -> None:
        """A connection is free: for the call that waits longest, else kept."""
        if connection.transport.is_closing():
            self.closed(connection)
            return
        call = self._next_waiting()
        if call is not None:
            connection.begin(call)
        elif self._closed or len(self._idle) >= self.limits.idle_connections:
            self.closed(connection)
            connection.transport.close()
        else:
            connection.deadline = self.deadlines.now + self.limits.idle_s
            self._idle.append(connection)

    def closed(self, connection: Connection) -> None:
        """A connection ended, or is about to. May be called twice."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        self.deadlines.forget(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting and not self._closed:
            self._open_more()

    def withdraw(self, call: HttpCall) -> None:
        """A waiting call gave up."""
        self.deadlines.forget(call)
        if call in self._waiting:
            self._waiting.remove(call)

    def waited_too_long(self, call: HttpCall) -> UpstreamError:
        waited_s = call.timeouts.connect_s
        if self._opening:
            return self._error(Fault.CONNECT_TIMEOUT, f"connecting took more than {waited_s} s")
        return self._error(
            Fault.OVERLOADED,
            f"no connection became free within {waited_s} s ({len(self._open)} are in use)",
        )

    async def aclose(self) -> None:
        """Drop everything; running calls fail."""
        self._closed = True
        for task in list(self._opening):
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        while (call := self._next_waiting()) is not None:
            call.fail(self._error(Fault.CONNECT, "the engine was closed"))
        for connection in list(self._open):
            connection.transport.abort()

    def _error(self, fault: Fault, reason: str) -> UpstreamError:
        return UpstreamError(f"{self.name}: {reason}", fault=fault)


class _Collector:
    """Receiver of a whole answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._headers: Headers = ()
        self._body = bytearray()

    def on_head(self, status: int, headers: Headers) -> None:
        self._status, self._headers = status, headers

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_end(self) -> None:
        if not self.answer.done():
            answer = Answer(status=self._status, headers=self._headers, body=bytes(self._body))
            self.answer.set_result(answer)

    def on_answer(self, status: int, headers: Headers, body: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(Answer(status=status, headers=headers, body=body))

    def on_failure(self, error: UpstreamError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


def _origin(url: str, proxy_url: str | None, environment: Mapping[str, str]) -> Origin:
    origin = parse_origin(url)
    if proxy_url is None:
        proxy = proxy_from(environment, origin.scheme, origin.host, origin.port)
    else:
        proxy = parse_proxy(proxy_url) if proxy_url and origin.scheme != "unix" else None
    return msgspec.structs.replace(origin, proxy=proxy)


def _lines(headers: Headers) -> bytes:
    """Header lines; a line break inside raises ValueError without showing the value."""
    block = b"".join([b"%b: %b\r\n" % pair for pair in headers])
    if block.count(b"\n") != len(headers) or block.count(b"\r") != len(headers):
        raise ValueError(f"a header holds a line break: {[name for name, _ in headers]!r}")
    return block
