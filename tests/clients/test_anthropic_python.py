"""anthropic-python: equal objects straight and through the gateway."""

import json
from collections.abc import Callable
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

from locavore.testing import Hold, Received, Reply, replies
from tests.clients.model import message_events
from tests.clients.sides import Side, Sides, sent

ASK: Any = [{"role": "user", "content": "Say hello."}]
WEATHER: Any = {
    "name": "weather",
    "description": "Weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
THINKING = {"type": "thinking", "thinking": "Greeting.", "signature": "c2lnbmVk"}


def client(side: Side, **options: Any) -> anthropic.Anthropic:
    made = anthropic.Anthropic(api_key="k", base_url=side.origin, **({"max_retries": 0} | options))
    return side.closing.enter_context(made)


def dump(value: Any) -> Any:
    return value.model_dump(mode="json", warnings=False)


def call(id_: str, city: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": "weather", "input": {"city": city}}


def whole(*blocks: dict[str, Any], **fields: Any) -> Reply:
    return replies.message(content=list(blocks), input_tokens=90, model="m", **fields)


TEXT = {"type": "text", "text": "Hé ✓"}


def test_a_whole_message(sides: Sides) -> None:
    def script(side: Side) -> Any:
        return dump(
            client(side).messages.create(
                model=side.model,
                max_tokens=50,
                system="Be brief.",
                messages=ASK,
                extra_body={"temperature": 0.5},
                stop_sequences=["END"],
                metadata={"user_id": "u"},
            )
        )

    outcome = sides.both(script, whole(TEXT), model="claude/m")
    assert outcome.client["content"][0]["text"] == "Hé ✓"
    assert sent(outcome.through[0]) == sent(outcome.direct[0])


def test_a_stream_event_by_event(sides: Sides) -> None:
    def script(side: Side) -> Any:
        stream = client(side).messages.create(
            model=side.model, max_tokens=50, messages=ASK, stream=True
        )
        return [dump(event) for event in stream]

    sides.both(script, Reply.sse(*message_events(TEXT)), model="claude/m")


def test_the_accumulator_with_thinking_text_and_two_calls(sides: Sides) -> None:
    def script(side: Side) -> Any:
        with client(side).messages.stream(
            model=side.model,
            max_tokens=5000,
            messages=ASK,
            tools=[WEATHER],
            thinking={"type": "enabled", "budget_tokens": 1024},
        ) as stream:
            events = [dump(event) for event in stream]
            return events, dump(stream.get_final_message()), stream.get_final_text()

    events = message_events(
        THINKING, TEXT, call("toolu_1", "Oslo"), call("toolu_2", "Rom"), stop_reason="tool_use"
    )
    outcome = sides.both(script, Reply.sse(*events), model="claude/m")
    _, final, _ = outcome.client
    assert [b.get("input") for b in final["content"]][2:] == [{"city": "Oslo"}, {"city": "Rom"}]
    assert final["content"][0]["signature"] == THINKING["signature"]
    assert sent(outcome.through[0]) == sent(outcome.direct[0])


def test_calls_and_their_results(sides: Sides) -> None:
    def script(side: Side) -> Any:
        api = client(side).messages
        asked: Any = {"model": side.model, "max_tokens": 50, "tools": [WEATHER]}
        first = api.create(messages=ASK, tool_choice={"type": "any"}, **asked)
        results = [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "12 °C"},
            {
                "type": "tool_result",
                "tool_use_id": "toolu_2",
                "is_error": True,
                "content": [{"type": "text", "text": "no station"}],
            },
        ]
        history: Any = [
            *ASK,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": results},
        ]
        return dump(first), dump(api.create(messages=history, **asked))

    calls = whole(THINKING, call("toolu_1", "Oslo"), call("toolu_2", "Rom"), stop_reason="tool_use")
    outcome = sides.both(script, calls, whole(TEXT), model="claude/m")
    assert [sent(r) for r in outcome.through] == [sent(r) for r in outcome.direct]


class City(BaseModel):
    name: str
    people: int


def test_parse_gives_the_type_that_was_asked_for(sides: Sides) -> None:
    def script(side: Side) -> Any:
        answer = client(side).messages.parse(
            model=side.model, max_tokens=50, messages=ASK, output_format=City
        )
        return answer.parsed_output, dump(answer)

    text = {"type": "text", "text": '{"name":"Oslo","people":1}'}
    outcome = sides.both(script, whole(text), model="claude/m")
    assert outcome.client[0] == City(name="Oslo", people=1)
    assert sent(outcome.through[0]) == sent(outcome.direct[0])


def test_count_tokens_asks_who_knows(sides: Sides) -> None:
    def script(side: Side) -> Any:
        return dump(client(side).messages.count_tokens(model=side.model, messages=ASK))

    counted = Reply.json({"input_tokens": 11})
    assert sides.both(script, counted, model="counting/m").client == {"input_tokens": 11}


def test_pictures_and_beta_headers_cross(sides: Sides) -> None:
    picture: Any = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
    }

    asked: Any = [{"role": "user", "content": [picture, TEXT]}]

    def script(side: Side) -> Any:
        return dump(
            client(side).beta.messages.create(
                model=side.model,
                max_tokens=50,
                betas=["interleaved-thinking-2025-05-14"],
                messages=asked,
            )
        )

    outcome = sides.both(script, whole(TEXT), model="claude/m")
    (direct,), (through,) = outcome.direct, outcome.through
    assert sent(through) == sent(direct)
    for name in ("anthropic-beta", "anthropic-version"):
        assert through.headers[name] == direct.headers[name]


# -- errors, retries, headers -------------------------------------------------------------------


def failing(act: Callable[[], Any]) -> Any:
    """Class, status and error body of what the SDK raised."""
    with pytest.raises(anthropic.APIError) as raised:
        act()
    error = raised.value
    body: Any = error.body
    kept = {k: v for k, v in body.items() if k != "request_id"} if body else None
    return type(error).__name__, getattr(error, "status_code", None), kept


ERRORS = [
    (400, "invalid_request_error"),
    (404, "not_found_error"),
    (413, "request_too_large"),
    (429, "rate_limit_error"),
    (500, "api_error"),
    (529, "overloaded_error"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "kind"), ERRORS)
def test_errors_of_each_status(sides: Sides, status: int, kind: str, stream: bool) -> None:
    def script(side: Side) -> Any:
        api = client(side).messages
        return failing(
            lambda: api.create(model=side.model, max_tokens=5, messages=ASK, stream=stream)
        )

    outcome = sides.both(
        script, replies.anthropic_error(status, "told", kind=kind), model="claude/m"
    )
    assert outcome.client[1] == status


def test_an_error_inside_a_stream_raises(sides: Sides) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "told"}}
    holds: list[Hold] = []

    def broken(_: Received) -> Reply:
        holds.append(Hold())
        opening = message_events(TEXT)[:4]
        return Reply.sse(*opening, holds[-1], replies.event(error, "error"))

    def script(side: Side) -> Any:
        texts: list[str] = []

        def read() -> None:
            with client(side).messages.stream(
                model=side.model, max_tokens=5, messages=ASK
            ) as stream:
                for text in stream.text_stream:
                    texts.append(text)
                    holds[-1].release()

        return failing(read), texts

    failure, texts = sides.both(script, broken, model="claude/m").client
    assert texts == ["Hé"]
    assert failure[2]["error"] == error["error"]


def test_retries_follow_the_headers_of_the_upstream(sides: Sides) -> None:
    def script(side: Side) -> Any:
        raw = client(side, max_retries=2).messages.with_raw_response.create(
            model=side.model, max_tokens=5, messages=ASK
        )
        return raw.retries_taken, dump(raw.parse())

    busy = replies.anthropic_error(529, "busy", kind="overloaded_error", retry_after_ms="20")
    outcome = sides.both(script, busy, busy, whole(TEXT), model="claude/m")
    assert outcome.client[0] == 2
    assert len(outcome.through) == len(outcome.direct) == 3


def test_request_ids_and_limits_are_in_the_headers(sides: Sides) -> None:
    def script(side: Side) -> Any:
        api = client(side).messages
        raw = api.with_raw_response.create(model=side.model, max_tokens=5, messages=ASK)
        with pytest.raises(anthropic.BadRequestError) as refused:
            api.create(model=side.model, max_tokens=5, messages=ASK)
        return raw.parse()._request_id, raw.headers, refused.value.request_id

    served_body = Reply.json(
        json.loads(whole(TEXT).steps[0].data),  # type: ignore[union-attr]
        anthropic_ratelimit_requests_remaining="7",
    )
    refused_body = replies.anthropic_error(400, kind="invalid_request_error")
    outcome = sides.through(script, served_body, refused_body, model="claude/m")
    served, headers, refused = outcome.client
    assert headers["anthropic-ratelimit-requests-remaining"] == "7"
    assert [record.id for record in sides.gateway.records()] == [served, refused]
