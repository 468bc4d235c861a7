"""Pass-through of messages streams."""

from locavore.core.events import FinishReason
from locavore.wire.anthropic_messages.errors import read_error
from locavore.wire.anthropic_messages.reasons import read_reason
from locavore.wire.anthropic_messages.usage import WireUsage, canonical, merged, opening
from locavore.wire.anthropic_messages.wire_events import (
    DECODE_ERRORS,
    WireEvent,
    decode_event,
    text_alone,
)
from locavore.wire.anthropic_messages.writer import STOP_EVENT
from locavore.wire.faults import broken, to_failure
from locavore.wire.scanning import StreamScanner
from locavore.wire.sse import SseEvent


class MessagesScanner(StreamScanner):
    """Usage comes in two parts, at the message's start and at its end."""

    def __init__(self, *, strip_usage: bool = False) -> None:
        super().__init__(strip_usage=strip_usage)
        self._usage: WireUsage | None = None
        self._called_tools = False

    def _event(self, block: bytes, event: SseEvent) -> tuple[bytes, str | None]:
        try:
            wire = decode_event(event.data)
        except DECODE_ERRORS:
            if event.event == "error":
                self.failure = to_failure(read_error(event.data))
            else:
                self.failure = broken("the upstream sent an event that is not of a messages stream")
            return b"", None
        if wire.type == "error" or event.event == "error":
            self.failure = to_failure(read_error(event.data))
            return b"", None
        kind = wire.type or event.event or ""
        self._note(kind, wire)
        return block, text_alone(wire.delta) if kind == "content_block_delta" else None

    def _note(self, kind: str, wire: WireEvent) -> None:
        if kind == "message_stop":
            self.ended = True
        elif kind == "message_start" and wire.message is not None:
            self._note_usage(opening(wire.message.usage))
        elif kind == "message_delta":
            self._note_usage(wire.usage)
            if wire.delta is not None and wire.delta.stop_reason:
                self.content_started = True
                self.finish_reasons[0] = self._reason(wire.delta.stop_reason)
        elif kind == "content_block_start" and wire.content_block is not None:
            self._called_tools |= wire.content_block.type == "tool_use"
            if wire.content_block.type not in ("text", "thinking"):
                self.content_started = True
        elif kind == "content_block_delta" and wire.delta is not None:
            delta = wire.delta
            if delta.text or delta.thinking or delta.partial_json:
                self.content_started = True

    def _reason(self, word: str) -> FinishReason:
        return read_reason(word, called_tools=self._called_tools)

    def _note_usage(self, usage: WireUsage | None) -> None:
        self._usage = merged(self._usage, usage)
        if self._usage is not None:
            self.usage = canonical(self._usage)

    def _close(self) -> None:
        if 0 in self.finish_reasons:
            self.ended = True  # it said why it ended; only the marker is missing
            self.trailer += STOP_EVENT
        else:
            super()._close()
