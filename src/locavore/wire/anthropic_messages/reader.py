"""Messages answers, streamed or whole -> events."""

import time

from locavore.core.events import (
    End,
    Event,
    Failure,
    Finish,
    Ping,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReport,
)
from locavore.wire.anthropic_messages.errors import read_error
from locavore.wire.anthropic_messages.reasons import read_reason
from locavore.wire.anthropic_messages.usage import WireUsage, canonical, merged, opening
from locavore.wire.anthropic_messages.wire_events import (
    DECODE_ERRORS,
    ContentBlock,
    WireAnswer,
    WireDelta,
    WireEvent,
    decode_answer,
    decode_event,
)
from locavore.wire.decoding import json_text
from locavore.wire.faults import broken, cut_off, to_failure, truncated
from locavore.wire.sse import EventTooLarge, SseDecoder, SseEvent


class MessagesReader:
    """Implements `core.ports.EventReader`."""

    def __init__(self) -> None:
        self._sse = SseDecoder()
        self._over = False
        self._started = False
        self._usage: WireUsage | None = None
        self._calls: dict[int, int] = {}
        self._stop: WireDelta | None = None

    def feed(self, data: bytes) -> list[Event]:
        if self._over:
            return []
        try:
            return self._read_all(self._sse.feed(data))
        except EventTooLarge as error:
            return self._fail(broken(error.message))

    def close(self) -> list[Event]:
        events = [] if self._over else self._last(self._sse.close())
        if self._over:
            return events
        if self._stop is not None:
            return [*events, *self._end()]  # it said why it ended; only message_stop is missing
        return [*events, *self._fail(truncated())]

    def _last(self, received: list[SseEvent]) -> list[Event]:
        events = self._read_all(received)
        return [cut_off(e) if isinstance(e, Failure) else e for e in events]

    def _read_all(self, received: list[SseEvent]) -> list[Event]:
        events: list[Event] = []
        for event in received:
            if self._over:
                break
            events += self._read(event)
        return events

    def _read(self, event: SseEvent) -> list[Event]:
        try:
            wire = decode_event(event.data)
        except DECODE_ERRORS:
            if event.event == "error":
                return self._fail(to_failure(read_error(event.data)))
            return self._fail(broken("the upstream sent an event that is not of a messages stream"))
        kind = wire.type or event.event or ""
        if kind == "error" or event.event == "error":
            return self._fail(to_failure(read_error(event.data)))
        return self._read_kind(kind, wire)

    def _read_kind(self, kind: str, wire: WireEvent) -> list[Event]:
        if kind == "content_block_delta" and wire.delta is not None:
            return self._delta(wire.index, wire.delta)
        if kind == "content_block_start" and wire.content_block is not None:
            return self._block(wire.index, wire.content_block)
        if kind == "message_start" and wire.message is not None:
            return self._start(wire.message)
        if kind == "message_delta":
            self._usage = merged(self._usage, wire.usage)
            if wire.delta is not None and wire.delta.stop_reason:
                self._stop = wire.delta
            return []
        if kind == "message_stop":
            return self._end()
        return [Ping()] if kind == "ping" else []

    def _start(self, message: WireAnswer) -> list[Event]:
        if self._started:
            return []
        self._started = True
        self._usage = opening(message.usage)
        return [start_of(message)]

    def _block(self, index: int, block: ContentBlock) -> list[Event]:
        if block.type == "tool_use":
            self._calls[index] = len(self._calls)
        return block_events(block, self._calls.get(index, 0))

    def _delta(self, index: int, delta: WireDelta) -> list[Event]:
        if delta.text:
            return [TextDelta(text=delta.text)]
        if delta.partial_json and index in self._calls:
            return [ToolCallDelta(index=self._calls[index], arguments=delta.partial_json)]
        if delta.thinking:
            return [ReasoningDelta(text=delta.thinking)]
        if delta.signature:
            return [ReasoningDelta(signature=delta.signature)]
        return []

    def _end(self) -> list[Event]:
        if not self._started:
            return self._fail(broken("the upstream ended the stream without a message_start"))
        self._over = True
        word = self._stop.stop_reason if self._stop is not None else None
        events: list[Event] = [
            Finish(
                reason=read_reason(word or "end_turn", called_tools=bool(self._calls)),
                stop_sequence=self._stop.stop_sequence if self._stop is not None else None,
            )
        ]
        if self._usage is not None:
            events.append(UsageReport(usage=canonical(self._usage)))
        return [*events, End()]

    def _fail(self, failure: Failure) -> list[Event]:
        self._over = True
        return [failure]


def start_of(message: WireAnswer) -> Start:
    usage = opening(message.usage)
    seen = canonical(usage) if usage is not None and usage.input_tokens is not None else None
    return Start(id=message.id, model=message.model, created_s=int(time.time()), input_usage=seen)


def block_events(block: ContentBlock, call: int, *, whole: bool = False) -> list[Event]:
    """What a block says in itself: all of it in a `whole` answer, mostly nothing in a stream."""
    if block.type == "text":
        return [TextDelta(text=block.text)] if block.text else []
    if block.type == "thinking":
        if not block.thinking and not block.signature:
            return []
        return [ReasoningDelta(text=block.thinking or "", signature=block.signature or None)]
    if block.type == "redacted_thinking":
        return [ReasoningDelta(redacted=block.data or "")]
    if block.type != "tool_use":
        return []
    events: list[Event] = [ToolCallStart(index=call, id=block.id or "", name=block.name or "")]
    if block.input or whole:
        events.append(ToolCallDelta(index=call, arguments=json_text(block.input or {})))
    return events


def read_answer(body: bytes) -> list[Event]:
    """A whole answer as events; an error object or foreign bytes give a `Failure`."""
    try:
        message = decode_answer(body)
    except DECODE_ERRORS:
        return [broken("the upstream's answer is not a message")]
    if message.type == "error":
        return [to_failure(read_error(body))]
    if message.type != "message":
        return [broken(f"the upstream's answer is of type {message.type!r}, not 'message'")]
    events: list[Event] = [start_of(message)]
    calls = 0
    for block in message.content:
        events += block_events(block, calls, whole=True)
        calls += block.type == "tool_use"
    events.append(
        Finish(
            reason=read_reason(message.stop_reason or "end_turn", called_tools=calls > 0),
            stop_sequence=message.stop_sequence,
        )
    )
    if message.usage is not None:
        events.append(UsageReport(usage=canonical(message.usage)))
    return [*events, End()]
