"""TLS as a client on top of a plain transport, for upstream connections.

uvloop's own layer asks OpenSSL for 256 KB at a time and hears by an exception, on each read, that
nothing is left. This one asks for a record, stops when the bytes are used up, hands over what one
read of the socket brought in one piece, and counts what it sent. ADR 0001 has the figures.
"""

import asyncio
import contextlib
import ssl
from typing import cast

MAX_RECORD_BYTES = 16_384  # RFC 8446, 5.1: the plaintext of one record


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """Protocol of the plain transport below, transport of the protocol above.

    `connected` is done once the peer was verified; the protocol above hears of the connection
    before that future's waiters do. It hears nothing of a handshake that failed.
    """

    def __init__(
        self,
        above: asyncio.Protocol,
        context: ssl.SSLContext,
        server_hostname: str,
    ) -> None:
        super().__init__()
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent_bytes = 0
        """What was given to the kernel or waits for it, encrypted, ever."""
        self._above = above
        self._below: asyncio.Transport = None  # type: ignore[assignment]
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        self._open = False
        self._ended = False
        self._error: Exception | None = None

    # asyncio.Protocol: what the transport below says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below = cast(asyncio.Transport, transport)
        self._shake()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._open or self._shake():
            self._read()

    def eof_received(self) -> None:
        """No close_notify came before it: anyone on the way can send this."""
        if self._open:
            self._fail(ConnectionResetError("TLS ended without a close_notify"))

    def connection_lost(self, exc: Exception | None) -> None:
        # After a close_notify nothing can be lost: that ours meets a reset is no failure.
        error = None if self._ended else self._error or exc
        if self._open:
            self._open = False
            self._above.connection_lost(error)
        elif not self.connected.done():
            cut = ConnectionResetError("the peer closed the connection amid the TLS handshake")
            self.connected.set_exception(error or cut)

    # inside

    def _shake(self) -> bool:
        """Go on with the handshake; True when it just ended well."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()  # the alert
            self._fail(error)
            return False
        self._flush()
        self._open = True
        self._above.connection_made(self)
        self.connected.set_result(None)
        return True

    def _read(self) -> None:
        """Deliver what came, then how it ended, if it did."""
        pieces: list[bytes] = []
        incoming, read = self._incoming, self._tls.read
        error: Exception | None = None
        try:
            while incoming.pending and not self._ended:
                piece = read(MAX_RECORD_BYTES)
                self._ended = not piece  # by a close_notify
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # the rest of a record has yet to come
        except ssl.SSLError as raised:
            error = raised
        if self._outgoing.pending:
            self._flush()  # the answer to a key update, or an alert
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if data:
            self._above.data_received(data)
        if error is not None:
            self._fail(error)
        elif self._ended:
            self._above.eof_received()
            self.close()

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._below.abort()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self.sent_bytes += len(data)
            self._below.write(data)

    # asyncio.Transport: what the protocol above asks for

    def write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            written = self._tls.write(data)
            while written < len(data):
                written += self._tls.write(memoryview(data)[written:])
        except ssl.SSLError as error:  # a peer that renegotiates (TLS 1.2): not worth a queue
            self._fail(error)
            return
        sealed = self._outgoing.read()
        self.sent_bytes += len(sealed)
        self._below.write(sealed)

    def close(self) -> None:
        """Say close_notify and close once that is written; the peer's is not waited for."""
        if self._below.is_closing():
            return
        with contextlib.suppress(ssl.SSLError):  # "want read": the peer's close_notify
            self._tls.unwrap()
        self._flush()
        self._below.close()

    def abort(self) -> None:
        self.connected.cancel()
        if self._below is not None:
            self._below.abort()

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._below.get_extra_info(name, default)
