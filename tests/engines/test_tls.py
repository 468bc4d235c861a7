"""The TLS layer under an upstream connection, with real servers and a meddling wire between."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from locavore.core.errors import Fault
from locavore.core.ports import Headers, Timeouts
from locavore.engines.acked import acked_bytes
from locavore.engines.tls import TlsTransport
from tests.engines.test_pool import OK, STREAM, Peer, Seen, Upstream, always, make, send
from tests.engines.test_pool_tls import authority, ca_file, copy, proxying, secure

__all__ = ["authority", "ca_file"]  # fixtures

pytestmark = pytest.mark.anyio

BY_CLOSING = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhi"
EVENTS = [b"data: %d\n\n" % number for number in range(50)]


def cut_tcp(peer: Peer) -> None:
    """End the TCP stream as a cut on the way does: no close_notify, no reset."""
    with socket.socket(fileno=os.dup(peer.writer.get_extra_info("socket").fileno())) as raw:
        raw.shutdown(socket.SHUT_WR)


@asynccontextmanager
async def relay(port: int, change: Callable[[bytes], list[bytes]]) -> AsyncIterator[int]:
    """A TCP relay to `port`; what comes back from there is cut or changed."""

    async def script(peer: Peer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        forth = asyncio.create_task(copy(peer.reader, writer))
        try:
            while data := await reader.read(65_536):
                for piece in change(data):
                    peer.send(piece)
                    await asyncio.sleep(0)  # mostly a read of its own at the other end
        finally:
            forth.cancel()
            writer.transport.abort()

    relaying = Upstream(script)
    server = await asyncio.start_server(relaying.serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await relaying.stop(server)


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_c13_records_mean_the_same_however_they_are_cut(
    authority: Any, ca_file: str, version: ssl.TLSVersion, step: int
) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            for event in [STREAM, *(b"%x\r\n%b\r\n" % (len(e), e) for e in EVENTS), b"0\r\n\r\n"]:
                peer.send(event)  # a record each

    def cut(data: bytes) -> list[bytes]:
        return [data[at : at + step] for at in range(0, len(data), step)]

    async with (
        secure(script, authority, "localhost", version=version) as (port, _),
        relay(port, cut) as cutting,
    ):
        engine = make(f"https://localhost:{cutting}/v1", ca_file=ca_file)
        for _ in range(2):
            seen = await send(engine).end()
            assert seen.error is None
            assert seen.body == b"".join(EVENTS)
        await engine.aclose()


async def test_many_records_each_way(authority: Any, ca_file: str) -> None:
    large = os.urandom(2_000_000)
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            got.append((await peer.request()).partition(b"\r\n\r\n")[2])
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(large) + large)

    async with secure(script, authority, "localhost") as (port, _):
        engine = make(f"https://localhost:{port}/v1", ca_file=ca_file)
        for _ in range(2):
            assert (await send(engine, large).end()).body == large
        await engine.aclose()
    assert got == [large, large]


class Pausing(Seen):
    """Pauses as soon as there is an answer."""

    call: Any

    def on_head(self, status: int, headers: Headers) -> None:
        super().on_head(status, headers)
        self.call.pause()


async def test_a_paused_receiver_gets_everything_later(authority: Any, ca_file: str) -> None:
    large = os.urandom(4_000_000)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(large) + large
    async with secure(always(answer), authority, "localhost") as (port, _):
        engine = make(f"https://localhost:{port}/v1", ca_file=ca_file)
        seen = Pausing()
        seen.call = engine.send(b"/chat", b"{}", seen, timeouts=Timeouts())
        async with asyncio.timeout(10):
            await seen.began.wait()
        held = len(seen.body)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(seen.body) == held < len(large)
        seen.call.resume()
        assert (await seen.end()).body == large
        await engine.aclose()


@pytest.mark.parametrize(
    ("end", "fault"),
    [(Peer.close, None), (cut_tcp, Fault.TRUNCATED), (Peer.reset, Fault.TRUNCATED)],
)
async def test_c13_an_answer_without_a_length_ends_with_a_close_notify_alone(
    authority: Any, ca_file: str, end: Callable[[Peer], None], fault: Fault | None
) -> None:
    over = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(BY_CLOSING)
        await peer.writer.drain()
        await got.wait()
        end(peer)
        await over.wait()

    got = asyncio.Event()
    async with secure(script, authority, "localhost") as (port, _):
        engine = make(f"https://localhost:{port}/v1", ca_file=ca_file)
        seen = send(engine)
        async with asyncio.timeout(10):
            await seen.began.wait()
        got.set()
        await seen.end()
        assert seen.body == b"hi"
        assert (seen.error.fault if seen.error else None) is fault
        over.set()
        await engine.aclose()


async def test_a_cut_before_the_answer_says_that_tls_ended_early(
    authority: Any, ca_file: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        cut_tcp(peer)
        await asyncio.Event().wait()

    async with secure(script, authority, "localhost") as (port, _):
        engine = make(f"https://localhost:{port}/v1", ca_file=ca_file)
        seen = await send(engine).end()
        assert seen.error.fault is Fault.RESET
        assert "without a close_notify" in seen.error.message
        await engine.aclose()


async def test_a_changed_byte_is_no_success(authority: Any, ca_file: str) -> None:
    meddling = asyncio.Event()

    def change(data: bytes) -> list[bytes]:
        return [data[:-1] + bytes([data[-1] ^ 1])] if meddling.is_set() else [data]

    async with (
        secure(always(OK), authority, "localhost") as (port, _),
        relay(port, change) as changing,
    ):
        engine = make(f"https://localhost:{changing}/v1", ca_file=ca_file)
        assert (await send(engine).end()).body == b"hi"
        meddling.set()
        seen = await send(engine).end()
        assert seen.error.fault is Fault.RESET
        assert "TLS failed" in seen.error.message
        assert seen.body == b""
        await engine.aclose()


async def test_a_peer_that_leaves_amid_the_handshake_is_a_connect_failure(ca_file: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    engine = make(f"https://localhost:{port}/v1", ca_file=ca_file)
    seen = await send(engine).end()
    assert seen.error.fault is Fault.CONNECT
    assert not seen.call.sent
    await engine.aclose()
    server.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the kernel does not say what is acked")
@pytest.mark.parametrize("proxied", [False, True])
async def test_c51_what_was_sent_is_counted_as_the_kernel_counts_it(
    authority: Any, ca_file: str, proxied: bool
) -> None:
    """An answer acknowledges all before it; the handshake of TCP counts as one byte."""
    async with secure(always(OK), authority, "localhost") as (port, _), proxying() as (_, proxy):
        url = proxy if proxied else ""
        engine = make(f"https://localhost:{port}/v1", ca_file=ca_file, proxy_url=url)
        for _ in range(3):
            seen = send(engine)
            await seen.end()
            (connection,) = engine._idle
            sent = connection.transport.sent_bytes  # type: ignore[attr-defined]
            assert acked_bytes(connection.transport) == sent + 1
        await engine.aclose()


async def test_a_reset_that_meets_our_close_notify_is_no_failure() -> None:
    """A server that says close_notify and closes need not wait for ours (RFC 8446, 6.1)."""
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    wire, above = Wire(to_server), Above()
    tls = TlsTransport(above, client_side, "localhost")
    tls.connection_made(wire)
    with contextlib.suppress(ssl.SSLWantReadError):
        server.do_handshake()
    tls.data_received(to_client.read())
    server.do_handshake()
    await tls.connected
    server.write(b"all of it")
    with contextlib.suppress(ssl.SSLWantReadError):
        server.unwrap()
    tls.data_received(to_client.read())
    tls.connection_lost(ConnectionResetError())
    assert above.told == [b"all of it", "eof", None]


class Wire(asyncio.Transport):
    """A transport whose other end is a memory buffer."""

    def __init__(self, sink: ssl.MemoryBIO) -> None:
        super().__init__()
        self._sink = sink
        self._closing = False

    def write(self, data: Any) -> None:
        self._sink.write(data)

    def close(self) -> None:
        self._closing = True

    def is_closing(self) -> bool:
        return self._closing


class Above(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def eof_received(self) -> None:
        self.told.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(exc)
