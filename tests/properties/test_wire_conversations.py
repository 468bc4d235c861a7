"""A conversation written in a dialect reads back as it was."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locavore.core.request import (
    Conversation,
    DocumentPart,
    ImagePart,
    Message,
    OutputContract,
    Part,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from locavore.wire.formats import CHAT, COMPLETIONS, MESSAGES, RESPONSES

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.text("abcXYZ019_-", min_size=1, max_size=8)
text_parts = st.builds(TextPart, text=words)
images = st.builds(ImagePart, media_type=st.just("image/png"), data=st.just("QUJD")) | st.builds(
    ImagePart, url=st.just("https://example.com/a.png")
)
documents = st.builds(
    DocumentPart, media_type=st.just("application/pdf"), data=st.just("QUJD"), name=names
)
objects = st.dictionaries(words, st.integers() | words, max_size=2)
tools = st.lists(
    st.builds(
        Tool,
        name=names,
        description=st.none() | words,
        parameters=st.just({"type": "object", "properties": {}}),
    ),
    max_size=3,
)


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@st.composite
def turns(draw: st.DrawFn, name: str) -> list[Message]:
    """User and assistant in turn; calls are followed by their results."""
    messages = [Message(role="user", parts=(draw(text_parts),))]
    for _ in range(draw(st.integers(0, 3))):
        calls = [
            ToolCallPart(id=f"c{i}", name=draw(names), arguments=compact(draw(objects)))
            for i in range(draw(st.integers(0, 2)))
        ]
        messages.append(Message(role="assistant", parts=(*_spoken(draw, name), *calls)))
        if calls and name == MESSAGES.name:
            answered = [_result(draw, call.id, name) for call in calls]
            messages.append(Message(role="user", parts=(*answered, draw(text_parts))))
        else:
            results = [_result(draw, call.id, name) for call in calls]
            messages += [Message(role="tool", parts=(result,)) for result in results]
            messages.append(Message(role="user", parts=_asked(draw)))
    return messages


def _spoken(draw: st.DrawFn, name: str) -> tuple[Part, ...]:
    text = draw(text_parts)
    if not draw(st.booleans()):
        return (text,)
    signed = None if name == CHAT.name else draw(names)
    return (ReasoningPart(text=draw(words), signature=signed), text)


def _asked(draw: st.DrawFn) -> tuple[Part, ...]:
    return tuple(draw(st.lists(text_parts | images | documents, min_size=1, max_size=3)))


def _result(draw: st.DrawFn, call_id: str, name: str) -> ToolResultPart:
    failed = name == MESSAGES.name and draw(st.booleans())
    return ToolResultPart(call_id=call_id, content=(draw(text_parts),), is_error=failed)


@st.composite
def conversations(draw: st.DrawFn, name: str) -> Conversation:
    messages = draw(turns(name))
    if draw(st.booleans()):
        messages.insert(0, Message(role="system", parts=(draw(text_parts),)))
    offered = tuple(draw(tools))
    choice = draw(st.sampled_from(["none", "required"])) if offered else None
    return Conversation(
        origin=name,
        messages=tuple(messages),
        tools=offered,
        tool_choice=ToolChoice(mode=choice) if choice else None,  # type: ignore[arg-type] # above
        output=_contract(draw, name),
        max_output_tokens=draw(st.integers(1, 100)),
        temperature=draw(st.none() | st.floats(0, 1)),
        top_p=draw(st.none() | st.floats(0, 1)),
        reasoning_effort=draw(st.sampled_from([None, "low", "high"])),
        user=draw(st.none() | words),
        metadata=draw(st.dictionaries(names, words, max_size=2)),
        extra=draw(st.dictionaries(names.map(lambda n: f"x_{n}"), st.integers(), max_size=2)),
    )


def _contract(draw: st.DrawFn, name: str) -> OutputContract:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    if not draw(st.booleans()):
        return OutputContract()
    if name == MESSAGES.name:
        return OutputContract(kind="json_schema", schema=schema, strict=True)
    strict = draw(st.none() | st.booleans())
    return OutputContract(kind="json_schema", name=draw(names), schema=schema, strict=strict)


@pytest.mark.parametrize("fmt", [CHAT, MESSAGES, RESPONSES], ids=lambda fmt: fmt.name)
@settings(max_examples=80, deadline=None)
@given(data=st.data(), stream=st.booleans())
def test_a_written_conversation_reads_back(fmt: Any, data: st.DataObject, stream: bool) -> None:
    conversation = data.draw(conversations(fmt.name))
    body = fmt.body(conversation, model="m", stream=stream)
    assert fmt.conversation(body) == conversation
    request = fmt.request(body)
    assert (request.model, request.stream) == ("m", stream)
    assert request.max_output_tokens == conversation.max_output_tokens


@settings(max_examples=50, deadline=None)
@given(prompt=words, tokens=st.integers(0, 99), stop=st.lists(words, max_size=2))
def test_a_written_completion_reads_back(prompt: str, tokens: int, stop: list[str]) -> None:
    conversation = Conversation(
        origin=COMPLETIONS.name,
        messages=(Message(role="user", parts=(TextPart(text=prompt),)),),
        max_output_tokens=tokens,
        stop=tuple(stop),
    )
    body = COMPLETIONS.body(conversation, model="m", stream=False)
    assert COMPLETIONS.conversation(body) == conversation


@pytest.mark.parametrize("source", [CHAT, MESSAGES, RESPONSES], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("target", [CHAT, MESSAGES, RESPONSES], ids=lambda fmt: fmt.name)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_translation_keeps_every_word(source: Any, target: Any, data: st.DataObject) -> None:
    conversation = data.draw(conversations(source.name))
    plain = {k: getattr(conversation, k) for k in conversation.__struct_fields__} | {"extra": {}}
    conversation = Conversation(**plain)
    there = target.conversation(target.body(conversation, model="m", stream=False))
    assert _words(there) == _words(conversation)
    assert [tool.name for tool in there.tools] == [tool.name for tool in conversation.tools]
    assert there.output.schema == conversation.output.schema


def _words(conversation: Conversation) -> list[str]:
    """Every text, call and result, without who said it and without thoughts."""
    found: list[str] = []
    for message in conversation.messages:
        for part in message.parts:
            if isinstance(part, TextPart):
                found.append(part.text)
            elif isinstance(part, ToolCallPart):
                found.append(f"{part.id} {part.name} {json.loads(part.arguments)}")
            elif isinstance(part, ToolResultPart):
                text = "".join(p.text for p in part.content if isinstance(p, TextPart))
                found.append(f"{part.call_id} {text.removeprefix('Error: ')}")
    return found
