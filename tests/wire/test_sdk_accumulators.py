"""The official SDKs' own accumulators put written streams together again."""

from typing import Any

import httpx2
from anthropic import Anthropic
from openai import OpenAI

from locavore.core.events import (
    End,
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReport,
)
from locavore.core.money import Usage
from locavore.core.request import Request
from locavore.wire.formats import CHAT, MESSAGES, RESPONSES

EVENTS: list[Event] = [
    Start(id="i", model="m", created_s=3),
    ReasoningDelta(text="hm"),
    TextDelta(text="hé"),
    ToolCallStart(index=0, id="c0", name="f"),
    ToolCallStart(index=1, id="c1", name="g"),
    ToolCallDelta(index=0, arguments='{"a"'),
    ToolCallDelta(index=1, arguments="{}"),
    ToolCallDelta(index=0, arguments=":1}"),
    Finish(reason=FinishReason.TOOL_CALLS),
    UsageReport(usage=Usage(input_tokens=10, output_tokens=2)),
    End(),
]
FORMATS_BY_PATH: dict[str, Any] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
}


def _answer(request: httpx2.Request) -> httpx2.Response:
    fmt = FORMATS_BY_PATH[request.url.path]
    asked = Request(format=fmt.name, model="m", body=request.content, include_usage=True)
    writer = fmt.stream_writer(asked)
    stream = b"".join(writer.write(event) for event in EVENTS)
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)


def test_openai_chat_stream_is_put_together() -> None:
    http = httpx2.Client(transport=httpx2.MockTransport(_answer))
    with OpenAI(api_key="x", base_url="http://gateway/v1", http_client=http) as client:
        asked: Any = [{"role": "user", "content": "x"}]
        with client.chat.completions.stream(model="m", messages=asked) as stream:
            message = stream.get_final_completion().choices[0].message
    calls = [(call.id, call.function.arguments) for call in message.tool_calls or []]
    assert (message.content, calls) == ("hé", [("c0", '{"a":1}'), ("c1", "{}")])


def test_openai_responses_stream_is_put_together() -> None:
    http = httpx2.Client(transport=httpx2.MockTransport(_answer))
    with (
        OpenAI(api_key="x", base_url="http://gateway/v1", http_client=http) as client,
        client.responses.stream(model="m", input="x") as stream,
    ):
        response = stream.get_final_response()
    kinds = [item.type for item in response.output]
    assert kinds == ["reasoning", "message", "function_call", "function_call"]
    assert response.output_text == "hé"


def test_anthropic_stream_is_put_together() -> None:
    http = httpx2.Client(transport=httpx2.MockTransport(_answer))
    with Anthropic(api_key="x", base_url="http://gateway", http_client=http) as client:
        asked: Any = [{"role": "user", "content": "x"}]
        with client.messages.stream(model="m", max_tokens=5, messages=asked) as stream:
            message = stream.get_final_message()
    blocks = [block.model_dump() for block in message.content]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block["input"] for block in blocks[2:]] == [{"a": 1}, {}]
    assert (message.stop_reason, message.usage.input_tokens) == ("tool_use", 10)
