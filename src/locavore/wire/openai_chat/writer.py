"""Events -> a chat stream, or a whole chat completion."""

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
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReport,
)
from locavore.core.request import Request
from locavore.wire.decoding import encode
from locavore.wire.folding import FoldedChoice, fold
from locavore.wire.openai_chat.errors import failure_fields
from locavore.wire.openai_chat.reasons import WRITTEN
from locavore.wire.openai_chat.usage import usage_json
from locavore.wire.sse import frame

PING = b": ping\n\n"
DONE_EVENT = b"data: [DONE]\n\n"


class ChatWriter:
    """Implements `core.ports.EventWriter`. After `End` or `Failure` it writes nothing more."""

    def __init__(self, request: Request) -> None:
        self._head = b""
        self._tail = b',"usage":null}\n\n' if request.include_usage else b"}\n\n"
        self._include_usage = request.include_usage
        self._opened: set[int] = set()
        self._silent_calls: set[tuple[int, int]] = set()
        self._over = False

    def write(self, event: Event) -> bytes:
        if self._over:
            return b""
        if isinstance(event, TextDelta):
            return self._text(event)
        if isinstance(event, Start):
            return self._start(event)
        if isinstance(event, Ping):
            return PING
        if isinstance(event, UsageReport):
            return self._usage(event) if self._include_usage else b""
        if isinstance(event, End):
            self._over = True
            return DONE_EVENT
        if isinstance(event, Failure):
            self._over = True
            return frame(encode({"error": failure_fields(event)}))
        return self._other(event)

    def _other(self, event: Event) -> bytes:
        if isinstance(event, Finish):
            return self._finish(event)
        if isinstance(event, ReasoningDelta):
            if not event.text:
                return b""  # a signature or sealed thinking: chat has no place for either
            return self._chunk(event.choice, encode({"reasoning_content": event.text}))
        if isinstance(event, RefusalDelta):
            return self._chunk(event.choice, encode({"refusal": event.text}))
        if isinstance(event, ToolCallStart):
            self._silent_calls.add((event.choice, event.index))
            function = {"name": event.name, "arguments": ""}
            call = {"index": event.index, "id": event.id, "type": "function", "function": function}
            return self._chunk(event.choice, encode({"tool_calls": [call]}))
        if isinstance(event, ToolCallDelta):
            self._silent_calls.discard((event.choice, event.index))
            return self._arguments(event.choice, event.index, event.arguments)
        raise TypeError(f"no chat form for {type(event).__name__}")

    def _arguments(self, choice: int, index: int, text: str) -> bytes:
        delta = {"index": index, "function": {"arguments": text}}
        return self._chunk(choice, encode({"tool_calls": [delta]}))

    def _finish(self, event: Finish) -> bytes:
        """Calls without arguments get `{}`: clients parse the text as JSON (C24)."""
        mine = sorted(call for call in self._silent_calls if call[0] == event.choice)
        empty = b"".join(self._arguments(choice, index, "{}") for choice, index in mine)
        return empty + self._chunk(event.choice, b"{}", encode(WRITTEN[event.reason]))

    def _start(self, event: Start) -> bytes:
        head = {
            "id": event.id,
            "object": "chat.completion.chunk",
            "created": event.created_s,
            "model": event.model,
        }
        self._head = b"data: " + encode(head)[:-1] + b',"choices":['
        return self._open(0)

    def _open(self, choice: int) -> bytes:
        """The chunk that tells the role: one for each choice, before its first delta."""
        self._opened.add(choice)
        return self._chunk(choice, b'{"role":"assistant","content":""}')

    def _text(self, event: TextDelta) -> bytes:
        return self._chunk(event.choice, b'{"content":%b}' % encode(event.text), b"null", event)

    def _chunk(
        self, choice: int, delta: bytes, reason: bytes = b"null", event: TextDelta | None = None
    ) -> bytes:
        opening = b"" if choice in self._opened else self._open(choice)
        logprobs = b""
        if event is not None and event.logprobs is not None:
            logprobs = b',"logprobs":%b' % bytes(event.logprobs)
        return b'%b%b{"index":%d,"delta":%b%b,"finish_reason":%b}]%b' % (
            opening,
            self._head,
            choice,
            delta,
            logprobs,
            reason,
            self._tail,
        )

    def _usage(self, event: UsageReport) -> bytes:
        return b'%b],"usage":%b}\n\n' % (self._head, encode(usage_json(event.usage)))


def answer_body(events: list[Event]) -> bytes:
    """A whole chat completion."""
    answer = fold(events)
    fields: dict[str, Any] = {
        "id": answer.start.id,
        "object": "chat.completion",
        "created": answer.start.created_s,
        "model": answer.start.model,
        "choices": [_choice(choice) for choice in answer.choices],
    }
    if answer.usage is not None:
        fields["usage"] = usage_json(answer.usage)
    return encode(fields)


def _choice(choice: FoldedChoice) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": choice.text if choice.text or not choice.calls else None,
        "refusal": choice.refusal or None,
    }
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if choice.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
            }
            for call in choice.calls
        ]
    reason = choice.reason or FinishReason.STOP
    return {
        "index": choice.index,
        "message": message,
        "logprobs": _logprobs(choice.logprobs),
        "finish_reason": WRITTEN[reason],
    }


def _logprobs(pieces: list[msgspec.Raw]) -> Any:
    """Logprobs of the deltas joined: each of their lists, one after the other."""
    if not pieces:
        return None
    if len(pieces) == 1:
        return pieces[0]
    joined: dict[str, list[Any]] = {}
    for piece in pieces:
        for name, values in msgspec.json.decode(piece).items():
            if isinstance(values, list):
                joined.setdefault(name, []).extend(values)
    return joined
