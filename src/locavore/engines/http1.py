"""HTTP/1.1 as a client: one kept connection, one call at a time.

An answer's framing is llhttp's, strict. What this adds: pieces of one read are delivered
together, an answer without a length ends with a clean close and with nothing else, compressed
answers are unpacked although none are asked for, and every end has one fault.
"""

import asyncio
import ssl
from typing import TYPE_CHECKING, cast

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpResponseParser,
)

from locavore.core.errors import Fault, UpstreamError
from locavore.core.ports import Headers
from locavore.engines.acked import acked_bytes
from locavore.engines.deadlines import NEVER
from locavore.engines.http_call import HttpCall
from locavore.engines.known_head import KnownHead
from locavore.engines.tls import TlsTransport
from locavore.engines.unpacking import MAX_BODY_BYTES, Unpacker, coding_of

if TYPE_CHECKING:
    from locavore.engines.pool import HttpEngine

MAX_HEAD_BYTES = 64 * 1024


class Connection(asyncio.Protocol):
    """Protocol of one upstream connection."""

    def __init__(self, engine: "HttpEngine") -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.deadline = NEVER
        self._engine = engine
        self._deadlines = engine.deadlines
        self._call: HttpCall | None = None
        self._reused = False
        self._written = 0
        self._sent_before = 0
        self._answered = False
        self._eof = False
        self._paused = False
        self._unpack: Unpacker | None = None
        self._known: tuple[KnownHead, int, Headers] | None = None
        self._body: list[bytes] = []
        # Bound before the parser looks its callbacks up: body pieces cross no Python frame.
        self.on_body = self._body.append
        self._parser = HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._fresh = b""
        self._head_bytes = 0
        self._body_bytes = 0
        self._head_ready = False
        self._head_given = False
        self._complete = False
        self._pieces_of_answer = 0
        self._keep_alive = False
        self._surplus = False
        self._unpack = None

    # sending

    def begin(self, call: HttpCall) -> None:
        """Write the request; the connection is idle and alive."""
        self._call = call
        call.connection = self
        call.sent = True
        self._answered = False
        now = self._deadlines.now
        timeouts = call.timeouts
        if call.total_at == NEVER:
            call.total_at = now + timeouts.total_s
        first_by = now + timeouts.first_byte_s
        self.deadline = first_by if first_by < call.total_at else call.total_at
        if isinstance(self.transport, TlsTransport):
            self._sent_before = self.transport.sent_bytes
        else:
            self._sent_before = self._written
        data = call.head + call.body
        self._written += len(data)
        self.transport.write(data)

    def pause(self) -> None:
        if not self._paused and self._call is not None:
            self._paused = True
            self.transport.pause_reading()
            self.deadline = self._call.total_at

    def resume(self) -> None:
        if self._paused and self._call is not None:
            self._paused = False
            self.transport.resume_reading()
            if self._body_bytes:
                self._expect_more(self._call)

    def drop(self) -> None:
        """Close at once: the call was cancelled."""
        if self._call is not None:
            self._let_go(self._call)

    def _let_go(self, call: HttpCall) -> None:
        self._call = None
        call.connection = None
        self._engine.closed(self)
        self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def eof_received(self) -> bool:
        self._eof = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.closed(self)
        call, self._call = self._call, None
        if call is None or call.receiver is None:
            return
        call.connection = None
        if self._head_given and self._ends_by_closing() and self._eof and exc is None:
            self._end_body(call)
        elif self._reused and not self._answered and not call.resent and self._unaccepted(exc):
            call.resent = True
            call.sent = False
            self._engine.submit(call)
        else:
            call.fail(self._lost(exc))

    def data_received(self, data: bytes) -> None:
        call = self._call
        if call is None or self._complete:
            self._surplus = True  # an answer to nothing: this connection is not in step
            self.transport.abort()
            return
        self._answered = True
        if not self._head_bytes:
            if self._known is not None:
                known, status, headers = self._known
                body = known.body_of(data)
                if body is not None:
                    self._give_known(call, status, headers, body)
                    return
            self._fresh = data
        else:
            self._fresh = b""
        if not self._head_given:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._break(call, "it switched protocols without being asked")
            return
        except HttpParserCallbackError as error:
            self._break(call, str(error.__context__ or error))
            return
        except HttpParserError as error:
            self._misframed(call, error)
            return
        self._deliver(call)

    def _give_known(self, call: HttpCall, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer whose head was seen before: the parser has nothing to add."""
        receiver, call.receiver = call.receiver, None
        self._call = call.connection = None
        if self._paused or (len(call.body) > 65536 and self.transport.get_write_buffer_size()):
            self._engine.closed(self)
            self.transport.close()
        else:
            self._reused = True
            self._engine.release(self)  # first, so that the receiver may use it again
        if receiver is not None:
            receiver.on_answer(status, headers, body)

    def _learn(self) -> None:
        """Remember the head of an answer that came whole, in one read, and keeps the connection."""
        known = KnownHead.of(self._fresh)
        if known is not None and known.body_of(self._fresh) is not None:
            self._known = (known, self._status, self._headers)

    def _misframed(self, call: HttpCall, error: HttpParserError) -> None:
        """Deliver what was in order; bytes after a complete answer only cost the connection."""
        self._surplus = True
        self._deliver(call)
        if call.connection is self:
            self._break(call, f"malformed HTTP: {error}")

    def _deliver(self, call: HttpCall) -> None:
        """What one read brought: head, body and end, in this order, while the call lives."""
        if self._head_ready:
            self._head_ready = False
            self._give_head(call)
        if self._body and call.connection is self:
            self._give_body(call)
        if call.connection is not self:
            return
        if self._complete:
            self._finish(call)
        elif not self._head_given and self._head_bytes > MAX_HEAD_BYTES:
            self._break(call, f"its headers are larger than {MAX_HEAD_BYTES} bytes")
        elif not self._paused and self._body_bytes:
            self._expect_more(call)

    def _expect_more(self, call: HttpCall) -> None:
        """The wait for the first byte ends with the first piece of body, not with the head."""
        gap_until = self._deadlines.now + call.timeouts.idle_s
        self.deadline = gap_until if gap_until < call.total_at else call.total_at

    def _give_head(self, call: HttpCall) -> None:
        headers = self._headers
        if 300 <= self._status < 400:
            self._break(call, f"it answered {self._status}, and redirects are never followed")
            return
        coding = coding_of(headers)
        if coding is not None:
            self._unpack = Unpacker.for_coding(coding)
            if self._unpack is None:
                self._break(call, f"it compressed its answer as {coding!r} without being asked")
                return
            hidden = (b"content-encoding", b"content-length")
            headers = [pair for pair in headers if pair[0] not in hidden]
        self._head_given = True
        if call.receiver is not None:
            call.receiver.on_head(self._status, headers)

    def _give_body(self, call: HttpCall) -> None:
        pieces = self._body
        if self._surplus and self._complete:
            del pieces[self._pieces_of_answer :]  # the rest belongs to no answer we asked for
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._unpack is not None:
            try:
                data = self._unpack.feed(data)
            except ValueError as error:
                self._break(call, str(error))
                return
        self._body_bytes += len(data)
        if self._body_bytes > MAX_BODY_BYTES:
            self._break(call, f"its answer is larger than {MAX_BODY_BYTES} bytes")
        elif data and call.receiver is not None:
            call.receiver.on_body(data)

    def _finish(self, call: HttpCall) -> None:
        """The message ended: free the connection first, so that `on_end` may use it again."""
        keep = self._keep_alive and not self._surplus and not self._paused
        if self._unpack is not None and not self._unpack.ended:
            self._break(call, "its compressed answer was cut short")
            return
        if len(call.body) > 65536 and self.transport.get_write_buffer_size():
            keep = False  # it answered before it had read the request
        self._call = None
        call.connection = None
        if keep:
            if self._fresh and self._unpack is None:
                self._learn()
            self._reset()
            self._reused = True
            self._engine.release(self)
        else:
            self._engine.closed(self)
            self.transport.close()
        self._give_end(call)

    def _end_body(self, call: HttpCall) -> None:
        """End of an answer that has no length, by a clean close."""
        if self._unpack is not None and not self._unpack.ended:
            call.fail(self._error(Fault.TRUNCATED, "its compressed answer was cut short"))
        else:
            self._give_end(call)

    @staticmethod
    def _give_end(call: HttpCall) -> None:
        receiver, call.receiver = call.receiver, None
        if receiver is not None:
            receiver.on_end()

    # parser callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_given and not self._head_ready:  # else a trailer
            self._headers.append((name.lower(), value))

    def on_message_begin(self) -> None:
        if self._complete:
            self._surplus = True

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = []
        else:
            self._status = status
            self._head_ready = True

    def on_message_complete(self) -> None:
        if (self._head_ready or self._head_given) and not self._complete:
            self._complete = True
            self._pieces_of_answer = len(self._body)
            self._keep_alive = self._parser.should_keep_alive()  # forgotten after this callback

    # failing

    def expire(self) -> None:
        call = self._call
        self.deadline = NEVER
        if call is None:  # idle for too long
            self._engine.closed(self)
            self.transport.close()
            return
        self._let_go(call)
        call.fail(self._too_slow(call))

    def _too_slow(self, call: HttpCall) -> UpstreamError:
        timeouts = call.timeouts
        if self._deadlines.now >= call.total_at:
            return self._error(Fault.STALLED, f"the call took more than {timeouts.total_s} s")
        if self._body_bytes:
            return self._error(Fault.STALLED, f"it sent nothing for {timeouts.idle_s} s")
        return self._error(
            Fault.FIRST_BYTE_TIMEOUT, f"it sent no content for {timeouts.first_byte_s} s"
        )

    def _break(self, call: HttpCall, reason: str) -> None:
        self._let_go(call)
        call.fail(self._error(Fault.PROTOCOL, reason))

    def _lost(self, exc: Exception | None) -> UpstreamError:
        why = f" ({exc})" if exc is not None else ""
        if isinstance(exc, ssl.SSLError):
            return self._error(Fault.RESET, f"TLS failed{why}")
        if self._head_given:
            return self._error(Fault.TRUNCATED, f"the connection ended amid the answer{why}")
        return self._error(Fault.RESET, f"it closed the connection without an answer{why}")

    def _error(self, fault: Fault, reason: str) -> UpstreamError:
        return UpstreamError(
            f"{self._engine.name}: {reason}",
            fault=fault,
            upstream_status=self._status or None,
        )

    def _ends_by_closing(self) -> bool:
        return not any(
            name in (b"content-length", b"transfer-encoding") for name, _ in self._headers
        )

    def _unaccepted(self, exc: Exception | None) -> bool:
        """Whether the peer's kernel took no byte of the request: then it may be sent again (C51).

        A server that closes an idle connection just as we reuse it answers our bytes with a
        reset, and acknowledges none of them. One that read the request and died did acknowledge.
        """
        if isinstance(exc, BrokenPipeError):
            return True  # closed before we wrote
        acked = acked_bytes(self.transport)
        # The handshake counts as one acknowledged byte.
        return acked is not None and acked <= self._sent_before + 1
