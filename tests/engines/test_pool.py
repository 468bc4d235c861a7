"""The client pool against scripted upstreams on real sockets."""

import asyncio
import gzip
import os
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from locavore.core.errors import Fault, UpstreamError
from locavore.core.ports import Headers, Timeouts
from locavore.engines.deadlines import Deadlines
from locavore.engines.pool import HttpEngine, PoolLimits
from tests.gateway.wires import holds

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Peer:
    """One accepted connection of the scripted upstream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """Head and body of the next request."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length: "):
                length = int(line.partition(b": ")[2])
        return head + await self.reader.readexactly(length)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class Upstream:
    """Serves each connection by `script`; counts them."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.peers: list[Peer] = []
        self.tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            await self.script(peer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            peer.close()

    async def stop(self, server: asyncio.Server) -> None:
        server.close()
        for peer in self.peers:
            peer.reset()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Seen:
    """A Receiver that keeps what it got."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: Headers = ()
        self.pieces: list[bytes] = []
        self.error: UpstreamError | None = None
        self.began = asyncio.Event()
        self.over = asyncio.Event()
        self.heads = 0

    def on_head(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers
        self.heads += 1
        self.began.set()

    def on_body(self, data: bytes) -> None:
        assert not self.over.is_set()
        self.pieces.append(data)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def on_end(self) -> None:
        assert not self.over.is_set()
        self.over.set()

    def on_answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.on_head(status, headers)
        self.on_body(body)
        self.on_end()

    def on_failure(self, error: UpstreamError) -> None:
        assert not self.over.is_set()
        self.error = error
        self.over.set()

    async def end(self) -> "Seen":
        async with asyncio.timeout(10):
            await self.over.wait()
        return self


@asynccontextmanager
async def upstream(script: Script, **options: Any) -> AsyncIterator[tuple[HttpEngine, Upstream]]:
    """An engine pointed at a scripted upstream."""
    scripted = Upstream(script)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    engine = make(f"http://127.0.0.1:{port}/v1", **options)
    try:
        yield engine, scripted
    finally:
        await engine.aclose()
        await scripted.stop(server)


def make(url: str, **options: Any) -> HttpEngine:
    options.setdefault("environment", {})
    return HttpEngine(url, deadlines=Deadlines(tick_s=0.02), **options)


def send(engine: HttpEngine, body: bytes = b"{}", **timeouts: float) -> Any:
    seen = Seen()
    seen.call = engine.send(b"/chat", body, seen, timeouts=Timeouts(**timeouts))  # type: ignore[attr-defined]
    return seen


def always(answer: bytes) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.send(answer)

    return script


def once(answer: bytes) -> Script:
    """Answer, then close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(answer)
        peer.close()

    return script


async def test_what_goes_over_the_wire() -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        got.append(await peer.request())
        peer.send(OK)

    async with upstream(script, headers=[(b"authorization", b"Bearer k")]) as (engine, _):
        seen = Seen()
        engine.send(b"/chat", b'{"a":1}', seen, timeouts=Timeouts(), headers=[(b"x-id", b"7")])
        await seen.end()
        assert (seen.status, seen.body) == (200, b"hi")
        host = engine.origin.host_header
        assert "Bearer" not in repr(engine)
    assert got == [
        b"POST /v1/chat HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity\r\n"
        b"content-type: application/json\r\nauthorization: Bearer k\r\nx-id: 7\r\n"
        b'content-length: 7\r\n\r\n{"a":1}' % host
    ]


async def test_connections_are_kept_and_the_latest_is_used_first() -> None:
    async with upstream(always(OK)) as (engine, scripted):
        for _ in range(5):
            await (await send(engine).end()).over.wait()
        assert len(scripted.peers) == 1
        await asyncio.gather(*(send(engine).end() for _ in range(3)))
        assert len(scripted.peers) == 3


FRAMINGS = {
    "length": OK,
    "chunked": STREAM + b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
    "C13 trailers": STREAM + b"2\r\nhi\r\n0\r\nx-checksum: 1\r\nx: 2\r\n\r\n",
    "chunk extension": STREAM + b"2;a=b\r\nhi\r\n0\r\n\r\n",
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    + OK,
    "C13 HTTP/1.0 with length": b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    "C13 HTTP/1.0 by closing": b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nhi",
    "by closing": b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhi",
    "no reason phrase": b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nhi",
    "C13 gzip": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
    % len(gzip.compress(b"hi"))
    + gzip.compress(b"hi"),
    "C13 gzip by closing": b"HTTP/1.0 200 OK\r\ncontent-encoding: gzip\r\n\r\n"
    + gzip.compress(b"hi"),
    "C13 deflate": b"HTTP/1.0 200 OK\r\ncontent-encoding: deflate\r\n\r\n" + zlib.compress(b"hi"),
    "C13 raw deflate": b"HTTP/1.0 200 OK\r\ncontent-encoding: deflate\r\n\r\n"
    + zlib.compress(b"hi")[2:-4],
}


@pytest.mark.parametrize("answer", FRAMINGS.values(), ids=FRAMINGS.keys())
@pytest.mark.parametrize("step", [1, 7, 10_000])
async def test_c13_every_framing_gives_the_same_answer_however_it_is_cut(
    answer: bytes, step: int
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for start in range(0, len(answer), step):
            peer.send(answer[start : start + step])
            await asyncio.sleep(0)
        peer.close()

    async with upstream(script) as (engine, _):
        seen = await send(engine).end()
    assert seen.error is None
    assert (seen.status, seen.body, seen.heads) == (200, b"hi", 1)
    assert b"content-encoding" not in dict(seen.headers)
    assert b"x-checksum" not in dict(seen.headers)


BROKEN = {
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", Fault.PROTOCOL),
    "length and chunked": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nhi",
        Fault.PROTOCOL,
    ),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi",
        Fault.PROTOCOL,
    ),
    "bad chunk": (STREAM + b"zz\r\nhi\r\n", Fault.PROTOCOL),
    "brotli": (b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\n\r\nxx", Fault.PROTOCOL),
    "broken gzip": (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nxxxx", Fault.PROTOCOL),
    "short gzip": (
        b"HTTP/1.0 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(b"hi" * 99)[:-9],
        Fault.TRUNCATED,
    ),
    "C100 redirect": (
        b"HTTP/1.1 307 Go\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
        Fault.PROTOCOL,
    ),
    "switching protocols": (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nxx",
        Fault.PROTOCOL,
    ),
    "endless head": (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, Fault.PROTOCOL),
    "nothing": (b"", Fault.RESET),
    "half a head": (b"HTTP/1.1 200 OK\r\ncontent-le", Fault.RESET),
    "C02 short body": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi",
        Fault.TRUNCATED,
    ),
    "C02 cut chunk": (STREAM + b"9\r\nhi", Fault.TRUNCATED),
    "C02 no last chunk": (STREAM + b"2\r\nhi\r\n", Fault.TRUNCATED),
}


@pytest.mark.parametrize(("answer", "fault"), BROKEN.values(), ids=BROKEN.keys())
async def test_c02_a_broken_answer_is_one_failure_of_the_right_class(
    answer: bytes, fault: Fault
) -> None:
    async with upstream(once(answer)) as (engine, scripted):
        seen = await send(engine).end()
        assert len(scripted.peers) == 1
    assert seen.error is not None
    assert seen.error.fault is fault
    assert str(seen.error).startswith("http://127.0.0.1:")


async def test_a_compression_bomb_is_refused() -> None:
    bomb = gzip.compress(b"\0" * 200_000_000, 9)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
    async with upstream(once(head + bomb)) as (engine, _):
        seen = await send(engine).end()
    assert seen.error is not None
    assert seen.error.fault is Fault.PROTOCOL
    assert len(seen.body) < 100_000_000


async def test_a_reset_in_the_answer_is_a_truncation() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(STREAM + b"2\r\nhi\r\n")
        await peer.writer.drain()
        await asyncio.sleep(0.02)
        peer.reset()

    async with upstream(script) as (engine, _):
        seen = await send(engine).end()
    assert seen.body == b"hi"
    assert seen.error is not None
    assert seen.error.fault is Fault.TRUNCATED


async def test_pieces_of_one_read_are_delivered_together() -> None:
    burst = STREAM + b"2\r\nhi\r\n" * 100 + b"0\r\n\r\n"
    async with upstream(always(burst)) as (engine, _):
        seen = await send(engine).end()
    assert seen.body == b"hi" * 100
    assert len(seen.pieces) < 10


@pytest.mark.parametrize("surplus", [b"HTTP/1.1 200 OK\r\n", OK, OK + OK, b"x", b"\0"])
async def test_bytes_after_an_answer_cost_the_connection_and_not_the_answer(
    surplus: bytes,
) -> None:
    async with upstream(always(OK + surplus)) as (engine, scripted):
        for _ in range(2):
            assert (await send(engine).end()).body == b"hi"
        assert len(scripted.peers) == 2


async def test_an_unasked_answer_on_an_idle_connection_is_never_given_to_the_next_call() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(OK)
        await asyncio.sleep(0.02)
        peer.send(OK.replace(b"hi", b"no"))
        await peer.request()
        peer.send(OK)

    async with upstream(script) as (engine, _):
        assert (await send(engine).end()).body == b"hi"
        await holds(lambda: not engine._open)
        assert (await send(engine).end()).body == b"hi"


# C51: what may be sent again


async def test_c51_a_connection_closed_while_idle_is_replaced_silently() -> None:
    served = 0

    async def script(peer: Peer) -> None:
        nonlocal served
        await peer.request()
        served += 1
        peer.send(OK)
        await peer.writer.drain()
        peer.close()  # without saying so

    async with upstream(script) as (engine, scripted):
        for _ in range(20):
            seen = await send(engine).end()
            assert seen.error is None
        assert served == 20
        assert len(scripted.peers) == 20


async def test_c51_the_keep_alive_race_is_resent_because_nothing_was_accepted() -> None:
    """The server closes; before our loop sees it we write. Its kernel answers with a reset."""
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(OK)
        if not closed.is_set():
            await closed.wait()
            peer.reset()  # RST or FIN: the socket is gone either way
        else:
            await peer.request()

    async with upstream(script) as (engine, scripted):
        assert (await send(engine).end()).error is None
        handle = scripted.peers[0].writer.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(handle)) as sock:
            sock.shutdown(socket.SHUT_RDWR)  # our loop learns of it only after we wrote
        seen = send(engine)
        assert seen.call.sent
        closed.set()
        assert (await seen.end()).error is None
        assert seen.body == b"hi"
        assert len(scripted.peers) == 2


async def test_c51_a_request_that_was_read_is_never_sent_twice() -> None:
    requests = 0

    async def script(peer: Peer) -> None:
        nonlocal requests
        await peer.request()
        requests += 1
        peer.send(OK)
        await peer.request()
        requests += 1
        peer.close()

    async with upstream(script) as (engine, _):
        assert (await send(engine).end()).error is None
        seen = await send(engine).end()
        assert seen.error is not None
        assert seen.error.fault is Fault.RESET
        assert seen.call.sent
        assert requests == 2


async def test_c51_a_new_connection_that_fails_is_not_tried_again() -> None:
    async with upstream(once(b"")) as (engine, scripted):
        seen = await send(engine).end()
        assert seen.error.fault is Fault.RESET
        assert len(scripted.peers) == 1


# time


@pytest.mark.parametrize("answer", [b"", STREAM], ids=["no head", "head only"])
async def test_c09_no_content_in_time(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(answer)
        await peer.reader.read()

    async with upstream(script) as (engine, _):
        seen = await send(engine, first_byte_s=0.1).end()
        assert seen.error.fault is Fault.FIRST_BYTE_TIMEOUT
        assert not engine._open


async def test_c09_a_stream_that_stops() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(STREAM + b"2\r\nhi\r\n")
        assert await peer.reader.read() == b""  # we are hung up on
        gone.set()

    gone = asyncio.Event()
    async with upstream(script) as (engine, _):
        seen = await send(engine, idle_s=0.1).end()
        assert seen.body == b"hi"
        assert seen.error.fault is Fault.STALLED
        async with asyncio.timeout(10):
            await gone.wait()


async def test_c09_a_stream_that_never_ends() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(STREAM)
        while True:
            peer.send(b"1\r\nx\r\n")
            await asyncio.sleep(0.02)

    async with upstream(script) as (engine, _):
        seen = await send(engine, total_s=0.15).end()
        assert seen.error.fault is Fault.STALLED


async def test_connecting_has_a_limit_and_refusal_a_fault() -> None:
    engine = make("http://127.0.0.1:9/v1")  # discard: nobody listens
    seen = await send(engine).end()
    assert seen.error.fault is Fault.CONNECT
    assert not seen.call.sent
    await engine.aclose()


async def test_idle_connections_are_closed_in_time() -> None:
    async with upstream(always(OK), limits=PoolLimits(idle_s=0.05)) as (engine, _):
        await send(engine).end()
        assert len(engine._idle) == 1
        await holds(lambda: not engine._open)
        assert engine._idle == []
        assert len(engine.deadlines) == 0


# flow and cancelling


async def test_c10_a_paused_call_reads_nothing_more() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(STREAM)
        for _ in range(200):
            peer.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            await peer.writer.drain()
        peer.send(b"0\r\n\r\n")

    async with upstream(script) as (engine, scripted):
        seen = send(engine, idle_s=0.1)
        async with asyncio.timeout(10):
            await seen.began.wait()
        seen.call.pause()
        await holds(lambda: scripted.peers[0].writer.transport.get_write_buffer_size() > 0)
        before = len(seen.body)
        await asyncio.sleep(0.3)  # longer than idle_s: a pause is not a stall
        assert len(seen.body) == before
        assert not seen.over.is_set()
        seen.call.resume()
        await seen.end()
        assert seen.error is None
        assert len(seen.body) == 200 * 65_536


@pytest.mark.parametrize("began", [False, True], ids=["before", "mid-stream"])
async def test_c11_cancelling_hangs_up_at_once(began: bool) -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        arrived.set()
        if began:
            peer.send(STREAM + b"2\r\nhi\r\n")
        try:
            await peer.reader.read()
        finally:
            gone.set()

    arrived = asyncio.Event()
    async with upstream(script) as (engine, _):
        seen = send(engine)
        async with asyncio.timeout(10):
            await (seen.began if began else arrived).wait()
            seen.call.cancel()
            seen.call.cancel()
            await gone.wait()
        assert not engine._open
        assert not seen.over.is_set()
        assert seen.error is None


async def test_cancelling_from_within_a_callback() -> None:
    class Quitter(Seen):
        def on_body(self, data: bytes) -> None:
            super().on_body(data)
            call.cancel()

    async with upstream(always(STREAM + b"2\r\nhi\r\n0\r\n\r\n")) as (engine, _):
        seen = Quitter()
        call = engine.send(b"/chat", b"{}", seen, timeouts=Timeouts())
        await holds(lambda: bool(seen.body))
        assert not seen.over.is_set()
        assert not engine._open


async def test_c84_connections_are_bounded_and_waiting_is_fair() -> None:
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await release.wait()
            body = request.partition(b"\r\n\r\n")[2]
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    limits = PoolLimits(connections=2, waiting=3)
    async with upstream(script, limits=limits) as (engine, scripted):
        running = [send(engine, b"%d" % i) for i in range(2)]
        await holds(lambda: all(seen.call.sent for seen in running))
        waiting = [send(engine, b"%d" % i) for i in range(2, 5)]
        refused = await send(engine).end()
        assert refused.error.fault is Fault.OVERLOADED
        waiting[0].call.cancel()
        release.set()
        for index, seen in enumerate([*running, *waiting]):
            if seen is not waiting[0]:
                assert (await seen.end()).body == b"%d" % index
        assert len(scripted.peers) == 2


async def test_waiting_for_a_connection_has_a_limit() -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read()

    async with upstream(script, limits=PoolLimits(connections=1)) as (engine, _):
        first = send(engine)
        await holds(lambda: first.call.sent)
        second = await send(engine, connect_s=0.1).end()
        assert second.error.fault is Fault.OVERLOADED
        assert not second.call.sent


async def test_closing_the_engine_fails_what_runs_and_what_comes() -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read()

    async with upstream(script) as (engine, _):
        seen = send(engine)
        await holds(lambda: seen.call.sent)
        await engine.aclose()
        assert (await seen.end()).error.fault is Fault.RESET
        assert (await send(engine).end()).error.fault is Fault.CONNECT
        assert len(engine.deadlines) == 0


# metadata, sockets, headers


async def test_fetch_gives_a_whole_answer_from_either_root() -> None:
    lines: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            lines.append((await peer.request()).partition(b"\r\n")[0])
            peer.send(OK)

    async with upstream(script) as (engine, _):
        answer = await engine.fetch("GET", "/models")
        assert (answer.status, answer.body) == (200, b"hi")
        await engine.fetch("POST", "/api/show", b"{}", from_root=True)
    assert lines == [b"GET /v1/models HTTP/1.1", b"POST /api/show HTTP/1.1"]
    with pytest.raises(UpstreamError, match="engine was closed"):
        await engine.fetch("GET", "/models")


async def test_a_unix_socket(tmp_path: Path) -> None:
    scripted = Upstream(always(OK))
    path = str(tmp_path / "engine.sock")
    server = await asyncio.start_unix_server(scripted.serve, path)
    engine = make(f"unix:{path}", headers=[(b"authorization", b"Bearer k")])
    for _ in range(3):
        assert (await send(engine).end()).body == b"hi"
    assert len(scripted.peers) == 1
    await engine.aclose()
    await scripted.stop(server)


async def test_a_missing_unix_socket_is_a_connect_failure(tmp_path: Path) -> None:
    engine = make(f"unix:{tmp_path / 'none.sock'}")
    assert (await send(engine).end()).error.fault is Fault.CONNECT
    await engine.aclose()


def test_c94_a_line_break_in_a_header_is_refused_without_showing_the_value() -> None:
    with pytest.raises(ValueError, match="line break") as caught:
        HttpEngine("http://a/v1", headers=[(b"authorization", b"Bearer secret\r\nx: y")])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/v1",
        "a:8000/v1",
        "http://",
        "http://user:secret@a/v1",
        "http://a/v1?key=secret",
        "http://a/v 1",
        "http://a/v1\r\nx: y",
        "unix:relative.sock",
    ],
)
def test_c100_engine_urls_are_strict(url: str) -> None:
    with pytest.raises(ValueError, match=r"engine URL|unix: URL") as caught:
        HttpEngine(url, environment={})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("step", [7, 40, 10_000])
async def test_heads_that_repeat_give_each_answer_its_own_body(step: int) -> None:
    """The head of a kept connection is compared, not parsed; only its digits may differ."""
    head = b"HTTP/1.1 200 OK\r\nserver: x\r\ncontent-length:%b\r\nx-id: 1\r\n\r\n%b"
    answers = [
        (head % (b" 5", b"hello"), b"hello"),
        (head % (b" 3", b"abc"), b"abc"),
        (head % (b" 0", b""), b""),
        (head % (b" 0012", b"hello, world"), b"hello, world"),
        (head % (b"  4 ", b"four"), b"four"),
        (STREAM + b"2\r\nhi\r\n0\r\n\r\n", b"hi"),
        (head % (b" 1000", b"x" * 1000), b"x" * 1000),
        (head.replace(b"200 OK", b"503 No") % (b" 2", b"no"), b"no"),
        (head % (b" 2", b"ok"), b"ok"),
    ]

    async def script(peer: Peer) -> None:
        for answer, _ in answers * 2:
            await peer.request()
            for start in range(0, len(answer), step):
                peer.send(answer[start : start + step])
                await asyncio.sleep(0)

    async with upstream(script) as (engine, scripted):
        for answer, body in answers * 2:
            seen = await send(engine).end()
            assert (seen.error, seen.body, seen.heads) == (None, body, 1)
            assert seen.status == int(answer[9:12])
        assert len(scripted.peers) == 1


async def test_a_repeated_head_with_a_short_body_is_still_a_truncation() -> None:
    async def script(peer: Peer) -> None:
        for answer in (OK, OK, OK.replace(b": 2", b": 9")):
            await peer.request()
            peer.send(answer)
        peer.close()

    async with upstream(script) as (engine, _):
        assert (await send(engine).end()).body == b"hi"
        assert (await send(engine).end()).body == b"hi"
        assert (await send(engine).end()).error.fault is Fault.TRUNCATED
