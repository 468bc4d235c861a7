"""Paths that are no hot route go to an ASGI app on the same port; draining ends both kinds."""

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from tests.gateway.test_exchange import Held
from tests.gateway.wires import JSON, listening, post, statuses

pytestmark = pytest.mark.anyio


async def tell(request: Request) -> PlainTextResponse:
    body = await request.body()
    return PlainTextResponse(
        f"{request.method} {request.url.path} {request.url.query} {body.decode()} "
        f"{request.headers.get('upgrade')} {request.headers.get('content-length')}"
    )


async def drip(request: Request) -> StreamingResponse:
    async def pieces() -> Any:
        for number in range(3):
            yield f"{number}\n"
            await asyncio.sleep(0)

    return StreamingResponse(pieces())


APP = Starlette(
    routes=[Route("/tell/{rest:path}", tell, methods=["GET", "POST"]), Route("/drip", drip)]
)


async def test_other_paths_reach_the_asgi_app_and_the_connection_closes() -> None:
    async with listening(fallback=APP) as port:
        answer = await port.talk(
            b"POST /tell/a?b=c HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"
            b"GET /tell/never HTTP/1.1\r\nhost: a\r\n\r\n"
        )
        assert statuses(answer) == [200]
        assert b"connection: close" in answer
        assert answer.endswith(b"POST /tell/a b=c hi None 2")
        await port.emptied()


async def test_the_handover_works_after_hot_requests_and_with_any_framing() -> None:
    async with listening(fallback=APP) as port:
        client = await port.open()
        client.send(b"POST /v1/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx")
        assert await client.answer() == (200, b"x")
        client.send(
            b"POST /tell/ HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        client.send(b"2\r\nab\r\n0\r\n\r\n")
        assert (await client.rest()).endswith(b"POST /tell/  ab None 2")
        client.close()


async def test_the_asgi_app_streams_and_its_404_is_its_own() -> None:
    async with listening(fallback=APP) as port:
        assert b"0\n" in await port.talk(b"GET /drip HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = await port.talk(b"GET /none HTTP/1.1\r\nhost: a\r\n\r\n")
        assert statuses(answer) == [404]
        assert answer.endswith(b"Not Found")


async def test_an_asgi_exchange_has_a_deadline() -> None:
    async def forever(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with listening(fallback=forever, handover_s=0.1) as port:
        client = await port.open()
        client.send(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            assert await client.rest() == b""
            raise ConnectionResetError  # a plain close is as good
        client.close()
        await port.emptied()


async def test_draining_finishes_what_runs_and_refuses_what_is_new() -> None:
    held = Held()
    async with listening(post(held)) as port:
        idle, busy = await port.open(), await port.open()
        busy.send(b"POST /v1/echo HTTP/1.1\r\nhost: a\r\n\r\n")
        exchange = await held.get()
        draining = asyncio.create_task(port.server.drain(10.0))
        assert await idle.rest() == b""
        with pytest.raises(ConnectionError):
            await port.open()
        exchange.start(200, JSON)
        exchange.finish(b"done")
        answer = await busy.rest()
        assert b"connection: close" in answer
        assert answer.endswith(b"4\r\ndone\r\n0\r\n\r\n")
        idle.close()
        busy.close()
        assert await draining


async def test_draining_cuts_what_does_not_end() -> None:
    held = Held()
    async with listening(post(held)) as port:
        client = await port.open()
        client.send(b"POST /v1/echo HTTP/1.1\r\nhost: a\r\n\r\n")
        await held.get()
        assert not await port.server.drain(0.1)
        assert held.left.is_set()
        client.close()


async def test_nothing_ticks_once_the_server_is_gone() -> None:
    async with listening() as port:
        deadlines = port.server.deadlines
        assert len(deadlines) == 1
    assert len(deadlines) == 0
