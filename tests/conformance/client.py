"""A plain client for conformance tests: what was sent and every byte that came back."""

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from locavore.core.outcome import CallRecord
from locavore.testing import ScriptedUpstream
from locavore.testing.gateway import RunningGateway

CHAT: dict[str, Any] = {"model": "home/m", "messages": [{"role": "user", "content": "Say hello."}]}
MESSAGES: dict[str, Any] = {**CHAT, "max_tokens": 100}
CHAT_PATH, MESSAGES_PATH = "/v1/chat/completions", "/v1/messages"


def backend(id_: str, server: ScriptedUpstream | RunningGateway, **settings: Any) -> str:
    """A `[[backend]]` table. Anthropic's base URL has no `/v1`."""
    anthropic = settings.get("dialect") == "anthropic"
    values = {"id": id_, "url": server.origin if anthropic else server.url} | settings
    lines = [f"{name} = {toml(value)}" for name, value in values.items()]
    return "\n".join(["[[backend]]", *lines, ""])


def toml(value: Any) -> str:
    """A value as TOML; dictionaries inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    return json.dumps(value)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """`data:` of each server-sent event: JSON decoded, `[DONE]` as it is."""
        blocks = [b for b in self.body.decode().split("\n\n") if b.strip()]
        return [_data(block) for block in blocks if "data:" in block]

    @property
    def text(self) -> str:
        """Content of a streamed chat completion so far."""
        chunks = [e for e in self.events if isinstance(e, dict) and e.get("choices")]
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, of the body or of the last event."""
        last = self.events[-1] if b"data:" in self.body else self.json
        found: dict[str, Any] = last["error"]
        return found


def _data(block: str) -> Any:
    data = "".join(
        line.partition(":")[2].strip() for line in block.splitlines() if line.startswith("data:")
    )
    return data if data == "[DONE]" else json.loads(data)


class Client:
    """Talks to a running gateway."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        connection = self.connection()
        try:
            self._send(connection, path, body, headers)
            return self._read(connection)
        finally:
            connection.close()

    def chat(
        self, *, stream: bool = False, headers: dict[str, str] | None = None, **f: Any
    ) -> Answer:
        body = CHAT | ({"stream": True} if stream else {}) | f
        return self.post(CHAT_PATH, body, headers)

    def messages(self, *, stream: bool = False, **fields: Any) -> Answer:
        body = MESSAGES | ({"stream": True} if stream else {}) | fields
        return self.post(MESSAGES_PATH, body, {"anthropic-version": "2023-06-01"})

    def get(self, path: str) -> Answer:
        return self._bare("GET", path)

    def delete(self, path: str) -> Answer:
        return self._bare("DELETE", path)

    def _bare(self, method: str, path: str) -> Answer:
        connection = self.connection()
        try:
            connection.request(method, path)
            return self._read(connection)
        finally:
            connection.close()

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Any request; a body is sent as JSON."""
        connection = self.connection()
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, headers or {})
            return self._read(connection)
        finally:
            connection.close()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=20)

    def open_stream(self, **fields: Any) -> "OpenStream":
        """A streamed chat whose bytes are read when the test wants them."""
        return OpenStream(self.gateway.port, CHAT | {"stream": True} | fields)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        body: Any,
        headers: dict[str, str] | None,
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(
            "POST", path, data, {"content-type": "application/json", **(headers or {})}
        )

    def _read(self, connection: http.client.HTTPConnection) -> Answer:
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read())

    def records(self) -> list[CallRecord]:
        return self.gateway.records()

    @property
    def record(self) -> CallRecord:
        """The only record there is."""
        (record,) = self.records()
        return record


class OpenStream:
    """A raw connection with one streamed call on it."""

    def __init__(self, port: int, body: Any, path: str = CHAT_PATH) -> None:
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.sendall(head.encode() + data)
        self.received = b""

    def read_until(self, marker: bytes) -> bytes:
        """Everything received once `marker` is in it. Raises EOFError if the stream ends first."""
        while marker not in self.received:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(f"the stream ended before {marker!r}: {self.received!r}")
            self.received += data
        return self.received

    def read_all(self) -> bytes:
        for data in iter(lambda: self.socket.recv(65536), b""):
            self.received += data
            if self.received.endswith(b"0\r\n\r\n"):
                break
        return self.received

    def close(self) -> None:
        self.socket.close()

    def __iter__(self) -> Iterator[bytes]:
        yield from iter(lambda: self.socket.recv(65536), b"")
