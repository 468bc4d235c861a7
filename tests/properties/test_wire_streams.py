"""Cuts between bytes change nothing, and what is written is what is read."""

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locavore.core.errors import RequestError
from locavore.core.events import (
    End,
    Event,
    Failure,
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
from locavore.wire.formats import CHAT, COMPLETIONS, FORMATS, MESSAGES, RESPONSES
from locavore.wire.sse import SseDecoder

STREAMED = [CHAT, COMPLETIONS, MESSAGES, RESPONSES]
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: not "<think>".startswith(text.strip()[:7])
)
tokens = st.integers(0, 10_000)
reasons = st.sampled_from([FinishReason.STOP, FinishReason.LENGTH])
calls = st.lists(st.sampled_from(['{"a":1}', '{"b":"é\\n"}', "{}"]), max_size=3)


@st.composite
def answers(draw: st.DrawFn, name: str) -> list[Event]:
    """An answer that the format can hold in full."""
    events: list[Event] = [Start(id="id-1", model="m", created_s=1_700_000_000)]
    plain = name == COMPLETIONS.name
    if not plain and draw(st.booleans()):
        events.append(ReasoningDelta(text=draw(words)))
    events += [TextDelta(text=text) for text in draw(st.lists(words, max_size=4))]
    made = [] if plain else draw(calls)
    for index, arguments in enumerate(made):
        events.append(ToolCallStart(index=index, id=f"call_{index}", name=f"tool_{index}"))
        cut = draw(st.integers(1, len(arguments)))
        parts = [part for part in (arguments[:cut], arguments[cut:]) if part]
        events += [ToolCallDelta(index=index, arguments=part) for part in parts]
    reason = FinishReason.TOOL_CALLS if made else draw(reasons)
    return [*events, Finish(reason=reason), _usage(draw, name), End()]


def _usage(draw: st.DrawFn, name: str) -> UsageReport:
    cached = draw(tokens)
    optional: dict[str, Any] = {"cache_read_tokens": cached, "reasoning_tokens": draw(tokens)}
    if name in (MESSAGES.name, RESPONSES.name):
        optional["cache_write_tokens"] = draw(tokens)
    given = cached + draw(tokens) + optional.get("cache_write_tokens", 0)
    return UsageReport(usage=Usage(input_tokens=given, output_tokens=draw(tokens), **optional))


def request_of(name: str) -> Request:
    return Request(format=name, model="m", body=b"{}", stream=True, include_usage=True)


def write_all(fmt: Any, events: list[Event]) -> bytes:
    writer = fmt.stream_writer(request_of(fmt.name))
    return b"".join(writer.write(event) for event in events)


def read_all(reader: Any, pieces: list[bytes]) -> list[Event]:
    events = [event for piece in pieces for event in reader.feed(piece)]
    return [*events, *reader.close()]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({c % (len(data) + 1) for c in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def timeless(events: list[Event]) -> list[Event]:
    """Messages carry no time of creation, and tell the prompt's tokens twice."""
    return [
        msgspec.structs.replace(e, created_s=0, input_usage=None) if isinstance(e, Start) else e
        for e in events
    ]


@pytest.mark.parametrize("fmt", STREAMED, ids=lambda fmt: fmt.name)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_c08_read_of_write_is_identity_at_any_cut(fmt: Any, data: st.DataObject) -> None:
    events = data.draw(answers(fmt.name))
    stream = write_all(fmt, events)
    cuts = data.draw(st.lists(st.integers(0, 10_000), max_size=8))
    assert timeless(read_all(fmt.stream_reader(), cut(stream, cuts))) == timeless(events)


@pytest.mark.parametrize("fmt", STREAMED, ids=lambda fmt: fmt.name)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whole_answers_read_back_as_they_were_written(fmt: Any, data: st.DataObject) -> None:
    events = data.draw(answers(fmt.name))
    body = fmt.answer_body(events, request_of(fmt.name))
    assert timeless(fmt.answer(body)) == timeless(_joined(events))
    report = next(e for e in events if isinstance(e, UsageReport))
    assert fmt.usage(body) == report.usage


def _joined(events: list[Event]) -> list[Event]:
    """Neighbouring deltas of one kind as one."""
    joined: list[Event] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            joined[-1] = TextDelta(text=last.text + event.text)
        elif isinstance(event, ToolCallDelta) and isinstance(last, ToolCallDelta):
            joined[-1] = ToolCallDelta(index=last.index, arguments=last.arguments + event.arguments)
        else:
            joined.append(event)
    return joined


@pytest.mark.parametrize("fmt", STREAMED, ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_c08_scanner_forwards_the_same_bytes_at_any_cut(
    fmt: Any, newline: bytes, data: st.DataObject
) -> None:
    events = data.draw(answers(fmt.name))
    stream = write_all(fmt, events)
    framed = b"\xef\xbb\xbf: hello\n\n".replace(b"\n", newline) + stream.replace(b"\n", newline)
    scanner = fmt.scanner(strip_usage=False)
    cuts = data.draw(st.lists(st.integers(0, 10_000), max_size=8))
    forwarded = b"".join(scanner.feed(piece) for piece in cut(framed, cuts))
    assert scanner.close() is None
    assert forwarded + scanner.trailer == b": hello\n\n" + stream
    assert scanner.ended
    report = next(e for e in events if isinstance(e, UsageReport))
    assert scanner.usage == report.usage
    finish = next(e for e in events if isinstance(e, Finish))
    assert scanner.finish_reasons == {0: finish.reason}


SAID = st.text(st.sampled_from('ab "\\\\\n{}:[],\u00e9'), min_size=1, max_size=6)
ERRORS = {
    CHAT.name: [b'data: {"error":{"message":"no","code":500}}', b'event: error\ndata: {"m":"no"}'],
    COMPLETIONS.name: [b'data: {"error": {"message": "no"}}', b'error: {"message":"no"}'],
    MESSAGES.name: [b'event: error\ndata: {"type":"error","error":{"type":"api_error"}}'],
    RESPONSES.name: [b'event: error\ndata: {"type":"error","message":"no"}', b"data: nonsense"],
}


@pytest.mark.parametrize("fmt", STREAMED, ids=lambda fmt: fmt.name)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_c04_c08_an_error_amid_texts_is_found_in_its_place_at_any_cut(
    fmt: Any, data: st.DataObject
) -> None:
    """Events that differ in their text alone are not decoded; what stands between them is."""
    # Blanks that begin an answer wait for what follows: it may be a tag (C31).
    texts = ["a", *data.draw(st.lists(SAID, max_size=12))]
    said: list[Event] = [TextDelta(text=text) for text in texts]
    stream = write_all(fmt, [Start(id="id-1", model="m", created_s=1), *said])
    blocks = [block + b"\n\n" for block in stream.split(b"\n\n") if block]
    first = next(i for i, block in enumerate(blocks) if is_text(fmt, block))
    at = data.draw(st.integers(first + 1, len(blocks)))
    error = data.draw(st.sampled_from(ERRORS[fmt.name])) + b"\n\n"
    broken = b"".join((*blocks[:at], error, *blocks[at:]))
    scanner = fmt.scanner(strip_usage=False)
    cuts = data.draw(st.lists(st.integers(0, 10_000), max_size=8))
    forwarded = b"".join(scanner.feed(piece) for piece in cut(broken, cuts))
    assert forwarded == b"".join(blocks[:at])
    assert scanner.failure is not None
    assert scanner.events == at + 1


def is_text(fmt: Any, block: bytes) -> bool:
    scanner = fmt.scanner(strip_usage=False)
    scanner.feed(block)
    return bool(scanner.content_started)


@pytest.mark.parametrize("fmt", STREAMED, ids=lambda fmt: fmt.name)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_c01_a_stream_cut_short_is_never_a_clean_end(fmt: Any, data: st.DataObject) -> None:
    events = data.draw(answers(fmt.name))
    kept = events[: data.draw(st.integers(0, len(events) - 4))]
    stream = write_all(fmt, kept)
    end = data.draw(st.integers(0, len(stream)))
    scanner = fmt.scanner(strip_usage=False)
    scanner.feed(stream[:end])
    failure = scanner.close()
    assert failure is not None
    assert failure.code == "truncated"
    assert scanner.trailer == b""
    last = read_all(fmt.stream_reader(), [stream[:end]])[-1]
    assert isinstance(last, Failure)
    assert last.code == "truncated"


field = st.tuples(
    st.sampled_from(["data", "event", "id", ""]),
    st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=12),
)


@settings(max_examples=100, deadline=None)
@given(
    blocks=st.lists(st.lists(field, max_size=4), max_size=6),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 2_000), max_size=8),
    bom=st.booleans(),
)
def test_c07_sse_events_do_not_depend_on_cuts(
    blocks: list[list[tuple[str, str]]], newline: str, cuts: list[int], bom: bool
) -> None:
    text = "".join(
        "".join(f"{name}: {value}{newline}" for name, value in block) + newline for block in blocks
    )
    data = (b"\xef\xbb\xbf" if bom else b"") + text.encode()
    decoder = SseDecoder()
    events = [event for piece in cut(data, cuts) for event in decoder.feed(piece)]
    events += decoder.close()
    expected = []
    for block in blocks:
        lines = [value for name, value in block if name == "data"]
        if any(lines) or len(lines) > 1:
            expected.append("\n".join(lines).encode())
    assert [event.data for event in events] == expected


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
known = st.fixed_dictionaries(
    {"model": st.text(min_size=1, max_size=8)},
    optional={
        "metadata": st.none()
        | st.dictionaries(st.sampled_from(["labels", "session_id", "x"]), st.text(max_size=4)),
        "stream_options": st.none() | st.fixed_dictionaries({"x": st.booleans()}),
        "seed": st.integers(0, 3),
    },
)


@settings(max_examples=150, deadline=None)
@given(
    fields=st.tuples(known, st.dictionaries(st.text(max_size=6), json_values, max_size=4)),
    add_usage=st.booleans(),
    drop_labels=st.booleans(),
    drop=st.lists(st.sampled_from(["seed", "absent"]), max_size=2),
    indent=st.sampled_from([None, 2]),
)
def test_rewrite_changes_what_it_is_told_and_nothing_else(
    fields: tuple[dict[str, Any], dict[str, Any]],
    add_usage: bool,
    drop_labels: bool,
    drop: list[str],
    indent: int | None,
) -> None:
    given_fields = {**fields[1], **fields[0], "messages": [{"role": "user", "content": "hé"}]}
    body = json.dumps(given_fields, indent=indent, ensure_ascii=bool(indent)).encode()
    request = FORMATS["openai_chat"].request(
        json.dumps({"model": given_fields["model"], "messages": given_fields["messages"]}).encode()
    )
    rewritten = CHAT.rewrite(
        body, request, model="new", add_usage=add_usage, drop_labels=drop_labels, drop=drop
    )
    assert json.loads(rewritten) == _expected(given_fields, add_usage, drop_labels, drop)


def _expected(
    fields: dict[str, Any], add_usage: bool, drop_labels: bool, drop: list[str]
) -> dict[str, Any]:
    expected = {k: v for k, v in fields.items() if k not in drop}
    expected["model"] = "new"
    if add_usage:
        options = expected.get("stream_options") or {}
        expected["stream_options"] = {**options, "include_usage": True}
    metadata = expected.get("metadata")
    if drop_labels and metadata:
        kept = {k: v for k, v in metadata.items() if k not in ("labels", "session_id")}
        if kept != metadata:
            expected["metadata"] = kept
            if not kept:
                del expected["metadata"]
    return expected


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode()))
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_c105_any_bytes_give_a_request_or_a_request_error(name: str, body: bytes) -> None:
    try:
        request = FORMATS[name].request(body)
    except RequestError as error:
        assert error.status == 400
        assert error.message
    else:
        assert request.body
