"""A real server on a real socket, and a client that speaks raw bytes."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from locavore.engines.deadlines import Deadlines
from locavore.gateway.exchange import Exchange
from locavore.gateway.server import AsgiApp, Server, ServerLimits

JSON = [(b"content-type", b"application/json")]
Handler = Callable[[Exchange], None]


async def holds(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells: buffers filling, peers noticing."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def echo(exchange: Exchange) -> None:
    exchange.respond(200, JSON, exchange.body)


def post(handler: Handler) -> dict[bytes, dict[bytes, Handler]]:
    return {b"/v1/echo": {b"POST": handler}}


class Port:
    """A listening server and what tests do to it."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port
        self.clients: list[Client] = []

    async def open(self) -> "Client":
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def talk(self, data: bytes) -> bytes:
        """Send, then read until the server closes."""
        client = await self.open()
        try:
            client.send(data)
            return await client.rest()
        finally:
            client.close()

    async def emptied(self) -> None:
        """Wait until the server holds no connection; never-ending means a leak."""
        await holds(lambda: not self.server.connections)


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readuntil(mark)

    async def rest(self) -> bytes:
        """Everything until the server closes; ConnectionResetError when it resets."""
        async with asyncio.timeout(10):
            return await self.reader.read()

    async def answer(self) -> tuple[int, bytes]:
        """One answer with Content-Length: status and body."""
        head = await self.until(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head)
        assert found is not None, head
        async with asyncio.timeout(10):
            return int(head.split()[1]), await self.reader.readexactly(int(found.group(1)))

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def listening(
    routes: dict[bytes, dict[bytes, Handler]] | None = None,
    fallback: AsgiApp | None = None,
    *,
    hosts: frozenset[bytes] | None = None,
    **limits: Any,
) -> AsyncIterator[Port]:
    """A server with a fast tick, drained at the end; `limits` as in `ServerLimits`."""
    server = Server(
        post(echo) if routes is None else routes,
        fallback,
        limits=ServerLimits(**limits),
        deadlines=Deadlines(tick_s=0.02),
        hosts=hosts,
    )
    port = Port(server, await server.start())
    try:
        yield port
    finally:
        for client in port.clients:
            client.reset()
        await server.drain(2.0)
        assert not server.connections


def statuses(answer: bytes) -> list[int]:
    """Status of each answer in the bytes of a connection, interim ones included."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
