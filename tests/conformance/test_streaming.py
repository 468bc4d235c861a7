"""A stream ends honestly: C01-C16 through the gateway, before scripted upstreams."""

from decimal import Decimal

import pytest

from locavore.testing import Chunk, Close, Hold, Reply, Reset, ScriptedUpstream, replies
from tests.conformance.client import Client, backend
from tests.conformance.conftest import Start

FALLBACK = '[fallback]\n"home/m" = ["home/second"]\n'
ROLE = replies.chat_chunk({"role": "assistant", "content": ""})
HELLO = replies.chat_chunk({"content": "Hello"})
BROKEN: dict[str, tuple[object, ...]] = {
    "orderly close": (Close(),),
    "reset": (Reset(),),
    "reset in a line": (b'data: {"id":"chatc', Reset()),
    "reset in a code point": (b'data: {"x":"\xc3', Reset()),
    "close in a chunk": (b"data: {", Close()),
}


def two(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream, more: str = ""
) -> Client:
    """`home/m` with `home/second` behind it; no second try at the same backend."""
    config = backend("home/m", upstream) + backend("home/second", other) + FALLBACK
    return start(config + "[retry]\nattempts = 1\n" + more)


@pytest.mark.parametrize("steps", BROKEN.values(), ids=BROKEN.keys())
def test_c01_c02_truncated_stream_is_an_error_never_a_clean_end(
    start: Start, upstream: ScriptedUpstream, steps: tuple[object, ...]
) -> None:
    client = start(backend("home/m", upstream))
    upstream.script(Reply.sse(ROLE, HELLO, *steps))  # type: ignore[arg-type] # a table of steps
    answer = client.chat(stream=True)
    assert answer.text == "Hello"
    assert answer.error["message"]
    assert "[DONE]" not in answer.events
    record = client.record
    assert record.outcome == "failed"
    assert record.attempts[0].fault in ("truncated", "reset")
    assert record.attempts[0].usage is not None
    assert record.attempts[0].usage.estimated


def test_c01_truncated_anthropic_stream_ends_with_an_error_event(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, dialect="anthropic"))
    whole = replies.message_stream().steps
    upstream.script(Reply.sse(*whole[:4], Close()))
    answer = client.messages(stream=True)
    assert [e["type"] for e in answer.events][-1] == "error"
    assert b"message_stop" not in answer.body


def test_c01_truncated_whole_answer_is_an_error(start: Start, upstream: ScriptedUpstream) -> None:
    client = start(backend("home/m", upstream) + "[retry]\nattempts = 1\n")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n"
    upstream.script(Reply((Chunk(head + b'{"choices": ['), Close()), framing="raw"))
    answer = client.chat()
    assert answer.status == 502
    assert answer.error["type"] == "server_error"
    assert client.record.attempts[0].fault == "truncated"


def test_c03_error_in_a_200_stream_before_content_fails_over_with_one_start(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = two(start, upstream, other)
    error = {"error": {"message": "quota", "type": "server_error", "code": None}}
    upstream.script(Reply.sse(ROLE, replies.event(error)))
    other.script(replies.chat_stream(["from ", "second"]))
    answer = client.chat(stream=True)
    assert answer.text == "from second"
    roles = [e for e in answer.events if isinstance(e, dict) and e["choices"]]
    assert sum("role" in e["choices"][0]["delta"] for e in roles) == 1
    assert answer.events.count("[DONE]") == 1
    assert [a.kind for a in client.record.attempts] == ["first", "fallback"]


def test_c04_error_after_content_stops_with_an_error_and_no_second_start(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = two(start, upstream, other)
    error = {"error": {"message": "boom", "type": "server_error", "code": None}}
    hold = Hold()
    upstream.script(Reply.sse(ROLE, HELLO, hold, replies.event(error)))
    stream = client.open_stream()
    stream.read_until(b"Hello")
    hold.release()
    received = stream.read_all()
    assert received.count(b'"role"') == 1
    assert b"boom" in received
    assert b"[DONE]" not in received
    stream.close()
    assert not other.requests
    assert [a.fault for a in client.record.attempts] == ["server_error"]


@pytest.mark.parametrize("stream", [False, True])
def test_c05_no_fallback_is_honoured_on_every_path(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream, stream: bool
) -> None:
    client = two(start, upstream, other)
    upstream.script(replies.openai_error(500))
    answer = client.chat(stream=stream, headers={"x-locavore-no-fallback": "true"})
    assert answer.status == 500
    assert not other.requests


def test_c06_done_comes_exactly_once(start: Start, upstream: ScriptedUpstream) -> None:
    client = start(backend("home/m", upstream))
    upstream.script(replies.chat_stream(["a", "b"]))
    answer = client.chat(stream=True)
    assert answer.events.count("[DONE]") == 1
    assert answer.events[-1] == "[DONE]"


def test_c06_anthropic_ends_with_message_stop(start: Start, upstream: ScriptedUpstream) -> None:
    client = start(backend("home/m", upstream))
    upstream.script(replies.chat_stream(["a", "b"]))
    types = [e["type"] for e in client.messages(stream=True).events]
    assert types[0] == "message_start"
    assert types[-1] == "message_stop"
    assert types.count("message_stop") == 1


def test_c06_responses_ends_with_completed(start: Start, upstream: ScriptedUpstream) -> None:
    client = start(backend("home/m", upstream))
    upstream.script(replies.chat_stream(["a", "b"]))
    answer = client.post("/v1/responses", {"model": "home/m", "input": "hi", "stream": True})
    types = [e["type"] for e in answer.events]
    assert types[0] == "response.created"
    assert types[-1] == "response.completed"


def test_c09_silence_after_the_head_times_out_and_cancels_upstream(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream) + "[timeouts]\nfirst_byte_s = 0.3\n")
    hold = Hold()
    upstream.script(Reply.sse(hold))
    answer = client.chat(stream=True)
    assert answer.status == 504
    assert hold.peer_left.wait(5)
    assert client.record.attempts[0].fault == "first_byte_timeout"


def test_c09_a_stalled_stream_ends_with_an_error_and_cancels_upstream(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream) + "[timeouts]\nidle_s = 0.3\n")
    hold = Hold()
    upstream.script(Reply.sse(ROLE, HELLO, hold))
    answer = client.chat(stream=True)
    assert answer.text == "Hello"
    assert answer.error["message"]
    assert hold.peer_left.wait(5)
    assert client.record.attempts[0].fault == "stalled"


@pytest.mark.parametrize("when", ["before the first byte", "in mid-stream", "whole answer"])
def test_c11_a_client_that_leaves_cancels_upstream(
    start: Start, upstream: ScriptedUpstream, when: str
) -> None:
    client = start(backend("home/m", upstream))
    hold = Hold()
    if when == "whole answer":
        upstream.script(Reply((hold, Chunk(b"{}"))))
    else:
        content = (ROLE, HELLO) if when == "in mid-stream" else ()
        upstream.script(Reply.sse(*content, hold))
    stream = client.open_stream(stream=when != "whole answer")
    assert hold.reached.wait(5)
    if when == "in mid-stream":
        stream.read_until(b"Hello")
    stream.close()
    assert hold.peer_left.wait(1), "upstream was not cancelled within a second"
    record = client.record
    assert record.outcome == "cancelled"
    assert record.attempts[0].usage is not None
    assert record.attempts[0].usage.estimated


def test_c12_a_ping_is_not_content_and_failover_still_works(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = two(start, upstream, other, "[server]\nping_s = 0.2\n")
    hold = Hold()
    upstream.script(Reply.sse(hold, Reset()))
    other.script(replies.chat_stream(["late"]))
    stream = client.open_stream()
    stream.read_until(b": ")
    hold.release()
    received = stream.read_all()
    assert received.count(b'"role"') == 1
    stream.close()
    assert b"late" in received
    assert b"[DONE]" in received


def test_c14_usage_is_absent_when_the_client_did_not_ask(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream))
    upstream.script(replies.chat_stream(["a"]))
    answer = client.chat(stream=True)
    assert upstream.requests[0].json["stream_options"] == {"include_usage": True}
    assert b'"usage"' not in answer.body
    assert all(e == "[DONE]" or e["choices"] for e in answer.events)
    usage = client.record.attempts[0].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (12, 3)


def test_c14_usage_comes_last_with_empty_choices_when_asked(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream))
    upstream.script(replies.chat_stream(["a"]))
    events = client.chat(stream=True, stream_options={"include_usage": True}).events
    assert [e["usage"] for e in events[:-2]] == [None] * (len(events) - 2)
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["prompt_tokens"] == 12


@pytest.mark.parametrize("stream", [False, True])
def test_c15_missing_usage_is_estimated_and_marked(
    start: Start, upstream: ScriptedUpstream, stream: bool
) -> None:
    client = start(backend("home/m", upstream))
    upstream.script(
        replies.chat_stream(["a", "b"], usage=None) if stream else replies.chat("a b", usage=None)
    )
    assert client.chat(stream=stream).status == 200
    record = client.record
    usage = record.attempts[0].usage
    assert "usage_estimated" in record.flags
    assert usage is not None
    assert usage.estimated
    assert usage.input_tokens
    assert usage.output_tokens


def test_c16_id_created_and_model_are_stable_across_chunks(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, dialect="anthropic"))
    upstream.script(replies.message_stream(["a", "b", "c"]))
    chunks = [e for e in client.chat(stream=True).events if e != "[DONE]"]
    assert len({(c["id"], c["created"], c["model"]) for c in chunks}) == 1


def test_c65_stream_and_whole_answer_cost_the_same(
    start: Start, upstream: ScriptedUpstream
) -> None:
    price = {"input_mtok": "2.50", "output_mtok": "10"}
    client = start(backend("home/m", upstream, price=price))
    upstream.script(replies.chat("Hello"), replies.chat_stream(["Hel", "lo"]))
    client.chat()
    client.chat(stream=True)
    whole, streamed = (r.attempts[0].cost for r in client.records())
    assert whole == streamed
    assert whole is not None
    assert whole.usd == Decimal("0.00006")


def test_stream_request_answered_with_json_error_is_that_error(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream) + "[retry]\nattempts = 1\n")
    body = {"error": {"message": "model is loading", "type": "server_error", "code": None}}
    upstream.script(Reply.json(body))
    answer = client.chat(stream=True)
    assert answer.status >= 500
    assert "model is loading" in answer.error["message"]
