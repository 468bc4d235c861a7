"""Pass-through of responses streams."""

from locavore.wire.faults import broken, to_failure
from locavore.wire.openai_chat.errors import read_error
from locavore.wire.openai_responses.reader import ending, failure_of, has_error
from locavore.wire.openai_responses.usage import canonical
from locavore.wire.openai_responses.wire_events import (
    DECODE_ERRORS,
    WireEvent,
    WireResponse,
    decode_event,
)
from locavore.wire.scanning import StreamScanner
from locavore.wire.sse import SseEvent

_ENDS = ("response.completed", "response.incomplete", "response.failed")


class ResponsesScanner(StreamScanner):
    """The last event holds the whole answer, and how it ended."""

    def __init__(self, *, strip_usage: bool = False) -> None:
        super().__init__(strip_usage=strip_usage)
        self._called_tools = False

    def _event(self, block: bytes, event: SseEvent) -> tuple[bytes, str | None]:
        if event.data.strip() == b"[DONE]":
            return b"", None
        try:
            wire = decode_event(event.data)
        except DECODE_ERRORS:
            if event.event == "error":
                self.failure = to_failure(read_error(event.data))
            else:
                self.failure = broken("the upstream sent an event that is not of responses")
            return b"", None
        kind = wire.type or event.event or ""
        if kind == "error" or not kind:
            self.failure = to_failure(read_error(event.data))
        elif kind in _ENDS and wire.response is not None:
            self._end(wire.response)
        else:
            self._note(kind, wire)
        # Its events are numbered: none is another with another text.
        return b"" if self.failure is not None else block, None

    def _note(self, kind: str, wire: WireEvent) -> None:
        if kind.endswith(".delta") and wire.delta:
            self.content_started = True
        elif wire.item is not None and wire.item.type not in ("message", "reasoning"):
            self.content_started = True
            self._called_tools |= wire.item.type == "function_call"

    def _end(self, response: WireResponse) -> None:
        if response.usage is not None:
            self.usage = canonical(response.usage)
        if response.status == "failed" or has_error(response):
            self.failure = failure_of(response)
            return
        self.content_started = True
        self.ended = True
        for event in ending(response, self._called_tools):
            if (reason := getattr(event, "reason", None)) is not None:
                self.finish_reasons[0] = reason
