"""Events -> a responses stream, or a whole response."""

from typing import Any

import msgspec

from locavore.core.events import (
    End,
    Event,
    Failure,
    Finish,
    FinishReason,
    Ping,
    Start,
    UsageReport,
)
from locavore.core.money import Usage
from locavore.core.request import Request
from locavore.wire.decoding import encode
from locavore.wire.folding import failed
from locavore.wire.labelling import LABELS, SESSION
from locavore.wire.openai_responses.output import Output
from locavore.wire.openai_responses.usage import usage_json
from locavore.wire.sse import frame

PING = b": ping\n\n"
_INCOMPLETE = {
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.REFUSAL: "content_filter",
}
_Fields = dict[str, Any]
_decode = msgspec.json.Decoder(dict[str, Any]).decode
# Settings that a response repeats from its request.
_ECHOED = (
    "instructions",
    "max_output_tokens",
    "temperature",
    "top_p",
    "reasoning",
    "text",
    "user",
    "service_tier",
    "truncation",
)


class ResponsesWriter:
    """Implements `core.ports.EventWriter`. After `End` or `Failure` it writes nothing more."""

    def __init__(self, request: Request) -> None:
        self._echo = _echo(request.body)
        self._start: Start | None = None
        self._output = Output()
        self._reason = FinishReason.STOP
        self._usage: Usage | None = None
        self._sequence = 0
        self._over = False

    def write(self, event: Event) -> bytes:
        if self._over or getattr(event, "choice", None):
            return b""
        if isinstance(event, Start):
            return self._begin(event)
        if isinstance(event, Ping):
            return PING
        if isinstance(event, Finish):
            self._reason = event.reason
            return self._frames(self._output.finish())
        if isinstance(event, UsageReport):
            self._usage = event.usage
            return b""
        if isinstance(event, End):
            return self._end()
        if isinstance(event, Failure):
            return self._fail(event)
        return self._frames(self._output.add(event))

    def _frames(self, events: list[_Fields]) -> bytes:
        out: list[bytes] = []
        for event in events:
            event["sequence_number"] = self._sequence
            self._sequence += 1
            out.append(frame(encode(event), event["type"]))
        return b"".join(out)

    def _begin(self, event: Start) -> bytes:
        self._start = event
        response = self._response("in_progress")
        return self._frames(
            [
                {"type": "response.created", "response": response},
                {"type": "response.in_progress", "response": response},
            ]
        )

    def _end(self) -> bytes:
        out = self._frames(self._output.finish())
        self._over = True
        response = self.final()
        event = {"type": f"response.{response['status']}", "response": response}
        return out + self._frames([event])

    def final(self) -> _Fields:
        """The response as it stands after its last event."""
        return self._response("incomplete" if self._reason in _INCOMPLETE else "completed")

    def _fail(self, failure: Failure) -> bytes:
        self._over = True
        if self._start is None:
            return self._frames([error_event(failure)])
        response = self._response("failed")
        response["error"] = {"code": _error_code(failure), "message": failure.message}
        return self._frames([{"type": "response.failed", "response": response}])

    def _response(self, status: str) -> _Fields:
        start = self._start or Start(id="", model="", created_s=0)
        fields = response_fields(start, self._echo, status, self._output.items())
        if status == "incomplete":
            fields["incomplete_details"] = {"reason": _INCOMPLETE[self._reason]}
        if self._usage is not None:
            fields["usage"] = usage_json(self._usage)
        return fields


def error_event(failure: Failure) -> _Fields:
    return {"type": "error", "code": failure.code, "message": failure.message, "param": None}


def _error_code(failure: Failure) -> str:
    """The schema knows few codes; what is neither a limit nor a prompt is a server error."""
    return "rate_limit_exceeded" if failure.status == 429 else "server_error"


def response_fields(start: Start, echo: _Fields, status: str, output: list[_Fields]) -> _Fields:
    return {
        "id": start.id,
        "object": "response",
        "created_at": start.created_s,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": start.model,
        "output": output,
        "previous_response_id": None,
        "store": False,
        "usage": None,
        **echo,
    }


def _echo(body: bytes) -> _Fields:
    try:
        given = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        given = {}
    echo: _Fields = {name: given.get(name) for name in _ECHOED}
    echo["text"] = echo["text"] or {"format": {"type": "text"}}
    echo["truncation"] = echo["truncation"] or "disabled"
    echo["parallel_tool_calls"] = given.get("parallel_tool_calls") is not False
    echo["tool_choice"] = given.get("tool_choice") or "auto"
    echo["tools"] = given.get("tools") or []
    metadata = given.get("metadata") or {}
    echo["metadata"] = {k: v for k, v in metadata.items() if k not in (LABELS, SESSION)}
    return echo


def answer_body(events: list[Event], request: Request) -> bytes:
    """A whole response: what the last event of the stream would hold. Raises UpstreamError."""
    writer = ResponsesWriter(request)
    for event in events:
        if isinstance(event, Failure):
            raise failed(event)
        writer.write(event)
    return encode(writer.final())
