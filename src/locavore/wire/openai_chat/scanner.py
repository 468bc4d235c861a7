"""Pass-through of chat streams: repairs what would mislead a client, forwards the rest."""

from typing import Any

import msgspec

from locavore.wire.decoding import encode
from locavore.wire.faults import broken, to_failure
from locavore.wire.openai_chat.chunks import (
    DECODE_ERRORS,
    Choice,
    Chunk,
    decode_chunk,
    said,
    text_alone,
)
from locavore.wire.openai_chat.errors import read_error
from locavore.wire.openai_chat.reader import DONE
from locavore.wire.openai_chat.reasons import read_reason
from locavore.wire.openai_chat.thoughts import Parts, Thoughts, patch
from locavore.wire.openai_chat.tool_calls import CallTracker, Placed, patched
from locavore.wire.openai_chat.usage import canonical, usage_of
from locavore.wire.openai_chat.writer import DONE_EVENT
from locavore.wire.scanning import StreamScanner
from locavore.wire.sse import SseEvent, frame

_decode_any = msgspec.json.Decoder().decode
_NULL_USAGE = b',"usage":null'


class ChatScanner(StreamScanner):
    """Tool calls are placed, thinking in tags is told apart, usage only we asked for taken out."""

    def __init__(self, *, strip_usage: bool = False, raw: bool = False) -> None:
        """`raw`: the text is not a chat turn, tags are words."""
        super().__init__(strip_usage=strip_usage)
        self._thoughts = None if raw else Thoughts()
        self._trackers: dict[int, CallTracker] = {}
        self._choices: set[int] = set()

    def _event(self, block: bytes, event: SseEvent) -> tuple[bytes, str | None]:
        data = event.data
        if data.strip() == DONE:
            self.ended = True
            return (self._thoughts.rest() if self._thoughts else b"") + DONE_EVENT, None
        try:
            chunk = decode_chunk(data)
        except DECODE_ERRORS:
            if event.event == "error":
                self.failure = to_failure(read_error(data))
            else:
                self.failure = broken("the upstream sent a stream event that is not a chat chunk")
            return b"", None
        if chunk.failed or event.event == "error":
            self.failure = to_failure(read_error(data))
            return b"", None
        placed = self._note(chunk)
        return self._forward(block, data, chunk, placed, self._apart(chunk)), text_alone(chunk)

    def _apart(self, chunk: Chunk) -> dict[int, Parts]:
        """Thinking and text of the choices that mix them, by position in the chunk."""
        apart: dict[int, Parts] = {}
        if self._thoughts is not None:
            for position, choice in enumerate(chunk.choices or ()):
                parts = self._thoughts.apart(choice, last=bool(choice.finish_reason))
                if parts is not None:
                    apart[position] = parts
        return apart

    def _note(self, chunk: Chunk) -> dict[int, list[Placed]]:
        """Take the chunk's facts; placed tool deltas by position of their choice in the chunk."""
        self.usage = usage_of(chunk) or self.usage
        placed: dict[int, list[Placed]] = {}
        for position, choice in enumerate(chunk.choices or ()):
            self._choices.add(choice.index)
            delta = said(choice)
            if delta is not None and delta.says_something:
                self.content_started = True
                if delta.tool_calls:
                    tracker = self._trackers.setdefault(choice.index, CallTracker())
                    placed[position] = [tracker.place(call) for call in delta.tool_calls]
            self._note_finish(choice)
        return placed

    def _note_finish(self, choice: Choice) -> None:
        if choice.usage is not None:
            self.usage = canonical(choice.usage)
        if not choice.finish_reason:
            return
        self.content_started = True
        tracker = self._trackers.get(choice.index)
        called = tracker is not None and tracker.any
        reason = read_reason(choice.finish_reason, called_tools=called)
        self.finish_reasons[choice.index] = reason

    def _forward(
        self,
        block: bytes,
        data: bytes,
        chunk: Chunk,
        placed: dict[int, list[Placed]],
        apart: dict[int, Parts],
    ) -> bytes:
        repair = placed and any(call.repaired for calls in placed.values() for call in calls)
        strip = self.strip_usage and b'"usage"' in data
        if not (repair or strip or apart):
            return block
        if strip and not chunk.choices and chunk.usage is not None:
            return b""
        if not (repair or apart) and chunk.usage is None and block.count(_NULL_USAGE) == 1:
            return block.replace(_NULL_USAGE, b"")
        fields = _decode_any(data)
        if strip:
            fields.pop("usage", None)
        if repair:
            _patch(fields, placed)
        patch(fields, apart)
        return frame(encode(fields))

    def _close(self) -> None:
        if self._choices and self._choices <= self.finish_reasons.keys():
            self.ended = True  # every choice said why it ended; only the marker is missing
            self.trailer += DONE_EVENT
        else:
            super()._close()


def _patch(fields: dict[str, Any], placed: dict[int, list[Placed]]) -> None:
    for position, calls in placed.items():
        choice = fields["choices"][position]
        delta = choice.get("delta") or choice.get("message")
        deltas = zip(delta["tool_calls"], calls, strict=True)
        delta["tool_calls"] = [patched(call, place) for call, place in deltas]
