"""One small HTTP exchange for metadata and probes, over TCP or a Unix socket.

Speaks HTTP/1.0, so that an answer is never chunked and ends with its connection. For a handful
of calls to loopback and to engines; requests of clients go through the pool.
"""

import asyncio
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

import msgspec

MAX_ANSWER_BYTES = 32 << 20


class AskError(Exception):
    """No usable HTTP answer: refused, timed out, not HTTP, too long."""


class Answer(msgspec.Struct, frozen=True):
    """Status, lower-case headers, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None if it is not."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return None


async def ask(
    url: str,
    body: Any = None,
    *,
    headers: dict[str, str] | None = None,
    timeout_s: float,
    socket_path: str | None = None,
) -> Answer:
    """GET, or POST `body` as JSON; `socket_path` replaces the host. AskError: no usable answer."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _exchange(url, body, headers or {}, socket_path)
    except TimeoutError:
        raise AskError(f"{url} did not answer within {timeout_s:g} s") from None
    except (OSError, ssl.SSLError, ValueError) as error:
        raise AskError(f"{url}: {error}") from error


async def _exchange(
    url: str, body: Any, headers: dict[str, str], socket_path: str | None
) -> Answer:
    parts = urlsplit(url)
    if socket_path:
        reader, writer = await asyncio.open_unix_connection(socket_path)
    else:
        tls = parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls or None)
    try:
        writer.write(_request(parts.netloc, parts.path or "/", parts.query, body, headers))
        await writer.drain()
        return _parsed(await _all(reader))
    finally:
        writer.close()


def _request(host: str, path: str, query: str, body: Any, headers: dict[str, str]) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    fields = {"host": host.rpartition("@")[2], "accept": "application/json", **headers}
    if body is not None:
        fields |= {"content-type": "application/json", "content-length": str(len(content))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    target = f"{path}?{query}" if query else path
    verb = "GET" if body is None else "POST"
    return f"{verb} {target} HTTP/1.0\r\n{lines}\r\n".encode() + content


async def _all(reader: asyncio.StreamReader) -> bytes:
    data = bytearray()
    while piece := await reader.read(1 << 16):
        data += piece
        if len(data) > MAX_ANSWER_BYTES:
            raise ValueError(f"the answer is longer than {MAX_ANSWER_BYTES:,} bytes")
        if _complete(data):
            break
    return bytes(data)


def _complete(data: bytearray) -> bool:
    """A server may keep the connection open in spite of HTTP/1.0; its length then tells the end."""
    head, separator, body = bytes(data).partition(b"\r\n\r\n")
    if not separator:
        return False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    return False


def _parsed(data: bytes) -> Answer:
    head, separator, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = first.split(" ", 2)
    if not separator or not first.startswith("HTTP/1.") or not fields[1].isdigit():
        raise ValueError(f"not an HTTP answer: {data[:40]!r}")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _unchunked(body)
    return Answer(int(fields[1]), headers, body)


def _unchunked(body: bytes) -> bytes:
    """Some servers chunk an HTTP/1.0 answer all the same."""
    out, rest = bytearray(), body
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.partition(b";")[0] or b"0", 16)
        if not length:
            break
        out += rest[:length]
        rest = rest[length + 2 :]
    return bytes(out)
