"""Chat answers, streamed or whole -> events."""

import time

import msgspec

from locavore.core.events import (
    End,
    Event,
    Failure,
    Finish,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReport,
)
from locavore.core.money import Usage
from locavore.wire.faults import broken, cut_off, to_failure, truncated
from locavore.wire.openai_chat.chunks import DECODE_ERRORS, Choice, Chunk, Delta, decode_chunk, said
from locavore.wire.openai_chat.errors import facts_of, read_error
from locavore.wire.openai_chat.reasons import read_reason
from locavore.wire.openai_chat.tool_calls import CallTracker
from locavore.wire.openai_chat.usage import canonical, usage_of
from locavore.wire.sse import EventTooLarge, SseDecoder, SseEvent
from locavore.wire.thinking_tags import ThinkSplitter

DONE = b"[DONE]"


class ChoiceReader:
    """One choice: its calls, its thinking tags, whether it finished."""

    __slots__ = ("calls", "finished", "index", "tags")

    def __init__(self, index: int, *, raw: bool = False) -> None:
        self.index = index
        self.calls = CallTracker()
        self.tags = ThinkSplitter(raw=raw)
        self.finished = False

    def read(self, delta: Delta, logprobs: msgspec.Raw) -> list[Event]:
        events: list[Event] = []
        if delta.thought:
            events.append(ReasoningDelta(choice=self.index, text=delta.thought))
        if words := delta.words:
            events += self._split(*self.tags.feed(words), logprobs)
        if delta.refusal:
            events.append(RefusalDelta(choice=self.index, text=delta.refusal))
        for call in delta.tool_calls or ():
            placed = self.calls.place(call)
            at = {"choice": self.index, "index": placed.index}
            if placed.opens:
                events.append(ToolCallStart(**at, id=placed.id, name=placed.name))
            if placed.arguments:
                events.append(ToolCallDelta(**at, arguments=placed.arguments))
        return events

    def finish(self, word: str | None, stop: str | int | None = None) -> list[Event]:
        if self.finished:
            return []
        self.finished = True
        reason = read_reason(word or "stop", called_tools=self.calls.any)
        sequence = stop if isinstance(stop, str) and reason is FinishReason.STOP else None
        if sequence is not None:
            reason = FinishReason.STOP_SEQUENCE
        end = Finish(choice=self.index, reason=reason, stop_sequence=sequence)
        return [*self._split(*self.tags.close(), None), end]

    def _split(self, thought: str, words: str, logprobs: msgspec.Raw | None) -> list[Event]:
        events: list[Event] = []
        if thought:
            events.append(ReasoningDelta(choice=self.index, text=thought))
        if words:
            raw = bytes(logprobs) if logprobs is not None else b""
            kept = msgspec.Raw(raw) if raw and raw != b"null" else None
            events.append(TextDelta(choice=self.index, text=words, logprobs=kept))
        return events


class ChatReader:
    """Implements `core.ports.EventReader`. `raw`: the text is not a chat turn, tags are words."""

    def __init__(self, *, raw: bool = False) -> None:
        self._raw = raw
        self._sse = SseDecoder()
        self._choices: dict[int, ChoiceReader] = {}
        self._started = False
        self._over = False
        self._usage: Usage | None = None

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
        if self._choices and all(choice.finished for choice in self._choices.values()):
            return [*events, *self._end()]  # every choice said why it ended; only [DONE] is missing
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
        data = event.data.strip()
        if data == DONE:
            return self._end()
        try:
            chunk = decode_chunk(data)
        except DECODE_ERRORS:
            if event.event == "error":
                return self._fail(to_failure(read_error(data)))
            return self._fail(broken("the upstream sent a stream event that is not a chat chunk"))
        if chunk.failed or event.event == "error":
            return self._fail(to_failure(read_error(data)))
        return self._read_chunk(chunk)

    def _read_chunk(self, chunk: Chunk) -> list[Event]:
        events: list[Event] = []
        if not self._started:
            self._started = True
            events.append(start_of(chunk))
        self._usage = usage_of(chunk) or self._usage
        for choice in chunk.choices or ():
            events += self._read_choice(choice)
        return events

    def _read_choice(self, choice: Choice) -> list[Event]:
        reader = self._choices.get(choice.index)
        if reader is None:
            reader = self._choices[choice.index] = ChoiceReader(choice.index, raw=self._raw)
        if choice.usage is not None:
            self._usage = canonical(choice.usage)
        delta = said(choice)
        if reader.finished or delta is None:
            events: list[Event] = []
        else:
            events = reader.read(delta, choice.logprobs)
        if choice.finish_reason:
            events += reader.finish(choice.finish_reason, choice.stop_reason)
        return events

    def _end(self) -> list[Event]:
        self._over = True
        if not self._started:
            return self._fail(broken("the upstream ended the stream without a single chunk"))
        if not self._choices:
            self._choices[0] = ChoiceReader(0)
        events = [event for c in self._choices.values() for event in c.finish(None)]
        if self._usage is not None:
            events.append(UsageReport(usage=self._usage))
        return [*events, End()]

    def _fail(self, failure: Failure) -> list[Event]:
        self._over = True
        return [failure]


def start_of(chunk: Chunk) -> Start:
    return Start(
        id=chunk.id or "",
        model=chunk.model or "",
        created_s=int(time.time() if chunk.created is None else chunk.created),
    )


def read_answer(body: bytes, *, raw: bool = False) -> list[Event]:
    """A whole answer as events; an error object or foreign bytes give a `Failure`."""
    try:
        chunk = decode_chunk(body)
    except DECODE_ERRORS:
        return [broken("the upstream's answer is not a chat completion")]
    if chunk.failed:
        return [to_failure(facts_of(msgspec.json.decode(chunk.error)))]
    if not chunk.choices:
        return [broken("the upstream's answer holds no choices")]
    events: list[Event] = [start_of(chunk)]
    usage = usage_of(chunk)
    for choice in chunk.choices:
        reader = ChoiceReader(choice.index, raw=raw)
        delta = said(choice) or Delta()
        events += reader.read(delta, choice.logprobs)
        events += reader.finish(choice.finish_reason, choice.stop_reason)
        usage = canonical(choice.usage) if choice.usage is not None else usage
    if usage is not None:
        events.append(UsageReport(usage=usage))
    return [*events, End()]
