"""The output items of a response as they grow, and the stream events that tell of it."""

from typing import Any
from uuid import uuid4

import msgspec

from locavore.core.events import (
    Event,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)

_Fields = dict[str, Any]
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


class _Item(msgspec.Struct):
    kind: str
    index: int
    id: str
    part: str = ""
    """Type of the content part: `output_text`, `refusal` or `reasoning_text`."""
    text: str = ""
    call_id: str = ""
    name: str = ""
    sealed: str | None = None
    done: bool = False

    def fields(self) -> _Fields:
        status = "completed" if self.done else "in_progress"
        fields: _Fields = {"id": self.id, "type": self.kind, "status": status}
        if self.kind == "function_call":
            return {**fields, "call_id": self.call_id, "name": self.name, "arguments": self.text}
        content = [self.content(self.text)] if self.done and self.text else []
        if self.kind == "message":
            return {**fields, "role": "assistant", "content": content}
        thought = {**fields, "summary": [], "content": content}
        return {**thought, "encrypted_content": self.sealed} if self.sealed else thought

    def content(self, text: str) -> _Fields:
        if self.part == "output_text":
            return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"type": self.part, ("refusal" if self.part == "refusal" else "text"): text}

    def place(self) -> _Fields:
        return {"item_id": self.id, "output_index": self.index}


class Output:
    """Text and thought items follow each other; calls stay open until the answer finishes."""

    def __init__(self) -> None:
        self._items: list[_Item] = []
        self._open: _Item | None = None
        self._calls: dict[int, _Item] = {}

    def items(self) -> list[_Fields]:
        return [item.fields() for item in self._items if item.done]

    def add(self, event: Event) -> list[_Fields]:
        if isinstance(event, TextDelta):
            return self._say("message", "output_text", event.text)
        if isinstance(event, RefusalDelta):
            return self._say("message", "refusal", event.text)
        if isinstance(event, ReasoningDelta):
            return self._think(event)
        if isinstance(event, ToolCallStart):
            return self._call(event)
        if isinstance(event, ToolCallDelta):
            item = self._calls[event.index]
            item.text += event.arguments
            kind = "response.function_call_arguments.delta"
            return [{"type": kind, **item.place(), "delta": event.arguments}]
        raise TypeError(f"no responses form for {type(event).__name__}")

    def finish(self) -> list[_Fields]:
        events = self._close()
        for item in self._calls.values():
            if not item.done:
                events += self._close_call(item)
        return events

    def _new(self, kind: str, part: str = "") -> _Item:
        item_id = f"{_PREFIXES[kind]}_{uuid4().hex}"
        item = _Item(kind=kind, index=len(self._items), id=item_id, part=part)
        self._items.append(item)
        return item

    def _say(self, kind: str, part: str, text: str) -> list[_Fields]:
        events: list[_Fields] = []
        item = self._open
        if item is None or item.part != part:
            events = self._close()
            item = self._open = self._new(kind, part)
            events += [_added(item), _part_event(item, "added", "")]
        item.text += text
        delta: _Fields = {
            "type": f"response.{part}.delta",
            **item.place(),
            "content_index": 0,
            "delta": text,
        }
        return [*events, {**delta, "logprobs": []} if part == "output_text" else delta]

    def _think(self, event: ReasoningDelta) -> list[_Fields]:
        events = self._say("reasoning", "reasoning_text", event.text) if event.text else []
        sealed = event.signature or event.redacted
        if sealed is None:
            return events
        if self._open is None or self._open.kind != "reasoning":
            events += self._close()
            self._open = self._new("reasoning", "reasoning_text")
            events.append(_added(self._open))
        self._open.sealed = sealed
        return events + self._close()

    def _call(self, event: ToolCallStart) -> list[_Fields]:
        events = self._close()
        item = self._calls[event.index] = self._new("function_call")
        item.call_id, item.name = event.id, event.name
        return [*events, _added(item)]

    def _close(self) -> list[_Fields]:
        item, self._open = self._open, None
        if item is None:
            return []
        item.done = True
        events: list[_Fields] = []
        if item.text:
            events = [_text_done(item), _part_event(item, "done", item.text)]
        return [*events, _item_done(item)]

    def _close_call(self, item: _Item) -> list[_Fields]:
        item.text = item.text or "{}"
        item.done = True
        kind = "response.function_call_arguments.done"
        done = {"type": kind, **item.place(), "arguments": item.text, "name": item.name}
        return [done, _item_done(item)]


def _added(item: _Item) -> _Fields:
    return {
        "type": "response.output_item.added",
        "output_index": item.index,
        "item": item.fields(),
    }


def _item_done(item: _Item) -> _Fields:
    return {
        "type": "response.output_item.done",
        "output_index": item.index,
        "item": item.fields(),
    }


def _part_event(item: _Item, what: str, text: str) -> _Fields:
    kind = f"response.content_part.{what}"
    return {"type": kind, **item.place(), "content_index": 0, "part": item.content(text)}


def _text_done(item: _Item) -> _Fields:
    field = "refusal" if item.part == "refusal" else "text"
    done: _Fields = {"type": f"response.{item.part}.done", **item.place(), "content_index": 0}
    done[field] = item.text
    return {**done, "logprobs": []} if item.part == "output_text" else done
