"""The one place where something beside a call learns of it: shadows, explored calls, labels.

A watcher never stands on a call's path: it is asked once whether it wants the answer, and told
after the record is in the journal and the last byte is on its way to the client.
"""

from typing import TYPE_CHECKING, Protocol

import msgspec

from locavore.core.decision import Decision
from locavore.core.events import Event
from locavore.core.outcome import CallRecord
from locavore.core.ports import Headers
from locavore.core.request import Request
from locavore.wire.formats import FORMATS

if TYPE_CHECKING:
    from locavore.serving.client import Listener, Reply
    from locavore.serving.state import State


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was served, as its watcher sees it."""

    request: Request
    """With the body as received; it binds whoever asks again: `record.decision.facts.labels`."""
    record: CallRecord
    answer: tuple[Event, ...]
    """What the client was sent. Text of the user: it must not be stored."""
    state: "State"
    """The snapshot the call was served from."""


class Watcher(Protocol):
    """Set as `Pipeline.watcher`; one per worker, called on its event loop."""

    def wants(self, request: Request, decision: Decision) -> bool:
        """Whether `served` is to be called for this call. Costs every call: keep it short."""
        ...

    def served(self, call: Watched) -> None:
        """The call was served and is recorded. What it raises reaches nobody's client."""
        ...


class Copying:
    """A `Reply` that keeps what it is told to send."""

    def __init__(self, reply: "Reply", request: Request) -> None:
        self._reply = reply
        self._request = request
        self._sent: list[bytes] = []

    @property
    def listener(self) -> "Listener | None":
        return self._reply.listener

    @listener.setter
    def listener(self, listener: "Listener | None") -> None:
        self._reply.listener = listener

    def respond(self, status: int, headers: Headers | bytes, body: bytes) -> None:
        self._sent.append(body)
        self._reply.respond(status, headers, body)

    def start(self, status: int, headers: Headers | bytes) -> None:
        self._reply.start(status, headers)

    def write(self, data: bytes) -> None:
        self._sent.append(data)
        self._reply.write(data)

    def finish(self, data: bytes = b"") -> None:
        self._sent.append(data)
        self._reply.finish(data)

    def events(self, last: bytes = b"") -> list[Event]:
        """What the client was sent, with the bytes that are about to follow."""
        fmt, sent = FORMATS[self._request.format], b"".join((*self._sent, last))
        if not self._request.stream:
            return fmt.answer(sent)
        reader = fmt.stream_reader()
        return [*reader.feed(sent), *reader.close()]

    def tell(self, watcher: Watcher, record: CallRecord, state: "State") -> None:
        """Hand over what was sent."""
        answer = tuple(self.events())
        watcher.served(Watched(request=self._request, record=record, answer=answer, state=state))
