"""What one client may take: bytes, headers, time, connections."""

import asyncio
import gzip
from typing import Any

import pytest

from tests.gateway.wires import listening, statuses

pytestmark = pytest.mark.anyio

START = b"POST /v1/echo HTTP/1.1\r\nhost: a\r\n"


async def status_of(request: bytes, **limits: Any) -> int:
    async with listening(**limits) as port:
        answer = await port.talk(request)
        await port.emptied()
    (status,) = statuses(answer)
    return status


async def test_c105_a_declared_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    assert await status_of(START + b"content-length: 104857600\r\n\r\n") == 413


async def test_c105_a_chunked_body_over_the_limit_is_refused() -> None:
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    request = START + b"transfer-encoding: chunked\r\n\r\n" + chunk * 40 + b"0\r\n\r\n"
    assert await status_of(request, body_bytes=100_000) == 413


async def test_c105_chunk_framing_counts_too() -> None:
    """One byte of data per hundred bytes of extension must not read for ever."""
    chunk = b"1;" + b"e" * 1000 + b"\r\nx\r\n"
    request = START + b"transfer-encoding: chunked\r\n\r\n" + chunk * 2000
    assert await status_of(request, body_bytes=10_000) == 413


async def test_a_body_of_exactly_the_limit_is_served() -> None:
    async with listening(body_bytes=70_000) as port:
        client = await port.open()
        client.send(START + b"content-length: 70000\r\n\r\n" + b"x" * 70_000)
        assert await client.answer() == (200, b"x" * 70_000)
        client.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414),
        (b"GET /" + b"x" * 200_000, 414),
        (START + b"x: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (START + b"x: " + b"y" * 400_000, 431),
        (START + b"".join(b"x%d: y\r\n" % i for i in range(200)) + b"\r\n", 431),
        (START + b"x" * 400_000, 431),
    ],
    ids=["target", "endless target", "value", "endless value", "count", "endless name"],
)
async def test_c105_huge_heads_are_refused(request_bytes: bytes, status: int) -> None:
    assert await status_of(request_bytes) == status


async def test_c105_trailers_are_bounded_and_change_nothing() -> None:
    trailers = b"".join(b"x%d: y\r\n" % i for i in range(100_000))
    request = START + b"transfer-encoding: chunked\r\n\r\n0\r\n" + trailers
    assert await status_of(request, body_bytes=10_000) == 413


async def test_c105_compressed_bodies_are_refused() -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    head = START + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
    assert await status_of(head + bomb) == 415


async def test_an_unknown_expectation_is_refused() -> None:
    assert await status_of(START + b"expect: tea\r\n\r\n") == 417


async def test_a_refused_client_can_read_why_while_it_still_sends() -> None:
    async with listening(body_bytes=1000) as port:
        client = await port.open()
        client.send(START + b"content-length: 8000000\r\n\r\n")
        for _ in range(8):
            client.send(b"x" * 1_000_000)
        assert statuses(await client.rest()) == [413]
        client.close()


async def test_slow_loris_in_the_head_is_told_and_dropped() -> None:
    async with listening(head_s=0.1, linger_s=0.1) as port:
        client = await port.open()
        client.send(START)

        async def trickle() -> None:
            while not client.writer.is_closing():
                client.send(b"x: y\r\n")
                await asyncio.sleep(0.03)

        drip = asyncio.create_task(trickle())
        assert statuses(await client.rest()) == [408]
        drip.cancel()
        client.close()
        await port.emptied()


@pytest.mark.parametrize("limits", [{"body_gap_s": 0.1}, {"body_s": 0.15}], ids=["gap", "whole"])
async def test_slow_body_is_told_and_dropped(limits: dict[str, Any]) -> None:
    async with listening(linger_s=0.1, **limits) as port:
        client = await port.open()
        client.send(START + b"content-length: 1000\r\n\r\n")

        async def trickle() -> None:
            while "body_s" in limits and not client.writer.is_closing():
                client.send(b"x")
                await asyncio.sleep(0.03)

        drip = asyncio.create_task(trickle())
        assert statuses(await client.rest()) == [408]
        drip.cancel()
        client.close()
        await port.emptied()


async def test_idle_connections_are_closed() -> None:
    async with listening(idle_s=0.1, head_s=0.1) as port:
        fresh, used = await port.open(), await port.open()
        used.send(START + b"content-length: 2\r\n\r\nab")
        assert await used.answer() == (200, b"ab")
        assert await used.rest() == b""
        assert await fresh.rest() == b""
        used.close()
        fresh.close()


async def test_c84_connections_over_the_limit_are_told() -> None:
    async with listening(connections=2) as port:
        held = [await port.open() for _ in range(2)]
        for client in held:
            client.send(START + b"\r\n")
            assert await client.answer() == (200, b"")
        extra = await port.open()
        assert statuses(await extra.rest()) == [503]
        for client in [*held, extra]:
            client.close()
