"""One request and the way to answer it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from locavore.core.ports import Headers
from locavore.gateway.heads import STATUS_LINES, error_body, header_lines, status_line

if TYPE_CHECKING:
    from locavore.gateway.connection import Connection

_WAITING, _STREAMING, _DONE = range(3)
_LAST_CHUNK = b"0\r\n\r\n"

Handler = Callable[["Exchange"], None]
"""Called from the event loop once the request's body is complete; answers now or later."""


class ExchangeListener(Protocol):
    """Who wants to know what becomes of the client while its answer is made."""

    def on_disconnect(self) -> None:
        """The client left before the answer's end. Nothing written from now on goes anywhere."""
        ...

    def on_pause(self) -> None:
        """The client reads slower than we write: stop until `on_resume`."""
        ...

    def on_resume(self) -> None: ...


class Head:
    """The head of a request, shared by all requests of a connection that repeat it."""

    __slots__ = (
        "_index",
        "handler",
        "headers",
        "http_11",
        "keep_alive",
        "memo",
        "method",
        "target",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        *,
        keep_alive: bool,
        http_11: bool,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.keep_alive = keep_alive
        self.http_11 = http_11
        self.handler: Handler | None = None
        """The hot route this head leads to, once looked up."""
        self.memo: Any = None
        """For the handler: what it made of the headers, valid as long as it decides."""
        self._index: dict[bytes, bytes] | None = None

    def get(self, name: bytes) -> bytes | None:
        """Value by lower-case name; repeated ones joined as RFC 9110 5.3 says."""
        if self._index is None:
            self._index = _joined(self.headers)
        return self._index.get(name)


class Exchange:
    """A complete request. Answer with `respond`, or with `start`, `write`..., `finish`.

    Answering twice raises RuntimeError. After the client left, every method does nothing.
    """

    __slots__ = (
        "_connection",
        "_keep_alive",
        "_state",
        "body",
        "head",
        "listener",
    )

    def __init__(self, connection: "Connection", head: Head, body: bytes) -> None:
        self._connection: Connection | None = connection
        self._state = _WAITING
        self._keep_alive = head.keep_alive
        self.head = head
        self.body = body
        self.listener: ExchangeListener | None = None

    @property
    def method(self) -> bytes:
        return self.head.method

    @property
    def target(self) -> bytes:
        """Path and query as they came."""
        return self.head.target

    @property
    def path(self) -> bytes:
        return self.head.target.partition(b"?")[0]

    @property
    def query(self) -> bytes:
        return self.head.target.partition(b"?")[2]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Lower-case names and values, in order of arrival."""
        return self.head.headers

    @property
    def peer(self) -> str | None:
        """Address of the other end; None once it left, or on a Unix socket."""
        return self._connection.peer if self._connection is not None else None

    @property
    def disconnected(self) -> bool:
        """Whether the connection is gone; what is written now goes nowhere."""
        return self._connection is None

    @property
    def started(self) -> bool:
        """Whether any byte of an answer was written."""
        return self._state != _WAITING

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this exchange."""
        return not self._keep_alive

    @property
    def paused(self) -> bool:
        """Whether the client is slower than what was written so far."""
        return self._connection is not None and self._connection.paused

    def header(self, name: bytes) -> bytes | None:
        """Value of a header by its lower-case name; repeated ones joined as RFC 9110 5.3 says."""
        return self.head.get(name)

    def respond(self, status: int, headers: Headers | bytes, body: bytes) -> None:
        """A whole answer in one write. `headers` may be rendered lines, each with its CRLF."""
        connection = self._connection
        if self._state:
            raise self._misuse()
        if connection is None:
            self._state = _DONE
            return
        lines = headers if isinstance(headers, bytes) else header_lines(headers)
        connection.transport.write(
            b"%b%b%b%bcontent-length: %d\r\n\r\n%b"
            % (
                STATUS_LINES.get(status) or status_line(status),
                lines,
                connection.server.date_line,
                self._connection_line(connection),
                len(body),
                b"" if self.head.method == b"HEAD" else body,
            )
        )
        self._end(connection)

    def fail(self, status: int, code: str, message: str, headers: Headers = ()) -> None:
        """An error in OpenAI's shape, for what no protocol-aware handler answers."""
        lines = b"content-type: application/json\r\n" + header_lines(headers)
        self.respond(status, lines, error_body(status, code, message))

    def start(self, status: int, headers: Headers | bytes) -> None:
        """Head of a streamed answer: chunked, or ended by closing for HTTP/1.0."""
        connection = self._connection
        if self._state:
            raise self._misuse()
        if connection is None:
            self._state = _STREAMING
            return
        http_11 = self.head.http_11
        if not http_11:
            self._keep_alive = False
        head = b"%b%b%b%b%b\r\n" % (
            status_line(status),
            headers if isinstance(headers, bytes) else header_lines(headers),
            connection.server.date_line,
            self._connection_line(connection),
            b"transfer-encoding: chunked\r\n" if http_11 else b"",
        )
        self._state = _STREAMING
        connection.transport.write(head)

    def write(self, data: bytes) -> None:
        """One piece of a streamed answer."""
        connection = self._connection
        if self._state != _STREAMING:
            raise self._misuse()
        head = self.head
        if connection is None or not data or head.method == b"HEAD":
            return
        connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if head.http_11 else data)
        if connection.paused:
            connection.check_unread()

    def finish(self, data: bytes = b"") -> None:
        """The last piece, if any, and the end, in one write."""
        connection = self._connection
        if self._state != _STREAMING:
            raise self._misuse()
        if connection is None:
            self._state = _DONE
            return
        head = self.head
        if head.method != b"HEAD":
            if not head.http_11:
                connection.transport.write(data)
            elif data:
                connection.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
            else:
                connection.transport.write(_LAST_CHUNK)
        self._end(connection)

    def abort(self) -> None:
        """Break the transfer so that no client can take it for a complete answer."""
        connection = self._connection
        if connection is None or self._state == _DONE:
            return
        self._state = _DONE
        self._connection = self.listener = None
        connection.break_off(reset=not self.head.http_11)

    def lost(self) -> None:
        """The connection is gone. Called by the connection, once."""
        self._connection = None
        listener, self.listener = self.listener, None
        if listener is not None and self._state != _DONE:
            listener.on_disconnect()

    def _end(self, connection: "Connection") -> None:
        self._state = _DONE
        self.listener = None  # breaks the cycle with who listens: nothing is left to the collector
        connection.done(self._keep_alive)

    def _misuse(self) -> RuntimeError:
        return RuntimeError(f"this answer was already begun or never started: {self!r}")

    def _connection_line(self, connection: "Connection") -> bytes:
        if connection.server.draining:
            self._keep_alive = False
        if not self._keep_alive:
            return b"connection: close\r\n"
        return b"" if self.head.http_11 else b"connection: keep-alive\r\n"

    def __repr__(self) -> str:
        state = ("waiting", "streaming", "done")[self._state]
        return f"<Exchange {self.method!r} {self.path!r} {state}>"


def _joined(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    index: dict[bytes, bytes] = {}
    for name, value in headers:
        index[name] = index[name] + b", " + value if name in index else value
    return index
