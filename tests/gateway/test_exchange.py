"""Answers: whole and streamed, kept and closed connections, slow and vanishing clients."""

import asyncio

import pytest

from locavore.gateway.exchange import Exchange
from tests.gateway.wires import JSON, echo, holds, listening, post, statuses

pytestmark = pytest.mark.anyio

GET = b"POST /v1/echo HTTP/1.1\r\nhost: a\r\n\r\n"


def request(body: bytes, *header_lines: bytes, version: bytes = b"1.1") -> bytes:
    head = b"".join(line + b"\r\n" for line in header_lines)
    return b"POST /v1/echo HTTP/%b\r\nhost: a\r\n%bcontent-length: %d\r\n\r\n%b" % (
        version,
        head,
        len(body),
        body,
    )


def streaming(exchange: Exchange) -> None:
    exchange.start(200, [(b"content-type", b"text/event-stream")])
    exchange.write(b"one")
    exchange.write(b"")
    exchange.write(b"two")
    exchange.finish(b"three")


class Held:
    """A handler that keeps its exchange, and the listener of what becomes of it."""

    def __init__(self) -> None:
        self.exchange: Exchange | None = None
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()
        self.paused = asyncio.Event()
        self.resumed = asyncio.Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.listener = self
        self.exchange = exchange
        self.arrived.set()

    async def get(self) -> Exchange:
        async with asyncio.timeout(10):
            await self.arrived.wait()
        assert self.exchange is not None
        return self.exchange

    def on_disconnect(self) -> None:
        self.left.set()

    def on_pause(self) -> None:
        self.paused.set()

    def on_resume(self) -> None:
        self.resumed.set()


async def test_a_connection_serves_one_request_after_another() -> None:
    async with listening() as port:
        client = await port.open()
        for body in (b"", b"a", b"x" * 300_000, b"z"):
            client.send(request(body))
            assert await client.answer() == (200, body)
        assert len(port.server.connections) == 1
        client.close()


async def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    running = 0

    def later(exchange: Exchange) -> None:
        nonlocal running
        running += 1
        assert running == 1

        def answer() -> None:
            nonlocal running
            running -= 1
            echo(exchange)

        asyncio.get_running_loop().call_later(0.001, answer)

    async with listening(post(later)) as port:
        client = await port.open()
        client.send(b"".join(request(b"%d" % i) for i in range(15)))
        client.send(b"".join(request(b"%d" % i) for i in range(15, 30)))
        assert [await client.answer() for _ in range(30)] == [(200, b"%d" % i) for i in range(30)]
        client.close()


async def test_pipelining_is_bounded() -> None:
    async with listening(pipelined=8) as port:
        answer = await port.talk(request(b"x") * 100)
        assert statuses(answer)[-1] == 400
        assert len(statuses(answer)) <= 9


async def test_pipelined_bytes_behind_a_running_request_are_bounded() -> None:
    held = Held()
    async with listening(post(held), pipelined_bytes=10_000) as port:
        client = await port.open()
        client.send(request(b"first"))
        exchange = await held.get()
        client.send(request(b"y" * 20_000_000))
        await holds(lambda: client.writer.transport.get_write_buffer_size() >= 100_000)
        held.arrived.clear()
        exchange.respond(200, JSON, b"1")
        assert await client.answer() == (200, b"1")
        second = await held.get()
        second.respond(200, JSON, b"%d" % len(second.body))
        assert await client.answer() == (200, b"20000000")
        client.close()


async def test_a_malformed_request_behind_a_good_one_costs_only_itself() -> None:
    async with listening() as port:
        answer = await port.talk(request(b"good") + b"bad\r\n\r\n" + request(b"never"))
        assert statuses(answer) == [200, 400]
        assert b"never" not in answer


async def test_bytes_after_a_closing_request_are_ignored() -> None:
    async with listening() as port:
        answer = await port.talk(request(b"last", b"connection: close") + request(b"never"))
        assert statuses(answer) == [200]
        assert answer.endswith(b"last")


async def test_streams_are_chunked_on_11_and_closed_on_10() -> None:
    async with listening(post(streaming)) as port:
        answer = await port.talk(request(b"", b"connection: close"))
        assert answer.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")
        answer = await port.talk(request(b"", b"connection: keep-alive", version=b"1.0"))
        assert answer.endswith(b"\r\n\r\nonetwothree")
        assert b"chunked" not in answer
        assert b"connection: close" in answer


async def test_http_10_is_kept_alive_only_when_asked() -> None:
    async with listening() as port:
        assert b"connection: close" in await port.talk(request(b"x", version=b"1.0"))
        client = await port.open()
        client.send(request(b"x", b"connection: keep-alive", version=b"1.0"))
        assert b"connection: keep-alive" in await client.until(b"\r\n\r\n")
        await client.until(b"x")
        client.send(request(b"y", version=b"1.0"))
        assert (await client.rest()).endswith(b"y")
        client.close()


async def test_head_gets_the_head_alone() -> None:
    routes = {b"/v1/echo": {b"HEAD": lambda e: e.respond(200, JSON, b"12345")}}
    async with listening(routes) as port:
        answer = await port.talk(b"HEAD /v1/echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert b"content-length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_expect_100_continue_is_answered_before_the_body() -> None:
    async with listening() as port:
        client = await port.open()
        head = b"POST /v1/echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2"
        client.send(head + b"\r\n\r\n")
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"ab")
        assert await client.answer() == (200, b"ab")
        client.close()


@pytest.mark.parametrize("cut", [0, 30, 100, 150])
async def test_an_upgrade_offer_is_ignored(cut: int) -> None:
    """Java's HttpClient offers h2c on its first request, with a body behind."""
    offer = (b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMA")
    data = request(b"ab", *offer) + request(b"cd")
    async with listening() as port:
        client = await port.open()
        client.send(data[:cut])
        await client.writer.drain()
        client.send(data[cut:])
        assert await client.answer() == (200, b"ab")
        assert await client.answer() == (200, b"cd")
        client.close()


async def test_connect_is_refused() -> None:
    async with listening() as port:
        assert statuses(await port.talk(b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n")) == [405]


async def test_repeated_headers_are_joined() -> None:
    seen: list[bytes | None] = []

    def look(exchange: Exchange) -> None:
        seen.extend([exchange.header(b"x-labels"), exchange.header(b"none")])
        echo(exchange)

    async with listening(post(look)) as port:
        await port.talk(request(b"", b"X-Labels: a", b"x-labels: b", b"connection: close"))
    assert seen == [b"a, b", None]


async def test_headers_cannot_be_injected() -> None:
    def inject(exchange: Exchange) -> None:
        with pytest.raises(ValueError, match="line break"):
            exchange.respond(200, [(b"x", b"a\r\nset-cookie: b")], b"")
        echo(exchange)

    async with listening(post(inject)) as port:
        answer = await port.talk(request(b"x", b"connection: close"))
    assert statuses(answer) == [200]
    assert b"set-cookie" not in answer


async def test_a_failing_handler_is_a_500_and_a_failing_stream_is_broken_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def crash(exchange: Exchange) -> None:
        if exchange.body:
            exchange.start(200, JSON)
            exchange.write(b"begun")
        raise RuntimeError("on purpose")

    async with listening(post(crash)) as port:
        assert statuses(await port.talk(request(b"", b"connection: close"))) == [500]
        answer = await port.talk(request(b"x"))
        assert b"begun" in answer
        assert not answer.endswith(b"0\r\n\r\n")
    assert caplog.text.count("a handler failed") == 2


async def test_c01_an_aborted_stream_looks_broken() -> None:
    held = Held()
    async with listening(post(held)) as port:
        client = await port.open()
        client.send(request(b""))
        exchange = await held.get()
        exchange.start(200, JSON)
        exchange.write(b"part")
        exchange.abort()
        answer = await client.rest()
        assert answer.endswith(b"4\r\npart\r\n")
        client.close()
        await port.emptied()


async def test_c01_an_aborted_stream_on_http_10_is_reset() -> None:
    """Without chunks, closing would look like a complete answer."""
    held = Held()
    async with listening(post(held)) as port:
        client = await port.open()
        client.send(request(b"", version=b"1.0"))
        exchange = await held.get()
        exchange.start(200, JSON)
        exchange.write(b"part")
        await client.until(b"part")
        exchange.abort()
        with pytest.raises(ConnectionResetError):
            await client.rest()
        client.close()
        await port.emptied()


@pytest.mark.parametrize("began", [False, True], ids=["before", "mid-stream"])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_c11_a_client_that_leaves_is_noticed(how: str, began: bool) -> None:
    held = Held()
    async with listening(post(held)) as port:
        client = await port.open()
        client.send(request(b""))
        exchange = await held.get()
        if began:
            exchange.start(200, JSON)
            exchange.write(b"part")
            await client.until(b"part")
        client.reset() if how == "reset" else client.close()
        async with asyncio.timeout(10):
            await held.left.wait()
        assert exchange.disconnected
        if began:
            exchange.write(b"nobody reads this")
            exchange.finish()
        else:
            exchange.respond(200, JSON, b"nor this")
        await port.emptied()


async def test_answering_twice_is_an_error() -> None:
    problems: list[str] = []

    def twice(exchange: Exchange) -> None:
        echo(exchange)
        for again in (b"respond", b"write", b"finish"):
            try:
                if again == b"respond":
                    echo(exchange)
                elif again == b"write":
                    exchange.write(again)
                else:
                    exchange.finish()
            except RuntimeError as error:
                problems.append(str(error))

    async with listening(post(twice)) as port:
        await port.talk(request(b"", b"connection: close"))
    assert len(problems) == 3


async def test_c10_clients_that_stop_reading_pause_their_stream() -> None:
    """Fifty of them: each writer is told to stop, and no buffer passes its bound."""
    clients = 50
    piece = b"x" * 16_384
    writers: list[Held] = []

    def handle(exchange: Exchange) -> None:
        held = Held()
        held(exchange)
        writers.append(held)
        exchange.start(200, JSON)
        while not held.paused.is_set():
            exchange.write(piece)

    async with listening(post(handle), stalled_s=30.0) as port:
        opened = [await port.open() for _ in range(clients)]
        for client in opened:
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            client.send(request(b""))
        await holds(lambda: len(writers) == clients)
        buffered = [c.transport.get_write_buffer_size() for c in port.server.connections]
        assert len(buffered) == clients
        assert max(buffered) < 65_536 + 2 * len(piece)
        # The first one reads on: its writer may continue, and the end arrives.
        opened[0].reader._transport.resume_reading()  # type: ignore[attr-defined]
        reading = asyncio.create_task(opened[0].rest())
        async with asyncio.timeout(10):
            await asyncio.wait(
                [asyncio.ensure_future(w.resumed.wait()) for w in writers],
                return_when=asyncio.FIRST_COMPLETED,
            )
        (resumed,) = [w for w in writers if w.resumed.is_set()]
        assert resumed.exchange is not None
        resumed.exchange.abort()
        assert not (await reading).endswith(b"0\r\n\r\n")
        for client in opened:
            client.reset()
        await port.emptied()
    assert sum(w.left.is_set() for w in writers) == clients - 1


async def test_c10_a_client_that_never_reads_is_dropped() -> None:
    held = Held()
    async with listening(post(held), stalled_s=0.1) as port:
        client = await port.open()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        client.send(request(b""))
        exchange = await held.get()
        exchange.start(200, JSON)
        while not held.paused.is_set():
            exchange.write(b"x" * 65_536)
        async with asyncio.timeout(10):
            await held.left.wait()
        await port.emptied()
        client.reset()


async def test_c10_a_handler_that_ignores_the_pause_is_cut_off() -> None:
    held = Held()
    async with listening(post(held), unread_bytes=1_000_000) as port:
        client = await port.open()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        client.send(request(b""))
        exchange = await held.get()
        exchange.start(200, JSON)
        async with asyncio.timeout(10):
            while not held.left.is_set():
                exchange.write(b"x" * 65_536)
                await asyncio.sleep(0)
        await port.emptied()
        client.reset()
