"""The seams. Adapters implement these; `compose` wires them; nothing else knows both sides."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from locavore.core.errors import LocavoreError, UpstreamError
from locavore.core.events import Event, Failure, FinishReason
from locavore.core.money import Usage
from locavore.core.outcome import CallRecord
from locavore.core.request import Conversation, Request, Turn

Headers = Sequence[tuple[bytes, bytes]]
"""Lower-case names, in order of arrival."""


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, by phase of an upstream call."""

    connect_s: float = 5.0
    first_byte_s: float = 600.0
    """From the request's last byte to the answer's first content byte."""
    idle_s: float = 120.0
    """Between two pieces of an answer."""
    total_s: float = 3600.0


class Receiver(Protocol):
    """Who gets an upstream's answer. Called from the event loop, never after `cancel`."""

    def on_head(self, status: int, headers: Headers) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_end(self) -> None:
        """The HTTP message ended properly. Says nothing about the dialect's own end marker."""
        ...

    def on_answer(self, status: int, headers: Headers, body: bytes) -> None:
        """All of it at once, in place of the three above: it came in one read."""
        ...

    def on_failure(self, error: UpstreamError) -> None: ...


class Call(Protocol):
    """A running upstream call."""

    @property
    def sent(self) -> bool:
        """Whether any byte of the request was handed to the connection (C51)."""
        ...

    def pause(self) -> None:
        """Stop reading from the upstream: the client is slower (C10)."""
        ...

    def resume(self) -> None: ...
    def cancel(self) -> None:
        """Drop the call; the connection is closed unless the answer had ended."""
        ...


class Engine(Protocol):
    """One upstream host: connections, credentials, TLS."""

    def send(
        self,
        path: bytes,
        body: bytes,
        receiver: Receiver,
        *,
        timeouts: Timeouts,
        headers: Headers = (),
    ) -> Call:
        """POST `body` as JSON to base path + `path`; never raises, failures go to the receiver."""
        ...


class EventReader(Protocol):
    """bytes of one answer -> events, whatever the cuts between the bytes."""

    def feed(self, data: bytes) -> list[Event]: ...
    def close(self) -> list[Event]:
        """The bytes ended. Without the dialect's end marker the last event is a `Failure`."""
        ...


class EventWriter(Protocol):
    """events -> bytes of one streamed answer."""

    def write(self, event: Event) -> bytes: ...


class StreamScanner(Protocol):
    """Watches a stream that passes through as bytes."""

    content_started: bool
    """A first piece of the answer came; pings and openings do not count (C12)."""
    ended: bool
    """The dialect's own end marker was seen; whatever follows is dropped."""
    failure: Failure | None
    """An error inside the stream; nothing from it on was returned."""
    usage: Usage | None
    finish_reasons: dict[int, FinishReason]
    trailer: bytes
    """After `close` without failure: bytes still to forward."""
    events: int
    """Events with data so far: with no usage, the best estimate of the answer's tokens."""

    def feed(self, data: bytes) -> bytes:
        """The complete events to forward."""
        ...

    def close(self) -> Failure | None:
        """The bytes ended. A Failure when the dialect's end was not among them (C01)."""
        ...


class WireFormat(Protocol):
    """One client-facing or upstream-facing JSON format."""

    name: str
    path: bytes
    """Below a base URL that ends in `/v1`."""

    def request(self, body: bytes) -> Request:
        """One typed decode; raises RequestError naming the field and the value."""
        ...

    def turns(self, body: bytes) -> list[Turn]:
        """The conversation without instructions, for judging a call and knowing it again."""
        ...

    def rewrite(
        self,
        body: bytes,
        request: Request,
        *,
        model: str,
        add_usage: bool = False,
        drop_labels: bool = True,
        drop: Sequence[str] = (),
    ) -> bytes:
        """The body for an upstream of the same format: top-level fields change, no other byte."""
        ...

    def conversation(self, body: bytes) -> Conversation: ...
    def body(self, conversation: Conversation, *, model: str, stream: bool) -> bytes:
        """The request to send upstream; raises RequestError for what this format cannot carry."""
        ...

    def stream_reader(self) -> EventReader: ...
    def stream_writer(self, request: Request) -> EventWriter: ...
    def scanner(self, *, strip_usage: bool = False) -> StreamScanner: ...
    def ping(self) -> bytes:
        """Keep-alive bytes between two events."""
        ...

    def answer(self, body: bytes) -> list[Event]:
        """A whole (not streamed) answer as events."""
        ...

    def answer_body(self, events: list[Event], request: Request) -> bytes: ...
    def usage(self, body: bytes) -> Usage | None:
        """Usage of a whole answer; None when it says nothing (C67)."""
        ...

    def error_body(self, error: LocavoreError, request_id: str = "") -> bytes: ...
    def upstream_error(
        self, status: int, headers: Headers, body: bytes, backend_id: str
    ) -> UpstreamError:
        """Classify an error answer."""
        ...


class Home(NamedTuple):
    """Where a conversation was served last."""

    mark: int
    """Of the backend's id: `routing.conversation.mark_of`."""
    age_s: float


class Homes(Protocol):
    """Remembers homes for all workers of a gateway. Bounded: it may forget."""

    secret: bytes
    """Digests are keyed with it, so nobody can look for a text they know."""

    def get(self, key: bytes) -> Home | None: ...
    def put(self, key: bytes, mark: int) -> None: ...


class Journal(Protocol):
    """Where a finished call is written before its last byte leaves."""

    def append(self, record: CallRecord) -> None:
        """Survives `kill -9` once it returned; raises StoreError when it cannot keep that."""
        ...

    def ensure_room(self) -> None:
        """Raises StoreError when the next record could not be kept; asked before money is spent."""
        ...

    def close(self) -> None: ...
