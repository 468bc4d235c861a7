"""Events -> a completions stream, or a whole completion. Its chunks are read as chat's are."""

from typing import Any

from locavore.core.events import (
    End,
    Event,
    Failure,
    Finish,
    FinishReason,
    Ping,
    RefusalDelta,
    Start,
    TextDelta,
    UsageReport,
)
from locavore.core.request import Request
from locavore.wire.decoding import encode
from locavore.wire.folding import fold
from locavore.wire.openai_chat.errors import failure_fields
from locavore.wire.openai_chat.reasons import WRITTEN
from locavore.wire.openai_chat.usage import usage_json
from locavore.wire.openai_chat.writer import DONE_EVENT, PING
from locavore.wire.sse import frame


def _reason(reason: FinishReason) -> str:
    word = WRITTEN[reason]
    return "stop" if word == "tool_calls" else word


class CompletionsWriter:
    """Implements `core.ports.EventWriter`. After `End` or `Failure` it writes nothing more."""

    def __init__(self, request: Request) -> None:
        self._include_usage = request.include_usage
        self._head: dict[str, Any] = {}
        self._over = False

    def write(self, event: Event) -> bytes:
        if self._over:
            return b""
        if isinstance(event, Start):
            self._head = _head(event)
            return b""
        if isinstance(event, TextDelta | RefusalDelta):
            return self._chunk(event.choice, event.text, None, event)
        if isinstance(event, Finish):
            return self._chunk(event.choice, "", _reason(event.reason), event)
        if isinstance(event, UsageReport):
            return self._usage(event)
        if isinstance(event, Ping):
            return PING
        return self._last(event)

    def _last(self, event: Event) -> bytes:
        if isinstance(event, End):
            self._over = True
            return DONE_EVENT
        if isinstance(event, Failure):
            self._over = True
            return frame(encode({"error": failure_fields(event)}))
        return b""  # thoughts: a completion is text alone

    def _chunk(self, choice: int, text: str, reason: str | None, event: Event) -> bytes:
        logprobs = event.logprobs if isinstance(event, TextDelta) else None
        fields = {"index": choice, "text": text, "logprobs": logprobs, "finish_reason": reason}
        chunk = {**self._head, "choices": [fields]}
        if self._include_usage:
            chunk["usage"] = None
        return frame(encode(chunk))

    def _usage(self, event: UsageReport) -> bytes:
        if not self._include_usage:
            return b""
        return frame(encode({**self._head, "choices": [], "usage": usage_json(event.usage)}))


def _head(start: Start) -> dict[str, Any]:
    return {
        "id": start.id,
        "object": "text_completion",
        "created": start.created_s,
        "model": start.model,
    }


def answer_body(events: list[Event]) -> bytes:
    """A whole completion. Raises UpstreamError when the events hold a `Failure`."""
    answer = fold(events)
    choices = [
        {
            "index": choice.index,
            "text": choice.text + choice.refusal,
            "logprobs": choice.logprobs[0] if len(choice.logprobs) == 1 else None,
            "finish_reason": _reason(choice.reason or FinishReason.STOP),
        }
        for choice in answer.choices
    ]
    fields = {**_head(answer.start), "choices": choices}
    if answer.usage is not None:
        fields["usage"] = usage_json(answer.usage)
    return encode(fields)
