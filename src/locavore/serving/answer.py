"""An upstream's answer on its way to the client: passed through, or read and written anew.

Both ways look alike to the call that serves: `feed` bytes, get bytes for the client, and read off
what was seen. A translation offers what `core.ports.StreamScanner` of a wire format does.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from locavore.core.events import (
    End,
    Event,
    Failure,
    Finish,
    FinishReason,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReport,
)
from locavore.core.money import Usage
from locavore.core.ports import EventReader, EventWriter, WireFormat

_CONTENT = (TextDelta, ReasoningDelta, ToolCallStart, ToolCallDelta, Finish)


class Whole(Protocol):
    """How an answer that is not streamed is read."""

    def read(self, body: bytes) -> tuple[bytes, Usage | None, Failure | None]:
        """(body for the client, usage, an error inside a 200)."""
        ...


class TranslatedStream:
    """Events between two formats."""

    def __init__(self, reader: EventReader, writer: EventWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.content_started = False
        self.ended = False
        self.failure: Failure | None = None
        self.usage: Usage | None = None
        self.trailer = b""
        self.finish_reasons: dict[int, FinishReason] = {}
        self.events = 0

    def feed(self, data: bytes) -> bytes:
        self.events += data.count(b"data:")
        return b"".join(self._take(event) for event in self._reader.feed(data))

    def close(self) -> Failure | None:
        self.trailer = b"".join(self._take(event) for event in self._reader.close())
        return self.failure

    def _take(self, event: Event) -> bytes:
        if self.failure is not None or self.ended:
            return b""
        match event:
            case Failure():
                self.failure = event
                return b""
            case UsageReport():
                self.usage = event.usage
            case Start() if event.input_usage is not None:
                self.usage = event.input_usage
            case Finish():
                self.finish_reasons[event.choice] = event.reason
            case End():
                self.ended = True
        if isinstance(event, _CONTENT):
            self.content_started = True
        return self.writer.write(event)


class PassedWhole:
    """The body goes through as it is; only usage and an error object are looked for.

    `mend` repairs what would mislead a client, and gives any other body back.
    """

    def __init__(self, fmt: WireFormat, mend: Callable[[bytes], bytes] | None = None) -> None:
        self._format = fmt
        self._mend = mend

    def read(self, body: bytes) -> tuple[bytes, Usage | None, Failure | None]:
        usage = self._format.usage(body)
        if usage is None:  # seldom; then make sure that it is an answer at all
            for event in self._format.answer(body):
                if isinstance(event, Failure):
                    return b"", None, event
        return body if self._mend is None else self._mend(body), usage, None


class Counted:
    """`count_tokens`: a number, not an answer of a model."""

    def read(self, body: bytes) -> tuple[bytes, Usage | None, Failure | None]:
        msgspec.json.decode(body, type=_Count)
        return body, Usage(input_tokens=0, output_tokens=0), None


class _Count(msgspec.Struct):
    input_tokens: int


class TranslatedWhole:
    """A fold over the events of the answer, as for a stream."""

    def __init__(
        self, answer: Callable[[bytes], list[Event]], write: Callable[[list[Event]], bytes]
    ) -> None:
        self._answer = answer
        self._write = write

    def read(self, body: bytes) -> tuple[bytes, Usage | None, Failure | None]:
        events = self._answer(body)
        usage: Usage | None = None
        for event in events:
            if isinstance(event, Failure):
                return b"", usage, event
            if isinstance(event, UsageReport):
                usage = event.usage
        return self._write(events), usage, None
