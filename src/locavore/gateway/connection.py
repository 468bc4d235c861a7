"""One client connection: bytes in, one exchange at a time, hardened against what bytes can do.

States: reading a request (idle, head or body), answering one (`exchange` is set), and closing
(the client was told why and gets a moment to read it). llhttp checks the grammar in its strict
mode; what it leaves open and a proxy in front could read differently is refused here.
"""

import asyncio
import logging
import socket
import struct
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from locavore.engines.deadlines import NEVER
from locavore.engines.known_head import KnownHead
from locavore.gateway.exchange import Exchange, Handler, Head
from locavore.gateway.framing import FRAMING, USUAL, check_framing
from locavore.gateway.heads import error_body, status_line
from locavore.gateway.refusals import Refusal, refusal_of, too_large, too_long
from locavore.gateway.rewriting import replay, without_upgrade
from locavore.gateway.targets import path_problem, query_problem

if TYPE_CHECKING:
    from locavore.gateway.server import Server

log = logging.getLogger("locavore.gateway")

_VERSIONS = ("1.1", "1.0")
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST
_LINGER_BYTES = 64 * 1024 * 1024


class Connection(asyncio.Protocol):
    """Protocol of one accepted socket."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.exchange: Exchange | None = None
        self.paused = False
        self.deadline = NEVER
        self._limits = server.limits
        self._deadlines = server.deadlines
        self._ready: deque[Exchange] = deque()
        self._held = bytearray()
        self._refusal: Refusal | None = None
        self._closing = False
        self._known: tuple[KnownHead, Head] | None = None
        self._plain = False
        self._reading_paused = False
        self._discarded = 0
        self._body: list[bytes] = []
        # Bound before the parser looks its callbacks up: body pieces cross no Python frame.
        self.on_body = self._body.append
        self._parser = HttpRequestParser(self)
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._framing: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._body_bytes = 0
        self._body_until = NEVER
        self._in_body = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.deadline = self._deadlines.now + self._limits.head_s
        if not self.server.opened(self):
            self._refuse(Refusal(503, "too_many_connections", "The gateway is full; retry later."))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio.Protocol
        self.server.closed(self)
        self._ready.clear()
        self._held.clear()
        del self._parser  # breaks the cycle through its callbacks
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.lost()

    def eof_received(self) -> bool:
        """A client that shuts its side down is taken to have left, as nginx does."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.lost()
        return False

    def pause_writing(self) -> None:
        self.paused = True
        self.deadline = self._deadlines.now + self._limits.stalled_s
        if self.exchange is not None and self.exchange.listener is not None:
            self.exchange.listener.on_pause()

    def resume_writing(self) -> None:
        self.paused = False
        if self.exchange is not None:
            self.deadline = NEVER
            if self.exchange.listener is not None:
                self.exchange.listener.on_resume()
        else:
            self._set_idle()

    def data_received(self, data: bytes) -> None:
        if self.exchange is not None:
            self._hold(data)
        elif self._closing:
            self._discarded += len(data)
            if self._discarded > _LINGER_BYTES:
                self.transport.abort()
        elif self._known is None or self._head_bytes or self._held or self._ready:
            self._feed(data)
        else:
            known, head = self._known
            body = known.body_of(data)
            if body is None or len(body) > self._limits.body_bytes:
                self._feed(data)
            else:
                self.exchange = exchange = Exchange(self, head, body)
                self.deadline = NEVER
                self._call(head.handler, exchange)  # type: ignore[arg-type]  # set when known

    def _learn(self, data: bytes) -> None:
        """Remember the head of a request that came whole, alone and in plain framing."""
        exchange = self._ready[0]
        known = KnownHead.of(data) if self._plain else None
        handler = self.server.routes.get(exchange.target, {}).get(exchange.method)
        if known is not None and handler is not None and known.body_of(data) == exchange.body:
            exchange.head.handler = handler
            self._known = (known, exchange.head)

    # reading

    def _feed(self, data: bytes) -> None:
        offered_at = -1
        fresh = not self._head_bytes
        if self._in_body:
            self._body_bytes += len(data)
        else:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserCallbackError as error:
            self._refusal = refusal_of(error)
        except HttpParserUpgrade as upgrade:
            offered_at = upgrade.args[0]
        except HttpParserError as error:
            if not (self._ready and self._ready[-1].closes):
                self._refusal = Refusal(400, "bad_http", f"Malformed HTTP: {error}.")
        if offered_at >= 0:
            # Out here, not in the handler: errors raised there would carry its context.
            self._ignore_upgrade(data[offered_at:])
        elif self._ready:
            if fresh and len(self._ready) == 1:
                self._learn(data)
            self._answer_next()
        elif self._refusal is not None:
            self._refuse(self._refusal)
        else:
            self._wait_for_more()

    def _wait_for_more(self) -> None:
        """Part of a request is here: bound what is still to come, in bytes and in time."""
        now = self._deadlines.now
        limits = self._limits
        if self._body_until is NEVER:  # first bytes of this request
            self._body_until = now + limits.body_s
            self.deadline = now + limits.head_s
        if not self._in_body:
            if self._head_bytes > limits.head_bytes:
                self._refuse(too_long(self._headers, limits.target_bytes))
            return
        if self._body_bytes > 2 * limits.body_bytes + limits.head_bytes:
            self._refuse(too_large(limits.body_bytes))  # chunk framing costs more than its data
        elif sum(map(len, self._body)) > limits.body_bytes:
            self._refuse(too_large(limits.body_bytes))
        else:
            self._join_pieces()
            self.deadline = min(now + limits.body_gap_s, self._body_until)

    def _join_pieces(self) -> None:
        """Many tiny pieces cost far more memory than their bytes."""
        if len(self._body) > 1024:
            self._body[:] = [b"".join(self._body)]

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > self._limits.target_bytes:
            raise Refusal(
                414,
                "target_too_long",
                f"The request target is longer than {self._limits.target_bytes} bytes.",
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in FRAMING:
            if name in self._framing:
                raise Refusal(400, "bad_http", f"The header {name.decode()!r} came twice.")
            self._framing[name] = value
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        framing = self._framing
        limits = self._limits
        if len(self._headers) > limits.headers:
            raise Refusal(431, "too_many_headers", f"More than {limits.headers} headers were sent.")
        if self._head_bytes > limits.head_bytes:
            size = sum(len(name) + len(value) + 4 for name, value in self._headers)
            if size > limits.head_bytes:
                raise too_long(self._headers, limits.target_bytes)
        self._plain = framing.keys() <= USUAL
        if not self._plain:
            waits = check_framing(framing, self._parser.get_http_version())
            if waits and not self._ready and self.exchange is None:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        host = framing.get(b"host")
        if host is None and self._parser.get_http_version() != "1.0":
            raise Refusal(400, "bad_http", "An HTTP/1.1 request needs a Host header.")
        hosts = self.server.hosts
        if hosts is not None and (host or b"").lower() not in hosts:
            raise Refusal(421, "wrong_host", f"This gateway does not answer for Host {host!r}.")
        length = framing.get(b"content-length")
        if length is not None and int(length) > limits.body_bytes:
            raise too_large(limits.body_bytes)
        self._in_body = True
        # Trailers arrive through `on_header` too; they go where nobody looks.
        self._request_headers, self._headers = self._headers, []
        self._framing = {}

    def on_message_complete(self) -> None:
        if len(self._ready) >= self._limits.pipelined:
            raise Refusal(400, "too_many_pipelined", "Too many pipelined requests.")
        parser = self._parser
        version = parser.get_http_version()
        if version not in _VERSIONS:
            raise Refusal(505, "http_version", f"HTTP/{version} is not served here.")
        pieces = self._body
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if len(body) > self._limits.body_bytes:
            raise too_large(self._limits.body_bytes)
        head = Head(
            parser.get_method(),
            self._target,
            self._request_headers,
            keep_alive=parser.should_keep_alive(),
            http_11=version == "1.1",
        )
        self._ready.append(Exchange(self, head, body))
        self._reset()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Serve the request as if it asked for no upgrade (RFC 9110, 7.8), or refuse CONNECT.

        Java's HttpClient offers h2c on every first request. llhttp stops at such a head and
        skips the body, so the request is written anew without the offer and parsed again.
        """
        exchange = self._ready.pop()
        if exchange.method == b"CONNECT":
            self._refusal = Refusal(405, "method_not_allowed", "CONNECT is not served here.")
            rest = b""
        else:
            self._parser = HttpRequestParser(self)
            rest = without_upgrade(exchange) + rest
        if self._ready or self._refusal is not None:
            self._held[:0] = rest
            if self._ready:
                self._answer_next()
            elif self._refusal is not None:
                self._refuse(self._refusal)
        else:
            self._feed(rest)

    def _hold(self, data: bytes) -> None:
        """Bytes behind the request being answered. Unread ones stay with the client's kernel."""
        self._held += data
        if len(self._held) > self._limits.pipelined_bytes and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    # answering

    def _answer_next(self) -> None:
        exchange = self.exchange = self._ready.popleft()
        self.deadline = NEVER
        handlers = self.server.routes.get(exchange.target)
        if handlers is None:
            self._off_route(exchange)
            return
        self._by_method(handlers, exchange)

    def _by_method(self, handlers: Mapping[bytes, Handler], exchange: Exchange) -> None:
        handler = handlers.get(exchange.method)
        if handler is None:
            _wrong_method(exchange, list(handlers))
        else:
            self._call(handler, exchange)

    def _call(self, handler: Handler, exchange: Exchange) -> None:
        try:
            handler(exchange)
        except Exception:
            log.exception("a handler failed on %r", exchange)
            _crash(exchange)

    def _off_route(self, exchange: Exchange) -> None:
        """A query, another spelling, or a path of the ASGI app."""
        path, _, query = exchange.target.partition(b"?")
        problem = path_problem(path) or query_problem(query)
        handlers = self.server.routes.get(path)
        if problem is not None:
            self.exchange = None
            self._refuse(Refusal(400, "ambiguous_path", f"Path {path!r} is refused: {problem}."))
        elif handlers is not None:
            self._by_method(handlers, exchange)
        elif self.server.fallback is None:
            exchange.fail(404, "not_found", f"There is nothing at {path!r}.")
        else:
            self._ready.clear()
            self.exchange = None
            self._closing = True
            self.deadline = self._deadlines.now + self._limits.handover_s
            self._resume_reading()
            self.server.hand_over(self, replay(exchange))

    def done(self, keep_alive: bool) -> None:
        """The exchange's last byte was written."""
        self.exchange = None
        if not keep_alive or self.server.draining:
            self._linger()
        elif self._ready or self._held or self._refusal is not None:
            # Not from here: a handler that answers at once would recurse once per request.
            asyncio.get_running_loop().call_soon(self._go_on)
        else:
            self._set_idle()

    def _go_on(self) -> None:
        if self.exchange is not None or self._closing or self.transport.is_closing():
            return
        if self._ready:
            self._answer_next()
        elif self._refusal is not None:
            self._refuse(self._refusal)
        elif self._held:
            data = bytes(self._held)
            self._held.clear()
            self._resume_reading()
            self._feed(data)
        else:
            self._set_idle()

    def _set_idle(self) -> None:
        if not self._closing:
            limits = self._limits
            self.deadline = self._deadlines.now + (
                limits.stalled_s if self.paused else limits.idle_s
            )

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()

    def check_unread(self) -> None:
        """A handler that ignores `on_pause` must not fill the memory."""
        if self.transport.get_write_buffer_size() > self._limits.unread_bytes:
            self.cut()

    # ending

    def _refuse(self, refusal: Refusal) -> None:
        body = error_body(refusal.status, refusal.code, refusal.message)
        self.transport.write(
            b"%b%bcontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n%b"
            % (status_line(refusal.status), self.server.date_line, len(body), body)
        )
        self._linger()

    def _linger(self) -> None:
        """Close our side, and read on for a moment: a reset would destroy the answer on its way.

        RFC 9112, 9.6.
        """
        self._closing = True
        self._ready.clear()
        self._held.clear()
        self._body.clear()
        self._resume_reading()
        self.deadline = self._deadlines.now + (
            self._limits.stalled_s if self.paused else self._limits.linger_s
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def expire(self) -> None:
        """The phase took too long."""
        self.deadline = NEVER
        if self._closing or self.paused or self.exchange is not None:
            self.cut()
        elif self._in_body or self._head_bytes:
            self._refuse(Refusal(408, "request_timeout", "The request took too long to arrive."))
        else:
            self.transport.close()

    def close_if_idle(self) -> None:
        """For draining: nothing is running here and no part of a request has come."""
        if self.exchange is None and not self._head_bytes and not self._closing:
            self.transport.close()

    def break_off(self, *, reset: bool) -> None:
        """End without the framing's end mark; `reset` where closing alone would look clean."""
        self.exchange = None
        if reset:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
        else:
            self._closing = True
            self.deadline = self._deadlines.now + self._limits.linger_s
            self.transport.close()

    def cut(self) -> None:
        """Drop the connection and everything unsent."""
        self.transport.abort()

    @property
    def peer(self) -> str | None:
        address = self.transport.get_extra_info("peername")
        return str(address[0]) if isinstance(address, tuple) else None


def _wrong_method(exchange: Exchange, allowed: list[bytes]) -> None:
    names = b", ".join(allowed)
    exchange.fail(
        405,
        "method_not_allowed",
        f"{exchange.path.decode()!r} takes {names.decode()}, not {exchange.method.decode()}",
        [(b"allow", names)],
    )


def _crash(exchange: Exchange) -> None:
    if exchange.started:
        exchange.abort()
    else:
        exchange.fail(500, "internal_error", "The gateway failed on this request; see its log.")
