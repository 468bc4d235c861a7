"""What supervisor and workers say to each other, over one socket pair per worker."""

import asyncio
import contextlib
import socket

import msgspec

from locavore.core.backend import Backend
from locavore.serving.snapshot import Snapshot


class Load(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """Serve new calls from this snapshot."""

    snapshot: Snapshot


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag="drain"):
    """Stop accepting, finish what runs, exit."""

    timeout_s: float


class Loaded(msgspec.Struct, frozen=True, kw_only=True, tag="loaded"):
    """The worker serves from the snapshot of this version."""

    version: str


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """About once a second."""

    pid: int
    inflight: int
    used: tuple[str, ...] = ()
    """Backends that have served since the last status."""
    breakers: dict[str, dict[str, str]] = {}
    refusals: dict[str, int] = {}
    """Calls turned away since this worker started, by the code of their error."""
    store_error: str | None = None


class Resolve(msgspec.Struct, frozen=True, kw_only=True, tag="resolve"):
    """A worker met a model that only a wildcard covers: which backend is it?"""

    name: str


class Resolved(msgspec.Struct, frozen=True, kw_only=True, tag="resolved"):
    """The backend with its price, or None: there is no such model."""

    name: str
    backend: Backend | None


Message = Load | Drain | Loaded | Status | Resolve | Resolved

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class Channel:
    """Length-prefixed msgpack over a stream socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> "Channel":
        reader, writer = await asyncio.open_connection(sock=sock)
        return cls(reader, writer)

    def send(self, message: Message) -> None:
        data = _encoder.encode(message)
        self._writer.write(len(data).to_bytes(4, "big") + data)

    async def receive(self) -> Message | None:
        """The next message; None: the other side is gone."""
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            return _decoder.decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
