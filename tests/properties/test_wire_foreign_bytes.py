"""Whatever an upstream sends: events, a failure or an error; never a crash."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locavore.core.errors import RequestError, UpstreamError
from locavore.core.events import End, Failure
from locavore.wire.formats import CHAT, COMPLETIONS, MESSAGES, RESPONSES

STREAMED: list[Any] = [CHAT, COMPLETIONS, MESSAGES, RESPONSES]
KEYS = [
    "type", "index", "delta", "content", "choices", "message", "usage", "error", "tool_calls",
    "function", "arguments", "name", "id", "finish_reason", "text", "response", "item", "output",
    "content_block", "input", "stop_reason", "status", "role", "messages", "model", "source",
    "tools", "metadata", "prompt_tokens", "logprobs", "code", "output_index", "tool_use_id",
]  # fmt: skip
WORDS = [
    "message_start", "content_block_delta", "message_delta", "message_stop", "error", "text",
    "tool_use", "response.completed", "response.output_text.delta", "response.output_item.done",
    "function_call", "reasoning", "user", "assistant", "tool_result", "image", "stop", "message",
]  # fmt: skip
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 600) | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=14,
)
payloads = values.map(lambda v: json.dumps(v).encode()) | st.binary(max_size=30)
streams = st.lists(payloads.map(lambda p: b"data: " + p + b"\n\n"), max_size=5).map(b"".join)


@pytest.mark.parametrize("fmt", STREAMED, ids=lambda fmt: fmt.name)
@settings(max_examples=200, deadline=None)
@given(stream=streams, cut=st.integers(0, 200))
def test_any_stream_ends_in_an_end_or_a_failure(fmt: Any, stream: bytes, cut: int) -> None:
    reader = fmt.stream_reader()
    events = [*reader.feed(stream[:cut]), *reader.feed(stream[cut:]), *reader.close()]
    assert isinstance(events[-1], End | Failure)
    scanner = fmt.scanner(strip_usage=True)
    scanner.feed(stream[:cut])
    scanner.feed(stream[cut:])
    assert (scanner.close() is None) == scanner.ended


@pytest.mark.parametrize("fmt", STREAMED, ids=lambda fmt: fmt.name)
@settings(max_examples=200, deadline=None)
@given(body=payloads, status=st.sampled_from([400, 404, 429, 500, 503]))
def test_any_answer_is_read_or_refused(fmt: Any, body: bytes, status: int) -> None:
    assert isinstance(fmt.answer(body)[-1], End | Failure)
    fmt.usage(body)
    assert isinstance(fmt.upstream_error(status, (), body, "b"), UpstreamError)


@pytest.mark.parametrize("fmt", STREAMED, ids=lambda fmt: fmt.name)
@settings(max_examples=200, deadline=None)
@given(fields=st.dictionaries(st.sampled_from(KEYS), values, max_size=6))
def test_any_conversation_is_read_or_refused(fmt: Any, fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "max_tokens": 1, "messages": [], **fields}).encode()
    try:
        conversation = fmt.conversation(body)
        for target in STREAMED:
            target.body(conversation, model="m", stream=True)
    except RequestError as error:
        assert error.message
