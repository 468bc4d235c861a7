"""Responses answers, streamed or whole -> events."""

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
from locavore.wire.faults import broken, cut_off, to_failure, truncated
from locavore.wire.openai_chat.errors import facts_of, read_error
from locavore.wire.openai_responses.usage import canonical
from locavore.wire.openai_responses.wire_events import (
    DECODE_ERRORS,
    OutputItem,
    WireEvent,
    WireResponse,
    decode_event,
    decode_response,
)
from locavore.wire.sse import EventTooLarge, SseDecoder, SseEvent

_INCOMPLETE = {
    "max_output_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_ENDS = ("response.completed", "response.incomplete", "response.failed")


class ResponsesReader:
    """Implements `core.ports.EventReader`."""

    def __init__(self) -> None:
        self._sse = SseDecoder()
        self._over = False
        self._started = False
        self._calls: dict[int, int] = {}
        self._spoke: set[int] = set()
        """Output indices whose deltas were seen: their `done` repeats them."""

    def feed(self, data: bytes) -> list[Event]:
        if self._over:
            return []
        try:
            return self._read_all(self._sse.feed(data))
        except EventTooLarge as error:
            return self._fail(broken(error.message))

    def close(self) -> list[Event]:
        events = [] if self._over else self._last(self._sse.close())
        return events if self._over else [*events, *self._fail(truncated())]

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
        if event.data.strip() == b"[DONE]":
            return []
        try:
            wire = decode_event(event.data)
        except DECODE_ERRORS:
            if event.event == "error":
                return self._fail(to_failure(read_error(event.data)))
            return self._fail(broken("the upstream sent an event that is not of responses"))
        kind = wire.type or event.event or ""
        if kind == "error" or (not kind and b'"error"' in event.data):
            return self._fail(to_failure(read_error(event.data)))
        return self._read_kind(kind, wire)

    def _read_kind(self, kind: str, wire: WireEvent) -> list[Event]:
        if kind.endswith(".delta"):
            return self._delta(kind, wire)
        if kind == "response.created" and wire.response is not None and not self._started:
            self._started = True
            return [start_of(wire.response)]
        if kind == "response.output_item.added" and wire.item is not None:
            return self._item_added(wire.output_index, wire.item)
        if kind == "response.output_item.done" and wire.item is not None:
            return self._item_done(wire.output_index, wire.item)
        if kind in _ENDS and wire.response is not None:
            return self._end(wire.response)
        return []

    def _delta(self, kind: str, wire: WireEvent) -> list[Event]:
        make = _DELTAS.get(kind)
        if not wire.delta or make is None:
            return []
        self._spoke.add(wire.output_index)
        return [make(wire.delta, self._calls.get(wire.output_index, 0))]

    def _item_added(self, index: int, item: OutputItem) -> list[Event]:
        if item.type != "function_call":
            return []
        call = self._calls[index] = len(self._calls)
        return [ToolCallStart(index=call, id=item.call_id or item.id or "", name=item.name or "")]

    def _item_done(self, index: int, item: OutputItem) -> list[Event]:
        if index in self._spoke:
            sealed = item.encrypted_content if item.type == "reasoning" else None
            return [ReasoningDelta(signature=sealed)] if sealed else []
        known = index in self._calls
        events = item_events(item, self._calls.setdefault(index, len(self._calls)))
        if item.type != "function_call":
            del self._calls[index]
        return [e for e in events if not (known and isinstance(e, ToolCallStart))]

    def _end(self, response: WireResponse) -> list[Event]:
        self._over = True
        if response.status == "failed" or has_error(response):
            return [failure_of(response)]
        head: list[Event] = [] if self._started else [start_of(response)]
        return [*head, *ending(response, bool(self._calls))]

    def _fail(self, failure: Failure) -> list[Event]:
        self._over = True
        return [failure]


def _call_delta(text: str, call: int) -> Event:
    return ToolCallDelta(index=call, arguments=text)


_DELTAS = {
    "response.output_text.delta": lambda text, _: TextDelta(text=text),
    "response.refusal.delta": lambda text, _: RefusalDelta(text=text),
    "response.reasoning_text.delta": lambda text, _: ReasoningDelta(text=text),
    "response.reasoning_summary_text.delta": lambda text, _: ReasoningDelta(text=text),
    "response.function_call_arguments.delta": _call_delta,
}


def start_of(response: WireResponse) -> Start:
    created = time.time() if response.created_at is None else response.created_at
    return Start(id=response.id, model=response.model, created_s=int(created))


def has_error(response: WireResponse) -> bool:
    raw = bytes(response.error)
    return bool(raw) and raw != b"null"


def failure_of(response: WireResponse) -> Failure:
    error = msgspec.json.decode(response.error) if has_error(response) else None
    return to_failure(facts_of(error))


def ending(response: WireResponse, called_tools: bool) -> list[Event]:
    reason = FinishReason.TOOL_CALLS if called_tools else FinishReason.STOP
    if response.status == "incomplete":
        details = response.incomplete_details
        reason = _INCOMPLETE.get(details.reason or "" if details else "", FinishReason.LENGTH)
    events: list[Event] = [Finish(reason=reason)]
    if response.usage is not None:
        events.append(UsageReport(usage=canonical(response.usage)))
    return [*events, End()]


def item_events(item: OutputItem, call: int) -> list[Event]:
    """A finished output item."""
    if item.type == "function_call":
        events: list[Event] = [
            ToolCallStart(index=call, id=item.call_id or item.id or "", name=item.name or "")
        ]
        if item.arguments:
            events.append(ToolCallDelta(index=call, arguments=item.arguments))
        return events
    if item.type == "reasoning":
        words = "".join(part.text or "" for part in item.content or item.summary or ())
        sealed = item.encrypted_content or None
        return [ReasoningDelta(text=words, signature=sealed)] if words or sealed else []
    events = []
    for part in item.content or () if item.type == "message" else ():
        if part.text:
            events.append(TextDelta(text=part.text))
        if part.refusal:
            events.append(RefusalDelta(text=part.refusal))
    return events


def read_answer(body: bytes) -> list[Event]:
    """A whole answer as events; an error object or foreign bytes give a `Failure`."""
    try:
        response = decode_response(body)
    except DECODE_ERRORS:
        return [broken("the upstream's answer is not a response")]
    if response.status == "failed" or has_error(response):
        return [failure_of(response)]
    if response.object != "response":
        return [broken(f"the upstream's answer is a {response.object!r}, not a 'response'")]
    events: list[Event] = [start_of(response)]
    calls = 0
    for item in response.output:
        events += item_events(item, calls)
        calls += item.type == "function_call"
    return [*events, *ending(response, calls > 0)]
