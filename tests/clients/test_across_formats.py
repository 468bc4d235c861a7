"""A client of one protocol before a backend that speaks the other: the same meaning.

The same answer is scripted in both dialects; the client's object must mean the same either way, and
the backend must have been asked the same question.
"""

import json
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

from locavore.testing import Reply, replies
from tests.clients import test_anthropic_python as claude
from tests.clients import test_openai_python as gpt
from tests.clients.model import message_events
from tests.clients.sides import Side, Sides

ASK = gpt.ASK
CHAT_BACKENDS = ("plain/m", "claude/m")
CALLS = {"call_0": {"city": "Oslo"}, "call_1": {"city": "Rom"}}


def chat_text(text: str) -> Reply:
    return replies.chat(text, usage=gpt.USAGE)


def chat_calls() -> Reply:
    calls = [
        {
            "id": id_,
            "type": "function",
            "function": {"name": "weather", "arguments": json.dumps(arguments)},
        }
        for id_, arguments in CALLS.items()
    ]
    return replies.chat(
        "Let me see.", usage=gpt.USAGE, finish_reason="tool_calls", tool_calls=calls
    )


def claude_calls() -> list[dict[str, Any]]:
    called = [claude.call(id_, arguments["city"]) for id_, arguments in CALLS.items()]
    return [{"type": "text", "text": "Let me see."}, *called]


def streamed_chat(*, calls: bool, text: str = "Let me see.") -> Reply:
    events = [replies.chat_chunk({"role": "assistant", "content": ""})]
    events += [replies.chat_chunk({"content": part}) for part in (text[:3], text[3:])]
    for index, (id_, arguments) in enumerate(CALLS.items() if calls else ()):
        told = json.dumps(arguments)
        events.append(gpt.call_delta(index, "", id=id_, name="weather"))
        events += [gpt.call_delta(index, part) for part in (told[:4], told[4:])]
    events.append(replies.chat_chunk({}, finish_reason="tool_calls" if calls else "stop"))
    return Reply.sse(*events, replies.usage_chunk(gpt.USAGE), replies.DONE)


def streamed_claude(*, calls: bool, text: str = "Let me see.") -> Reply:
    blocks = claude_calls() if calls else [{"type": "text", "text": text}]
    reason = "tool_use" if calls else "end_turn"
    return Reply.sse(*message_events(*blocks, stop_reason=reason))


# -- openai-python ------------------------------------------------------------------------------


def meaning(completion: Any) -> Any:
    """What a program acts on; ids of the answer and the dialect's extras left out."""
    choice = completion.choices[0]
    calls = [(c.id, c.function.name, json.loads(c.function.arguments)) for c in _calls(choice)]
    return choice.message.content, calls, choice.finish_reason


def _calls(choice: Any) -> list[Any]:
    return choice.message.tool_calls or []


@pytest.mark.parametrize("model", CHAT_BACKENDS)
def test_openai_client_whole_answer(sides: Sides, model: str) -> None:
    def script(side: Side) -> Any:
        answer = gpt.client(side).chat.completions.create(
            model=side.model,
            messages=[{"role": "system", "content": "Be brief."}, *ASK],
            max_completion_tokens=50,
            temperature=0.5,
            stop="END",
        )
        usage = answer.usage
        assert usage is not None
        return meaning(answer), usage.total_tokens == usage.prompt_tokens + usage.completion_tokens

    reply = chat_text("Hé ✓") if model == "plain/m" else claude.whole(claude.TEXT)
    outcome = sides.through(script, reply, model=model)
    assert outcome.client == (("Hé ✓", [], "stop"), True)
    asked = outcome.through[0].json
    assert asked["temperature"] == 0.5
    if model == "claude/m":
        assert asked["system"] == [{"type": "text", "text": "Be brief."}]
        assert (asked["max_tokens"], asked["stop_sequences"]) == (50, ["END"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", CHAT_BACKENDS)
def test_openai_client_calls_tools(sides: Sides, model: str, stream: bool) -> None:
    def script(side: Side) -> Any:
        chat = gpt.client(side).chat.completions
        asked: Any = {
            "model": side.model,
            "messages": ASK,
            "tools": [gpt.WEATHER],
            "tool_choice": "required",
        }
        if not stream:
            return meaning(chat.create(**asked))
        with chat.stream(**asked, stream_options={"include_usage": True}) as events:
            final = events.get_final_completion()
        assert final.usage is not None and final.usage.prompt_tokens >= 90
        return meaning(final)

    reply = {
        ("plain/m", False): chat_calls(),
        ("plain/m", True): streamed_chat(calls=True),
        ("claude/m", False): claude.whole(*claude_calls(), stop_reason="tool_use"),
        ("claude/m", True): streamed_claude(calls=True),
    }[model, stream]
    outcome = sides.through(script, reply, model=model)
    called = [(id_, "weather", arguments) for id_, arguments in CALLS.items()]
    assert outcome.client == ("Let me see.", called, "tool_calls")
    if model == "claude/m":
        asked = outcome.through[0].json
        assert asked["tool_choice"]["type"] == "any"
        assert asked["tools"][0]["input_schema"] == gpt.WEATHER["function"]["parameters"]


@pytest.mark.parametrize("model", CHAT_BACKENDS)
def test_openai_client_sends_results_back(sides: Sides, model: str) -> None:
    def script(side: Side) -> Any:
        chat = gpt.client(side).chat.completions
        first = chat.create(model=side.model, messages=ASK, tools=[gpt.WEATHER])
        message = first.choices[0].message
        results: Any = [
            {"role": "tool", "tool_call_id": c.id, "content": "12 °C"}
            for c in _calls(first.choices[0])
        ]
        history: Any = [*ASK, message, *results]
        return meaning(chat.create(model=side.model, messages=history, tools=[gpt.WEATHER]))

    answers: list[Reply] = [chat_calls(), chat_text("Cold.")]
    if model == "claude/m":
        answers = [
            claude.whole(*claude_calls(), stop_reason="tool_use"),
            claude.whole({"type": "text", "text": "Cold."}),
        ]
    outcome = sides.through(script, *answers, model=model)
    assert outcome.client == ("Cold.", [], "stop")
    if model == "claude/m":
        history = outcome.through[1].json["messages"]
        assert [m["role"] for m in history] == ["user", "assistant", "user"]
        results = [b for b in history[2]["content"] if b["type"] == "tool_result"]
        assert [r["tool_use_id"] for r in results] == list(CALLS)


class City(BaseModel):
    name: str
    people: int


@pytest.mark.parametrize("model", CHAT_BACKENDS)
def test_openai_client_parses(sides: Sides, model: str) -> None:
    def script(side: Side) -> Any:
        answer = gpt.client(side).chat.completions.parse(
            model=side.model, messages=ASK, response_format=City
        )
        return answer.choices[0].message.parsed

    text = '{"name":"Oslo","people":1}'
    reply = chat_text(text) if model == "plain/m" else claude.whole({"type": "text", "text": text})
    outcome = sides.through(script, reply, model=model)
    assert outcome.client == City(name="Oslo", people=1)
    if model == "claude/m":
        schema = outcome.through[0].json["output_config"]["format"]["schema"]
        assert schema["required"] == ["name", "people"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", CHAT_BACKENDS)
def test_openai_client_of_responses(sides: Sides, model: str, stream: bool) -> None:
    tool: Any = {"type": "function", **gpt.WEATHER["function"]}

    def script(side: Side) -> Any:
        api = gpt.client(side).responses
        asked: Any = {"model": side.model, "input": "Hi", "instructions": "Brief.", "tools": [tool]}
        if stream:
            with api.stream(**asked) as events:
                kinds = [event.type for event in events]
                final = events.get_final_response()
            assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
        else:
            final = api.create(**asked)
        assert final.usage is not None
        calls = [
            (item.call_id, item.name, json.loads(item.arguments))
            for item in final.output
            if item.type == "function_call"
        ]
        return final.output_text, calls, final.status, final.usage.output_tokens

    reply = {
        ("plain/m", False): chat_calls(),
        ("plain/m", True): streamed_chat(calls=True),
        ("claude/m", False): claude.whole(
            *claude_calls(), stop_reason="tool_use", output_tokens=12
        ),
        ("claude/m", True): streamed_claude(calls=True),
    }[model, stream]
    outcome = sides.through(script, reply, model=model)
    called = [(id_, "weather", arguments) for id_, arguments in CALLS.items()]
    assert outcome.client == ("Let me see.", called, "completed", 12)


OPENAI_CLASS = {
    400: openai.BadRequestError,
    429: openai.RateLimitError,
    529: openai.InternalServerError,
}


@pytest.mark.parametrize("status", OPENAI_CLASS)
def test_openai_client_gets_errors_of_its_own_kind(sides: Sides, status: int) -> None:
    kind = dict(claude.ERRORS)[status]

    def script(side: Side) -> Any:
        with pytest.raises(OPENAI_CLASS[status]) as raised:
            gpt.client(side).chat.completions.create(model=side.model, messages=ASK)
        return raised.value.message, raised.value.type

    told = replies.anthropic_error(status, "told", kind=kind, retry_after="3")
    message, type_ = sides.through(script, told, model="claude/m").client
    assert "told" in message
    assert type_


def test_an_embedding_never_comes_from_a_chat_backend(sides: Sides) -> None:
    def script(side: Side) -> Any:
        with pytest.raises(openai.APIStatusError) as raised:
            gpt.client(side).embeddings.create(model=side.model, input="a")
        return raised.value.status_code

    outcome = sides.through(script, model="claude/m")
    assert 400 <= outcome.client < 500
    assert outcome.through == []


# -- anthropic-python ---------------------------------------------------------------------------

MESSAGE_BACKENDS = ("claude/m", "plain/m")


def said(message: Any) -> Any:
    blocks = [
        block.text if block.type == "text" else (block.id, block.name, block.input)
        for block in message.content
        if block.type in ("text", "tool_use")
    ]
    return blocks, message.stop_reason, message.usage.output_tokens


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", MESSAGE_BACKENDS)
def test_anthropic_client_calls_tools(sides: Sides, model: str, stream: bool) -> None:
    def script(side: Side) -> Any:
        api = claude.client(side).messages
        asked: Any = {
            "model": side.model,
            "max_tokens": 50,
            "system": "Be brief.",
            "messages": ASK,
            "tools": [claude.WEATHER],
            "tool_choice": {"type": "tool", "name": "weather"},
        }
        if not stream:
            return said(api.create(**asked))
        with api.stream(**asked) as events:
            return said(events.get_final_message())

    reply = {
        ("claude/m", False): claude.whole(
            *claude_calls(), stop_reason="tool_use", output_tokens=12
        ),
        ("claude/m", True): streamed_claude(calls=True),
        ("plain/m", False): chat_calls(),
        ("plain/m", True): streamed_chat(calls=True),
    }[model, stream]
    outcome = sides.through(script, reply, model=model)
    called = [(id_, "weather", arguments) for id_, arguments in CALLS.items()]
    assert outcome.client == (["Let me see.", *called], "tool_use", 12)
    if model == "plain/m":
        asked = outcome.through[0].json
        assert asked["tool_choice"]["function"]["name"] == "weather"
        assert asked["messages"][0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("model", MESSAGE_BACKENDS)
def test_anthropic_client_sends_results_back(sides: Sides, model: str) -> None:
    def script(side: Side) -> Any:
        api = claude.client(side).messages
        asked: Any = {"model": side.model, "max_tokens": 50, "tools": [claude.WEATHER]}
        first = api.create(messages=ASK, **asked)
        results = [
            {"type": "tool_result", "tool_use_id": b.id, "content": "12 °C"}
            for b in first.content
            if b.type == "tool_use"
        ]
        history: Any = [
            *ASK,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": results},
        ]
        return said(api.create(messages=history, **asked))[:2]

    answers: list[Reply] = [chat_calls(), chat_text("Cold.")]
    if model == "claude/m":
        answers = [
            claude.whole(*claude_calls(), stop_reason="tool_use"),
            claude.whole({"type": "text", "text": "Cold."}),
        ]
    outcome = sides.through(script, *answers, model=model)
    assert outcome.client == (["Cold."], "end_turn")
    if model == "plain/m":
        history = outcome.through[1].json["messages"]
        assert [m["role"] for m in history] == ["user", "assistant", "tool", "tool"]
        assert [m["tool_call_id"] for m in history[2:]] == list(CALLS)


def test_anthropic_client_sees_the_thinking_of_a_reasoning_engine(sides: Sides) -> None:
    stream = Reply.sse(
        replies.chat_chunk({"role": "assistant", "reasoning_content": "hm"}),
        replies.chat_chunk({"content": "Hi"}),
        replies.chat_chunk({}, finish_reason="stop"),
        replies.usage_chunk(gpt.USAGE),
        replies.DONE,
    )

    def script(side: Side) -> Any:
        with claude.client(side).messages.stream(
            model=side.model,
            max_tokens=5000,
            messages=ASK,
            thinking={"type": "enabled", "budget_tokens": 1024},
        ) as events:
            final = events.get_final_message()
        return [(b.type, getattr(b, "thinking", None)) for b in final.content], said(final)[0]

    blocks, texts = sides.through(script, stream, model="plain/m").client
    assert blocks == [("thinking", "hm"), ("text", None)]
    assert texts == ["Hi"]


def test_anthropic_client_parses(sides: Sides) -> None:
    def script(side: Side) -> Any:
        return (
            claude.client(side)
            .messages.parse(model=side.model, max_tokens=50, messages=ASK, output_format=City)
            .parsed_output
        )

    outcome = sides.through(script, chat_text('{"name":"Oslo","people":1}'), model="plain/m")
    assert outcome.client == City(name="Oslo", people=1)
    asked = outcome.through[0].json["response_format"]["json_schema"]
    assert asked["schema"]["required"] == ["name", "people"]


def test_anthropic_client_counts_on_the_safe_side_where_nobody_counts(sides: Sides) -> None:
    def script(side: Side) -> Any:
        return claude.client(side).messages.count_tokens(model=side.model, messages=ASK)

    outcome = sides.through(script, model="plain/m")
    assert outcome.client.input_tokens >= 4  # "Say hello." in any tokenizer
    assert outcome.through == []


ANTHROPIC_CLASS = {
    400: anthropic.BadRequestError,
    429: anthropic.RateLimitError,
    503: anthropic.InternalServerError,
}


@pytest.mark.parametrize("status", ANTHROPIC_CLASS)
def test_anthropic_client_gets_errors_of_its_own_kind(sides: Sides, status: int) -> None:
    def script(side: Side) -> Any:
        with pytest.raises(ANTHROPIC_CLASS[status]) as raised:
            claude.client(side).messages.create(model=side.model, max_tokens=5, messages=ASK)
        body: Any = raised.value.body
        return body["type"], body["error"]["message"]

    reply = replies.openai_error(status, "told", retry_after="3")
    assert sides.through(script, reply, model="plain/m").client == ("error", "told")
