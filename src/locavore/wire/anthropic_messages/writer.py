"""Events -> a messages stream, or a whole message."""

from typing import Any

import msgspec

from locavore.core.events import (
    End,
    Event,
    Failure,
    Finish,
    FinishReason,
    Ping,
    ReasoningDelta,
    Start,
    UsageReport,
)
from locavore.core.money import Usage
from locavore.core.request import Request
from locavore.wire.anthropic_messages.blocks import BlockWriter
from locavore.wire.anthropic_messages.errors import failure_fields
from locavore.wire.anthropic_messages.reasons import WRITTEN
from locavore.wire.anthropic_messages.usage import usage_json
from locavore.wire.decoding import encode, parse_arguments
from locavore.wire.folding import FoldedCall, FoldedThought, fold
from locavore.wire.sse import frame

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
STOP_EVENT = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
MALFORMED = "malformed_json"
"""Key under which arguments that are no JSON object travel: `input` must be an object."""


class MessagesWriter:
    """Implements `core.ports.EventWriter`. After `End` or `Failure` it writes nothing more."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._blocks = BlockWriter()
        self._finish = Finish(reason=FinishReason.STOP)
        self._usage: Usage | None = None
        self._over = False

    def write(self, event: Event) -> bytes:
        if self._over or getattr(event, "choice", None):
            return b""
        if isinstance(event, Start):
            return self._start(event)
        if isinstance(event, Ping):
            return PING
        if isinstance(event, Finish):
            self._finish = event
            return self._blocks.finish()
        if isinstance(event, UsageReport):
            self._usage = event.usage
            return b""
        if isinstance(event, End):
            return self._end()
        if isinstance(event, Failure):
            self._over = True
            return frame(encode(failure_fields(event)), "error")
        return self._content(event)

    def _content(self, event: Event) -> bytes:
        if isinstance(event, ReasoningDelta) and event.text and event.signature is not None:
            thought = ReasoningDelta(text=event.text)
            return self._blocks.add(thought) + self._blocks.add(
                ReasoningDelta(signature=event.signature)
            )
        return self._blocks.add(event)

    def _start(self, event: Start) -> bytes:
        self._usage = event.input_usage
        message: dict[str, Any] = {
            "id": event.id,
            "type": "message",
            "role": "assistant",
            "model": event.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_json(event.input_usage or Usage()),
        }
        return frame(encode({"type": "message_start", "message": message}), "message_start")

    def _end(self) -> bytes:
        self._over = True
        delta = {
            "stop_reason": WRITTEN[self._finish.reason],
            "stop_sequence": self._finish.stop_sequence,
        }
        fields = {"type": "message_delta", "delta": delta, "usage": self._final_usage()}
        return self._blocks.finish() + frame(encode(fields), "message_delta") + STOP_EVENT

    def _final_usage(self) -> dict[str, object]:
        usage = usage_json(self._usage or Usage())
        if self._usage is None or self._usage.input_tokens is None:
            del usage["input_tokens"]
        return usage


def answer_body(events: list[Event]) -> bytes:
    """A whole message."""
    answer = fold(events)
    choice = answer.choices[0]
    content: list[dict[str, Any]] = [_thought(thought) for thought in choice.thoughts]
    if text := choice.text + choice.refusal:
        content.append({"type": "text", "text": text})
    content += [_call(call) for call in choice.calls]
    return encode(
        {
            "id": answer.start.id,
            "type": "message",
            "role": "assistant",
            "model": answer.start.model,
            "content": content,
            "stop_reason": WRITTEN[choice.reason or FinishReason.STOP],
            "stop_sequence": choice.stop_sequence,
            "usage": usage_json(answer.usage or Usage()),
        }
    )


def _thought(thought: FoldedThought) -> dict[str, Any]:
    if thought.redacted is not None:
        return {"type": "redacted_thinking", "data": thought.redacted}
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature or ""}


def _call(call: FoldedCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": as_input(call.arguments)}


def as_input(arguments: str) -> Any:
    """Arguments as the object that `input` must be; what is none is kept under `MALFORMED`."""
    if parse_arguments(arguments) is None:
        return {MALFORMED: arguments}
    return msgspec.Raw(arguments.encode()) if arguments.strip() else {}
