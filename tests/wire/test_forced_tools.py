"""A forced tool call as a JSON contract, and back (C25, C29)."""

import json

import pytest

from locavore.core.errors import RequestError
from locavore.core.events import (
    End,
    Event,
    Failure,
    Finish,
    FinishReason,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from locavore.core.request import (
    Conversation,
    Message,
    OutputContract,
    TextPart,
    Tool,
    ToolChoice,
)
from locavore.wire.formats import CHAT
from locavore.wire.json_repair import repair_json
from locavore.wire.openai_chat.forced_tools import (
    ForcedToolReader,
    force,
    forced_answer,
)

TOOLS = (
    Tool(name="weather", parameters={"type": "object", "properties": {"city": {}}}),
    Tool(name="time"),
)


def asking(choice: ToolChoice, output: OutputContract | None = None) -> Conversation:
    return Conversation(
        messages=(Message(role="user", parts=(TextPart(text="hi"),)),),
        tools=TOOLS,
        tool_choice=choice,
        output=output or OutputContract(),
    )


def test_a_required_call_becomes_a_schema_over_all_tools() -> None:
    forced = force(asking(ToolChoice(mode="required")))
    assert forced.tools == ()
    assert forced.tool_choice is None
    assert forced.output.schema is not None
    names = [call["properties"]["name"]["enum"] for call in forced.output.schema["anyOf"]]
    assert names == [["weather"], ["time"]]
    body = json.loads(CHAT.body(forced, model="m", stream=False))
    assert "tools" not in body
    assert "weather" in body["messages"][0]["content"]


def test_a_named_call_becomes_the_schema_of_that_tool() -> None:
    forced = force(asking(ToolChoice(mode="named", name="weather")))
    assert forced.output.schema is not None
    assert forced.output.schema["properties"]["arguments"] == TOOLS[0].parameters


@pytest.mark.parametrize(
    ("choice", "output"),
    [
        (ToolChoice(mode="named", name="absent"), OutputContract()),
        (ToolChoice(mode="required"), OutputContract(kind="json_object")),
    ],
)
def test_a_contradiction_is_refused(choice: ToolChoice, output: OutputContract) -> None:
    with pytest.raises(RequestError):
        force(asking(choice, output))


def answer(text: str, reason: FinishReason = FinishReason.STOP) -> list[Event]:
    return [
        Start(id="i", model="m", created_s=1),
        *[TextDelta(text=part) for part in text],
        Finish(reason=reason),
        End(),
    ]


def test_the_json_answer_is_read_back_as_a_call() -> None:
    events = forced_answer(answer('{"name":"weather","arguments":{"city":"Bonn"}}'))
    assert [type(e) for e in events] == [Start, ToolCallStart, ToolCallDelta, Finish, End]
    start, delta, finish = events[1], events[2], events[3]
    assert isinstance(start, ToolCallStart)
    assert start.name == "weather"
    assert isinstance(delta, ToolCallDelta)
    assert json.loads(delta.arguments) == {"city": "Bonn"}
    assert finish == Finish(reason=FinishReason.TOOL_CALLS)


def test_a_stream_is_read_back_as_a_call() -> None:
    chunks = [
        {"id": "c", "choices": [{"index": 0, "delta": {"content": part}}]}
        for part in ('{"name":"ti', 'me","arguments":{}}')
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    stream = b"".join(b"data: " + json.dumps(c).encode() + b"\n\n" for c in chunks)
    reader = ForcedToolReader(CHAT.stream_reader())
    events = [*reader.feed(stream + b"data: [DONE]\n\n"), *reader.close()]
    assert ToolCallDelta(index=0, arguments="{}") in events
    assert not any(isinstance(event, TextDelta) for event in events)


def test_an_answer_cut_by_its_length_stays_text() -> None:
    events = forced_answer(answer('{"name":"wea', FinishReason.LENGTH))
    assert TextDelta(text='{"name":"wea') in events
    assert Finish(reason=FinishReason.LENGTH) in events


def test_an_answer_that_is_no_call_is_a_failure() -> None:
    assert any(isinstance(event, Failure) for event in forced_answer(answer("Sure!")))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', '{"a": 1}'),
        (" [1, 2]\n", "[1, 2]"),
        ('Here you are:\n```json\n{"a": 1}\n```\nAnything else?', '{"a": 1}'),
        ('```\n{"a": "```"}\n```', '{"a": "```"}'),
        ('The answer is {"a": {"b": [1]}} as you see {x}.', '{"a": {"b": [1]}}'),
        ("no json at all", None),
        ('{"a": ', None),
        ("[" * 5_000, None),
        ("42", None),
    ],
)
def test_c29_wrapped_json_is_found_as_it_stands(text: str, found: str | None) -> None:
    assert repair_json(text) == found
