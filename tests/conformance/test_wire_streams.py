"""Conformance: framing and streaming, as far as bytes alone decide (C02-C31)."""

import json
from typing import Any

import pytest
from anthropic.types import RawMessageStreamEvent
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from locavore.core.events import (
    End,
    Event,
    Failure,
    Finish,
    FinishReason,
    Ping,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReport,
)
from locavore.core.money import Usage
from locavore.core.request import Request
from locavore.wire.formats import CHAT, COMPLETIONS, FORMATS, MESSAGES, RESPONSES

CHUNK: TypeAdapter[Any] = TypeAdapter(ChatCompletionChunk)
MESSAGE_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def asked(name: str, *, include_usage: bool = False) -> Request:
    return Request(format=name, model="m", body=b"{}", stream=True, include_usage=include_usage)


def written(fmt: Any, events: list[Event], *, include_usage: bool = False) -> bytes:
    writer = fmt.stream_writer(asked(fmt.name, include_usage=include_usage))
    return b"".join(writer.write(event) for event in events)


def payloads(stream: bytes) -> list[dict[str, Any]]:
    lines = [line[6:] for line in stream.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def read(fmt: Any, stream: bytes) -> list[Event]:
    reader = fmt.stream_reader()
    return [*reader.feed(stream), *reader.close()]


def chat_chunk(delta: dict[str, Any], reason: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    body = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        **fields,
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def tool_delta(**call: Any) -> dict[str, Any]:
    return {"tool_calls": [call]}


DONE = b"data: [DONE]\n\n"
START = Start(id="id-1", model="m", created_s=7)
USAGE = UsageReport(usage=Usage(input_tokens=5, output_tokens=3))
TALK: list[Event] = [START, TextDelta(text="hé"), Finish(reason=FinishReason.STOP), USAGE, End()]
ENDINGS = {
    "openai_chat": b"data: [DONE]\n\n",
    "openai_completions": b"data: [DONE]\n\n",
    "anthropic_messages": b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
}


@pytest.mark.parametrize("name", sorted(ENDINGS))
def test_c06_the_end_marker_is_written_exactly_once(name: str) -> None:
    stream = written(FORMATS[name], [*TALK, End(), TextDelta(text="late")])
    assert stream.endswith(ENDINGS[name])
    assert stream.count(ENDINGS[name]) == 1
    assert b"late" not in stream


@pytest.mark.parametrize(
    ("reason", "event"),
    [
        (FinishReason.STOP, "response.completed"),
        (FinishReason.TOOL_CALLS, "response.completed"),
        (FinishReason.LENGTH, "response.incomplete"),
        (FinishReason.CONTENT_FILTER, "response.incomplete"),
    ],
)
def test_c06_responses_end_with_the_event_of_their_status(reason: FinishReason, event: str) -> None:
    stream = written(RESPONSES, [START, TextDelta(text="x"), Finish(reason=reason), End()])
    last = payloads(stream)[-1]
    assert last["type"] == event
    assert last["response"]["status"] == event.removeprefix("response.")


def test_c06_a_scanner_forwards_nothing_after_the_end_marker() -> None:
    scanner = CHAT.scanner()
    forwarded = scanner.feed(chat_chunk({"content": "x"}, "stop") + DONE + DONE)
    assert forwarded.count(b"[DONE]") == 1
    assert scanner.feed(DONE) == b""


def test_c06_a_finished_answer_without_its_end_marker_gets_one() -> None:
    scanner = CHAT.scanner()
    scanner.feed(chat_chunk({"content": "x"}, "stop"))
    assert scanner.close() is None
    assert scanner.trailer == DONE
    assert isinstance(read(CHAT, chat_chunk({"content": "x"}, "stop"))[-1], End)


FAILURE = Failure(message="gone", status=502, code="truncated", type="upstream_error")


def test_c01_failure_on_chat_is_an_error_object_and_no_done() -> None:
    stream = written(CHAT, [START, TextDelta(text="x"), FAILURE, End()])
    assert payloads(stream)[-1]["error"]["message"] == "gone"
    assert b"[DONE]" not in stream


def test_c01_failure_on_messages_is_an_error_event() -> None:
    stream = written(MESSAGES, [START, TextDelta(text="x"), FAILURE, End()])
    assert stream.split(b"\n\n")[-2].startswith(b"event: error\n")
    assert payloads(stream)[-1]["error"] == {"type": "api_error", "message": "gone"}
    assert b"message_stop" not in stream


def test_c01_failure_on_responses_is_response_failed() -> None:
    last = payloads(written(RESPONSES, [START, TextDelta(text="x"), FAILURE]))[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["message"] == "gone"


def test_c01_failure_before_a_response_began_is_an_error_event() -> None:
    last = payloads(written(RESPONSES, [FAILURE]))[-1]
    assert last["type"] == "error"
    RESPONSE_EVENT.validate_python(last)


@pytest.mark.parametrize("fmt", [CHAT, COMPLETIONS, MESSAGES, RESPONSES], ids=lambda f: f.name)
def test_c02_a_stream_cut_inside_a_code_point_fails_and_forwards_whole_events(fmt: Any) -> None:
    stream = written(fmt, TALK)
    middle = stream.index("é".encode()) + 1
    scanner = fmt.scanner()
    forwarded = scanner.feed(stream[:middle])
    forwarded.decode()
    assert forwarded == b"" or forwarded.endswith(b"\n\n")
    failure = scanner.close()
    assert failure is not None
    assert failure.code == "truncated"


@pytest.mark.parametrize(
    "variant",
    [
        lambda s: s.replace(b"\n", b"\r\n"),
        lambda s: s.replace(b"\n", b"\r"),
        lambda s: s.replace(b"data: ", b"data:"),
        lambda s: b": welcome\n\n" + s.replace(b"\n\n", b"\n\n: keepalive\n\n"),
        lambda s: b"\xef\xbb\xbf" + s,
        lambda s: s.rstrip(b"\n"),
        lambda s: s.rstrip(b"\n") + b"\n",
        lambda s: s.replace(b"data: {", b"data: {\ndata: ", 1),
        lambda s: s.replace(b"data: ", b"id: 4\nretry: 10\ndata: "),
    ],
    ids=[
        "crlf",
        "cr",
        "no-space",
        "comments",
        "bom",
        "no-blank-line",
        "one-newline",
        "multi-line",
        "fields",
    ],
)
@pytest.mark.parametrize("fmt", [CHAT, COMPLETIONS, RESPONSES], ids=lambda fmt: fmt.name)
def test_c07_engine_framings_are_read_and_watched_alike(fmt: Any, variant: Any) -> None:
    plain = written(fmt, TALK, include_usage=True)
    expected = read(fmt, plain)
    assert expected[:3] == TALK[:3]
    stream = variant(plain)
    assert read(fmt, stream) == expected
    scanner = fmt.scanner()
    forwarded = scanner.feed(stream)
    assert scanner.close() is None
    assert read(fmt, forwarded + scanner.trailer) == expected
    assert UsageReport(usage=scanner.usage or Usage()) in expected


def test_c03_an_error_before_content_forwards_no_byte_of_it() -> None:
    opening = chat_chunk({"role": "assistant", "content": ""})
    error = b'data: {"error":{"message":"no room","type":"server_error","code":503}}\n\n'
    scanner = CHAT.scanner()
    assert scanner.feed(opening + error) == opening
    assert not scanner.content_started
    assert scanner.failure is not None
    assert (scanner.failure.message, scanner.failure.status) == ("no room", 503)
    assert scanner.feed(chat_chunk({"content": "x"})) == b""


def test_c03_responses_created_then_failed_is_an_error_before_content() -> None:
    created = written(RESPONSES, [START])
    failed = {
        "type": "response.failed",
        "response": {
            "id": "r",
            "status": "failed",
            "error": {"code": "insufficient_quota", "message": "pay first"},
        },
    }
    scanner = RESPONSES.scanner()
    stream = created + b"event: response.failed\ndata: " + json.dumps(failed).encode() + b"\n\n"
    assert scanner.feed(stream) == created
    assert not scanner.content_started
    assert scanner.failure is not None
    assert scanner.failure.code == "insufficient_quota"


def test_c04_an_error_after_content_ends_what_is_forwarded() -> None:
    content = chat_chunk({"content": "x"})
    scanner = CHAT.scanner()
    stream = content + b'data: {"error": "model runner has stopped"}\n\n' + content
    assert scanner.feed(stream) == content
    assert scanner.content_started
    assert scanner.failure is not None


def test_words_of_an_answer_that_name_markers_are_no_markers() -> None:
    text = '"error" "usage" "tool_calls" [DONE] "message_stop" "response.completed"'
    for fmt in (CHAT, MESSAGES, RESPONSES):
        events: list[Event] = [START, TextDelta(text="a"), TextDelta(text=text), *TALK[2:]]
        stream = written(fmt, events, include_usage=True)
        scanner = fmt.scanner()
        assert b"".join(scanner.feed(stream[i : i + 50]) for i in range(0, len(stream), 50))
        assert scanner.close() is None
        assert TextDelta(text=text) in read(fmt, stream)


@pytest.mark.parametrize(
    ("fmt", "opening"),
    [
        (CHAT, chat_chunk({"role": "assistant", "content": ""}) + b": keepalive\n\n"),
        (MESSAGES, written(MESSAGES, [START, Ping()])),
        (RESPONSES, written(RESPONSES, [START, Ping()])),
    ],
    ids=["chat", "messages", "responses"],
)
def test_c12_openings_and_pings_are_not_content(fmt: Any, opening: bytes) -> None:
    scanner = fmt.scanner()
    assert scanner.feed(opening) == opening
    assert not scanner.content_started


def test_c14_usage_is_null_until_the_last_chunk_when_asked_for() -> None:
    chunks = payloads(written(CHAT, TALK, include_usage=True))
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 8


def test_c14_usage_is_absent_when_not_asked_for() -> None:
    assert all("usage" not in chunk for chunk in payloads(written(CHAT, TALK)))


def test_c14_usage_that_only_we_asked_for_is_taken_out_again() -> None:
    asked_for = written(CHAT, TALK, include_usage=True)
    scanner = CHAT.scanner(strip_usage=True)
    forwarded = b"".join(scanner.feed(asked_for[i : i + 7]) for i in range(0, len(asked_for), 7))
    assert forwarded == written(CHAT, TALK)
    assert scanner.usage == USAGE.usage


def test_c14_usage_beside_content_is_taken_out_of_the_chunk() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    scanner = CHAT.scanner(strip_usage=True)
    (chunk,) = payloads(scanner.feed(chat_chunk({"content": "x"}, usage=usage)))
    assert "usage" not in chunk
    assert chunk["choices"][0]["delta"] == {"content": "x"}
    assert scanner.usage == Usage(input_tokens=1, output_tokens=2)


def test_c14_null_usage_with_a_space_is_taken_out_too() -> None:
    scanner = CHAT.scanner(strip_usage=True)
    scanner.feed(chat_chunk({"content": "x"}))
    (chunk,) = payloads(scanner.feed(chat_chunk({"content": "y"}, usage=None)))
    assert "usage" not in chunk


def test_c14_a_chunk_without_choices_and_usage_is_forwarded() -> None:
    scanner = CHAT.scanner(strip_usage=True)
    data = b'data: {"id":"c","choices":[],"prompt_filter_results":[],"usage":null}\n\n'
    (chunk,) = payloads(scanner.feed(data))
    assert chunk == {"id": "c", "choices": [], "prompt_filter_results": []}


def test_c66_output_of_a_broken_messages_stream_is_unknown() -> None:
    start = {"id": "m", "model": "m", "usage": {"input_tokens": 9, "output_tokens": 1}}
    data = json.dumps({"type": "message_start", "message": start}).encode()
    scanner = MESSAGES.scanner()
    scanner.feed(b"event: message_start\ndata: " + data + b"\n\n")
    assert scanner.close() is not None
    assert scanner.usage == Usage(input_tokens=9)


def test_c15_usage_that_never_came_stays_unknown() -> None:
    stream = written(CHAT, [START, TextDelta(text="x"), Finish(reason=FinishReason.STOP), End()])
    scanner = CHAT.scanner()
    scanner.feed(stream)
    assert scanner.close() is None
    assert scanner.usage is None
    assert not any(isinstance(event, UsageReport) for event in read(CHAT, stream))


TOOLS: list[Event] = [
    START,
    ReasoningDelta(text="hm"),
    TextDelta(text="I look"),
    ToolCallStart(index=0, id="a", name="f"),
    ToolCallStart(index=1, id="b", name="wëtter"),
    ToolCallDelta(index=0, arguments='{"x":'),
    ToolCallDelta(index=1, arguments='{"y":2}'),
    ToolCallDelta(index=0, arguments="1}"),
    Finish(reason=FinishReason.TOOL_CALLS),
    USAGE,
    End(),
]


def test_c16_id_created_and_model_are_the_same_on_every_chunk() -> None:
    chunks = payloads(written(CHAT, TOOLS, include_usage=True))
    heads = {(c["id"], c["created"], c["model"], c["object"]) for c in chunks}
    assert heads == {("id-1", 7, "m", "chat.completion.chunk")}
    for chunk in chunks:
        CHUNK.validate_python(chunk)


def test_sdk_types_accept_every_written_event() -> None:
    for payload in payloads(written(MESSAGES, TOOLS)):
        MESSAGE_EVENT.validate_python(payload)
    events = payloads(written(RESPONSES, TOOLS))
    for payload in events:
        RESPONSE_EVENT.validate_python(payload)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_c20_interleaved_calls_become_blocks_that_do_not_overlap() -> None:
    opened: list[int] = []
    inputs: dict[int, str] = {}
    for event in payloads(written(MESSAGES, TOOLS)):
        if event["type"] == "content_block_start":
            assert not opened
            opened.append(event["index"])
        elif event["type"] == "content_block_delta":
            assert opened == [event["index"]]
            part = event["delta"].get("partial_json", "")
            inputs[event["index"]] = inputs.get(event["index"], "") + part
        elif event["type"] == "content_block_stop":
            assert opened.pop() == event["index"]
    assert not opened
    assert [inputs[2], inputs[3]] == ['{"x":1}', '{"y":2}']


def test_c20_interleaved_calls_are_read_apart() -> None:
    stream = (
        chat_chunk(tool_delta(index=0, id="a", type="function", function={"name": "f"}))
        + chat_chunk(tool_delta(index=1, id="b", type="function", function={"name": "g"}))
        + chat_chunk(tool_delta(index=0, function={"arguments": '{"x"'}))
        + chat_chunk(tool_delta(index=1, function={"arguments": "{}"}))
        + chat_chunk(tool_delta(index=0, function={"arguments": ":1}"}))
        + chat_chunk({}, "tool_calls")
        + DONE
    )
    assert _calls(read(CHAT, stream)) == [("a", "f", '{"x":1}'), ("b", "g", "{}")]
    assert _calls(read(MESSAGES, written(MESSAGES, read(CHAT, stream)))) == [
        ("a", "f", '{"x":1}'),
        ("b", "g", "{}"),
    ]


def _calls(events: list[Event]) -> list[tuple[str, str, str]]:
    calls: list[list[str]] = []
    for event in events:
        if isinstance(event, ToolCallStart):
            assert event.index == len(calls)
            calls.append([event.id, event.name, ""])
        elif isinstance(event, ToolCallDelta):
            calls[event.index][2] += event.arguments
    return [(call[0], call[1], call[2]) for call in calls]


MALFORMED_TOOLS: dict[str, list[dict[str, Any]]] = {
    "index zero for all": [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"index": 0, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ],
    "no index": [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}},
        {"function": {"arguments": "}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ],
    "whole calls without ids": [
        {"index": 0, "function": {"name": "f", "arguments": "{}"}},
        {"index": 0, "function": {"name": "g", "arguments": "{}"}},
    ],
    "the same tool twice without ids": [
        {"index": 0, "function": {"name": "f", "arguments": "{}"}},
        {"index": 0, "function": {"name": "f", "arguments": "{}"}},
    ],
    "arguments as object": [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": {}}},
        {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": {}}},
    ],
    "id and name on every delta": [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}},
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "}"}},
        {"index": 0, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ],
}


@pytest.mark.parametrize("shape", sorted(MALFORMED_TOOLS))
def test_c21_c22_engines_tool_deltas_are_repaired(shape: str) -> None:
    chunks = [chat_chunk(tool_delta(**call)) for call in MALFORMED_TOOLS[shape]]
    stream = b"".join(chunks) + chat_chunk({}, "tool_calls") + DONE
    direct = _calls(read(CHAT, stream))
    assert [call[2] for call in direct] == ["{}", "{}"]
    assert all(call[0] for call in direct)

    scanner = CHAT.scanner()
    forwarded = b"".join(scanner.feed(bytes([byte])) for byte in stream)
    assert scanner.close() is None
    repaired = _trusting_client(forwarded)
    assert [call["arguments"] for call in repaired] == ["{}", "{}"]
    assert len({call["id"] for call in repaired}) == 2
    for payload in payloads(forwarded):
        CHUNK.validate_python(payload)


def _trusting_client(stream: bytes) -> list[dict[str, str]]:
    """Joins deltas by `index` alone, as the SDKs do."""
    calls: dict[int, dict[str, str]] = {}
    for chunk in payloads(stream):
        for delta in chunk["choices"][0]["delta"].get("tool_calls", []):
            call = calls.setdefault(delta["index"], {"id": "", "arguments": ""})
            call["id"] = call["id"] or delta.get("id", "")
            call["arguments"] += delta["function"]["arguments"]
    return [calls[index] for index in sorted(calls)]


def test_c21_proper_tool_deltas_pass_byte_for_byte() -> None:
    stream = written(CHAT, TOOLS)
    scanner = CHAT.scanner()
    assert scanner.feed(stream) == stream


def test_c21_whole_answers_with_object_arguments_are_read() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    body = {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    events = CHAT.answer(json.dumps(body).encode())
    assert _calls(events) == [("a", "f", '{"x":1}')]
    assert Finish(reason=FinishReason.TOOL_CALLS) in events


REASONS = [
    ("stop", FinishReason.STOP, "end_turn"),
    ("length", FinishReason.LENGTH, "max_tokens"),
    ("model_length", FinishReason.LENGTH, "max_tokens"),
    ("tool_calls", FinishReason.TOOL_CALLS, "tool_use"),
    ("function_call", FinishReason.TOOL_CALLS, "tool_use"),
    ("content_filter", FinishReason.CONTENT_FILTER, "refusal"),
    ("eos_token", FinishReason.STOP, "end_turn"),
]


@pytest.mark.parametrize(("word", "reason", "stop_reason"), REASONS)
def test_c23_finish_reasons_map(word: str, reason: FinishReason, stop_reason: str) -> None:
    events = read(CHAT, chat_chunk({"content": "x"}, word) + DONE)
    assert Finish(reason=reason) in events
    assert payloads(written(MESSAGES, events))[-2]["delta"]["stop_reason"] == stop_reason


@pytest.mark.parametrize(
    ("stop_reason", "word"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
    ],
)
def test_c23_stop_reasons_map(stop_reason: str, word: str) -> None:
    body = {"type": "message", "id": "m", "content": [], "stop_reason": stop_reason}
    answer = json.loads(
        CHAT.answer_body(MESSAGES.answer(json.dumps(body).encode()), asked("openai_chat"))
    )
    assert answer["choices"][0]["finish_reason"] == word


def test_c23_text_then_tools_that_ends_with_stop_is_a_tool_call() -> None:
    call = tool_delta(index=0, id="a", type="function", function={"name": "f", "arguments": "{}"})
    stream = chat_chunk({"content": "I look"}) + chat_chunk(call) + chat_chunk({}, "stop") + DONE
    events = read(CHAT, stream)
    assert Finish(reason=FinishReason.TOOL_CALLS) in events
    assert payloads(written(MESSAGES, events))[-2]["delta"]["stop_reason"] == "tool_use"


def test_c23_a_stop_string_that_vllm_names_is_told() -> None:
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}
    stream = chat_chunk({"content": "x"}) + (
        b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n" + DONE
    )
    finish = Finish(reason=FinishReason.STOP_SEQUENCE, stop_sequence="END")
    events = read(CHAT, stream)
    assert finish in events
    assert payloads(written(MESSAGES, events))[-2]["delta"] == {
        "stop_reason": "stop_sequence",
        "stop_sequence": "END",
    }


def test_c24_a_call_without_arguments_has_an_empty_object() -> None:
    events: list[Event] = [
        START,
        ToolCallStart(index=0, id="a", name="wëtter"),
        Finish(reason=FinishReason.TOOL_CALLS),
        End(),
    ]
    assert _calls(read(CHAT, written(CHAT, events))) == [("a", "wëtter", "{}")]
    call = json.loads(CHAT.answer_body(events, asked("openai_chat")))["choices"][0]["message"]
    assert call["tool_calls"][0]["function"] == {"name": "wëtter", "arguments": "{}"}
    message = json.loads(MESSAGES.answer_body(events, asked("anthropic_messages")))
    assert message["content"][0]["input"] == {}


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_c31_reasoning_fields_are_thoughts_in_every_protocol(field: str) -> None:
    events = read(CHAT, chat_chunk({field: "hm"}) + chat_chunk({"content": "yes"}, "stop") + DONE)
    assert ReasoningDelta(text="hm") in events
    thinking = [e["delta"] for e in payloads(written(MESSAGES, events)) if "delta" in e]
    assert {"type": "thinking_delta", "thinking": "hm"} in thinking
    kinds = [e["type"] for e in payloads(written(RESPONSES, events))]
    assert kinds.count("response.reasoning_text.delta") == 1
    assert kinds.count("response.output_text.delta") == 1


def test_c31_think_tags_leave_the_text_whatever_the_cuts() -> None:
    whole = "<think>\nhm, a < b\n</think>\n\nyes </think> is a tag"
    for size in (1, 2, 3, 5, 100):
        parts = [whole[i : i + size] for i in range(0, len(whole), size)]
        stream = b"".join(chat_chunk({"content": part}) for part in parts)
        events = read(CHAT, stream + chat_chunk({}, "stop") + DONE)
        thought = "".join(e.text for e in events if isinstance(e, ReasoningDelta))
        text = "".join(e.text for e in events if isinstance(e, TextDelta))
        assert (thought.strip(), text) == ("hm, a < b", "yes </think> is a tag")


def test_c31_tags_inside_an_answer_are_text() -> None:
    events = read(CHAT, chat_chunk({"content": "the tag <think> opens"}, "stop") + DONE)
    assert TextDelta(text="the tag <think> opens") in events


def test_c34_choices_keep_their_place() -> None:
    events: list[Event] = [
        START,
        TextDelta(choice=0, text="a"),
        TextDelta(choice=1, text="b"),
        Finish(choice=1, reason=FinishReason.LENGTH),
        Finish(choice=0, reason=FinishReason.STOP),
        End(),
    ]
    assert read(CHAT, written(CHAT, events)) == events
    choices = json.loads(CHAT.answer_body(events, asked("openai_chat")))["choices"]
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in choices] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]


def test_c34_logprobs_are_kept_between_chat_and_chat() -> None:
    logprobs = {"content": [{"token": "x", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
    choice = {"index": 0, "delta": {"content": "x"}, "logprobs": logprobs, "finish_reason": "stop"}
    stream = b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n" + DONE
    (chunk,) = [p for p in payloads(written(CHAT, read(CHAT, stream))) if "logprobs" in str(p)]
    assert chunk["choices"][0]["logprobs"] == logprobs
