"""openai-python: equal objects straight and through the gateway."""

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from locavore.testing import Chunk, Hold, Received, Reply, replies
from tests.clients.sides import Side, Sides, sent

ASK: Any = [{"role": "user", "content": "Say hello."}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


USAGE = {"prompt_tokens": 90, "completion_tokens": 12, "total_tokens": 102}
"""A prompt with a tool has more tokens than the replies' own default tells."""


def client(side: Side, **options: Any) -> openai.OpenAI:
    options = {"max_retries": 0} | options
    return side.closing.enter_context(openai.OpenAI(api_key="k", base_url=side.url, **options))


def dump(value: Any) -> Any:
    return value.model_dump(mode="json", warnings=False)


def call_delta(index: int, arguments: str, **first: Any) -> bytes:
    function = {"arguments": arguments} | ({"name": first["name"]} if first else {})
    call: dict[str, Any] = {"index": index, "function": function}
    if first:
        call |= {"id": first["id"], "type": "function"}
    return replies.chat_chunk({"tool_calls": [call]})


def parallel_calls(*, interleaved: bool) -> Reply:
    """Two calls, their arguments in pieces. (The SDK's own `.stream()` cannot follow interleaved
    pieces, straight from the upstream neither.)"""
    return Reply.sse(
        replies.chat_chunk({"role": "assistant", "content": None}),
        call_delta(0, "", id="call_a", name="weather"),
        call_delta(0, '{"city":'),
        *([] if interleaved else [call_delta(0, '"Oslo"}')]),
        call_delta(1, "", id="call_b", name="weather"),
        call_delta(1, '{"city":"Rom"}'),
        *([call_delta(0, '"Oslo"}')] if interleaved else []),
        replies.chat_chunk({}, finish_reason="tool_calls"),
        replies.usage_chunk(USAGE),
        replies.DONE,
    )


WHOLE_CALLS = [
    {
        "id": f"call_{i}",
        "type": "function",
        "function": {"name": "weather", "arguments": json.dumps({"city": city})},
    }
    for i, city in enumerate(["Oslo", "Rom"])
]
LOGPROBS = {
    "content": [
        {
            "token": "Hé",
            "logprob": -0.25,
            "bytes": list("Hé".encode()),
            "top_logprobs": [{"token": "Hé", "logprob": -0.25, "bytes": None}],
        }
    ],
    "refusal": None,
}


def many_choices() -> Reply:
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": LOGPROBS,
            "finish_reason": reason,
        }
        for i, (text, reason) in enumerate([("Hé", "stop"), ("Ho", "length")])
    ]
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    return Reply.json(
        body | {"usage": replies.USAGE, "system_fingerprint": "fp", "extra": {"a": 1}}
    )


# -- chat ---------------------------------------------------------------------------------------


def test_a_whole_answer(sides: Sides) -> None:
    def script(side: Side) -> Any:
        return dump(client(side).chat.completions.create(model=side.model, messages=ASK, seed=7))

    outcome = sides.both(script, replies.chat("Hé ✓"))
    assert outcome.client["choices"][0]["message"]["content"] == "Hé ✓"
    assert sent(outcome.through[0]) == sent(outcome.direct[0])


def test_several_choices_with_logprobs_and_fields_nobody_knows(sides: Sides) -> None:
    def script(side: Side) -> Any:
        answer = client(side).chat.completions.create(
            model=side.model,
            messages=ASK,
            n=2,
            logprobs=True,
            top_logprobs=1,
            stop=["\n\n", "END"],
            extra_body={"min_p": 0.1},
        )
        return dump(answer)

    outcome = sides.both(script, many_choices())
    assert outcome.client["extra"] == {"a": 1}
    assert sent(outcome.through[0]) == sent(outcome.direct[0])


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream_chunk_by_chunk(sides: Sides, include_usage: bool) -> None:
    def script(side: Side) -> Any:
        options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
        with client(side).chat.completions.create(
            model=side.model, messages=ASK, stream=True, **options
        ) as stream:
            return [dump(chunk) for chunk in stream]

    outcome = sides.both(
        script,
        replies.chat_stream(["Hé", "l", "lo"], usage=replies.USAGE if include_usage else None),
    )
    assert [bool(c["usage"]) for c in outcome.client].count(True) == include_usage


def test_streamed_parallel_calls_are_put_together(sides: Sides) -> None:
    def script(side: Side) -> Any:
        with client(side).chat.completions.stream(
            model=side.model,
            messages=ASK,
            tools=[WEATHER],
            stream_options={"include_usage": True},
        ) as stream:
            kinds = [event.type for event in stream]
            return kinds, dump(stream.get_final_completion())

    kinds, final = sides.both(script, parallel_calls(interleaved=False)).client
    calls = final["choices"][0]["message"]["tool_calls"]
    assert [c["function"]["parsed_arguments"] for c in calls] == [{"city": "Oslo"}, {"city": "Rom"}]
    assert "tool_calls.function.arguments.done" in kinds


def test_interleaved_calls_chunk_by_chunk(sides: Sides) -> None:
    def script(side: Side) -> Any:
        stream = client(side).chat.completions.create(
            model=side.model,
            messages=ASK,
            tools=[WEATHER],
            stream=True,
            stream_options={"include_usage": True},
        )
        return [dump(chunk) for chunk in stream]

    sides.both(script, parallel_calls(interleaved=True))


def test_calls_and_their_results(sides: Sides) -> None:
    def script(side: Side) -> Any:
        chat = client(side).chat.completions
        first = chat.create(model=side.model, messages=ASK, tools=[WEATHER], tool_choice="required")
        message = first.choices[0].message
        assert message.tool_calls is not None
        results: Any = [
            {"role": "tool", "tool_call_id": call.id, "content": "12 °C"}
            for call in message.tool_calls
        ]
        history: Any = [*ASK, message, *results]
        return dump(first), dump(chat.create(model=side.model, messages=history, tools=[WEATHER]))

    first = replies.chat(None, usage=USAGE, finish_reason="tool_calls", tool_calls=WHOLE_CALLS)  # type: ignore[arg-type]
    outcome = sides.both(script, first, replies.chat("Cold.", usage=USAGE))
    assert [sent(r) for r in outcome.through] == [sent(r) for r in outcome.direct]


class City(BaseModel):
    name: str
    people: int


def test_parse_gives_the_type_that_was_asked_for(sides: Sides) -> None:
    def script(side: Side) -> Any:
        answer = client(side).chat.completions.parse(
            model=side.model, messages=ASK, response_format=City
        )
        return answer.choices[0].message.parsed, dump(answer)

    outcome = sides.both(script, replies.chat('{"name":"Oslo","people":700000}'))
    assert outcome.client[0] == City(name="Oslo", people=700000)
    assert outcome.through[0].json["response_format"]["json_schema"]["strict"] is True


def test_a_refusal_and_a_cut_answer_are_told(sides: Sides) -> None:
    def script(side: Side) -> Any:
        chat = client(side).chat.completions
        refused = chat.parse(model=side.model, messages=ASK, response_format=City)
        try:
            chat.parse(model=side.model, messages=ASK, response_format=City)
        except openai.LengthFinishReasonError as error:
            return dump(refused), dump(error.completion)
        raise AssertionError("a cut answer was parsed")

    sides.both(
        script,
        replies.chat(None, refusal="No."),  # type: ignore[arg-type]
        replies.chat('{"name":', finish_reason="length"),
    )


def test_reasoning_content_is_kept(sides: Sides) -> None:
    def script(side: Side) -> Any:
        chat = client(side).chat.completions
        whole = dump(chat.create(model=side.model, messages=ASK, reasoning_effort="low"))
        stream = chat.create(model=side.model, messages=ASK, stream=True)
        return whole, [dump(chunk) for chunk in stream]

    stream = Reply.sse(
        replies.chat_chunk({"role": "assistant", "reasoning_content": "hm"}),
        replies.chat_chunk({"content": "Hi"}),
        replies.chat_chunk({}, finish_reason="stop"),
        replies.DONE,
    )
    whole, _ = sides.both(script, replies.chat("Hi", reasoning_content="hm"), stream).client
    assert whole["choices"][0]["message"]["reasoning_content"] == "hm"


# -- other endpoints ----------------------------------------------------------------------------


def completion_text(stream: bool) -> Reply:
    body: dict[str, Any] = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}

    def choice(text: str, reason: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}

    if not stream:
        return Reply.json(body | {"choices": [choice("lo", "stop")], "usage": replies.USAGE})
    parts = [("l", None), ("o", "stop")]
    events = [replies.event(body | {"choices": [choice(t, r)]}) for t, r in parts]
    return Reply.sse(*events, replies.DONE)


@pytest.mark.parametrize("stream", [False, True])
def test_completions(sides: Sides, stream: bool) -> None:
    def script(side: Side) -> Any:
        answer: Any = client(side).completions.create(
            model=side.model, prompt="Hel", suffix="!", stream=stream
        )
        return [dump(chunk) for chunk in answer] if stream else dump(answer)

    sides.both(script, completion_text(stream))


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings(sides: Sides, encoding: Any) -> None:
    def script(side: Side) -> Any:
        options = {} if encoding is None else {"encoding_format": encoding}
        return dump(
            client(side).embeddings.create(
                model=side.model, input=["a", "b"], dimensions=2, **options
            )
        )

    vectors: Any = [[0.5, -1.0], [0.25, 2.0]]
    if encoding != "float":  # the SDK asks for base64 by itself and decodes it
        vectors = ["AAAAPwAAgL8=", "AACAPgAAAEA="]
    body = replies.embeddings([[0.5, -1.0], [0.25, 2.0]]).steps[0]
    assert isinstance(body, Chunk)
    answer = json.loads(body.data)
    for row, vector in zip(answer["data"], vectors, strict=True):
        row["embedding"] = vector
    outcome = sides.both(script, Reply.json(answer), model="vectors/m")
    assert sent(outcome.through[0]) == sent(outcome.direct[0])


RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "m",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
            ],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "temperature": 1.0,
    "top_p": 1.0,
    "usage": {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    },
}


def response_stream() -> Reply:
    item = RESPONSE["output"][0]
    part = item["content"][0]
    started = RESPONSE | {"status": "in_progress", "output": [], "usage": None}
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": item | {"content": [], "status": "in_progress"},
        },
        {"type": "response.content_part.added", "part": part | {"text": ""}, **where},
        {"type": "response.output_text.delta", "delta": "Hel", "logprobs": [], **where},
        {"type": "response.output_text.delta", "delta": "lo", "logprobs": [], **where},
        {"type": "response.output_text.done", "text": "Hello", "logprobs": [], **where},
        {"type": "response.content_part.done", "part": part, **where},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": RESPONSE},
    ]
    return Reply.sse(
        *(replies.event(e | {"sequence_number": i}, e["type"]) for i, e in enumerate(events))
    )


def test_responses(sides: Sides) -> None:
    def script(side: Side) -> Any:
        api = client(side).responses
        whole = api.create(model=side.model, input="Hi", instructions="Be brief.")
        with api.stream(model=side.model, input="Hi") as stream:
            events = [dump(event) for event in stream]
            final = stream.get_final_response()
        return dump(whole), whole.output_text, events, dump(final), final.output_text

    outcome = sides.both(script, Reply.json(RESPONSE), response_stream())
    assert outcome.client[1] == outcome.client[4] == "Hello"
    assert [sent(r) for r in outcome.through] == [sent(r) for r in outcome.direct]


def test_responses_parse(sides: Sides) -> None:
    text = '{"name":"Oslo","people":1}'
    item = RESPONSE["output"][0]
    content = [item["content"][0] | {"text": text}]

    def script(side: Side) -> Any:
        answer = client(side).responses.parse(model=side.model, input="Hi", text_format=City)
        return answer.output_parsed, dump(answer)

    outcome = sides.both(script, Reply.json(RESPONSE | {"output": [item | {"content": content}]}))
    assert outcome.client[0] == City(name="Oslo", people=1)


def test_the_model_list_has_what_a_client_may_name(sides: Sides) -> None:
    def script(side: Side) -> Any:
        models = client(side).models
        return {m.id for m in models.list()}, models.retrieve("home/m").id

    listed, one = sides.through(script, model="home/m").client
    assert {"home/m", "claude/m", "auto", "local"} <= listed
    assert one == "home/m"


# -- errors, retries, headers -------------------------------------------------------------------


def failing(call: Callable[[], Any]) -> Any:
    """Class, status and error body of what the SDK raised."""
    with pytest.raises(openai.APIError) as raised:
        call()
    error = raised.value
    status = getattr(error, "status_code", None)
    return type(error).__name__, status, error.message, error.code, error.param, error.type


ERRORS: list[tuple[int, str | None, str]] = [
    (400, None, "invalid_request_error"),
    (400, "context_length_exceeded", "invalid_request_error"),
    (404, "model_not_found", "invalid_request_error"),
    (409, None, "conflict"),
    (422, None, "invalid_request_error"),
    (429, "rate_limit_exceeded", "requests"),
    (500, None, "server_error"),
    (503, None, "server_error"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "code", "kind"), ERRORS)
def test_errors_of_each_status(
    sides: Sides, status: int, code: str | None, kind: str, stream: bool
) -> None:
    def script(side: Side) -> Any:
        chat = client(side).chat.completions
        return failing(lambda: chat.create(model=side.model, messages=ASK, stream=stream))

    outcome = sides.both(script, replies.openai_error(status, "told", code=code, kind=kind))
    assert outcome.client[1] == status


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_key_of_the_gateway_is_not_the_clients(sides: Sides, status: int) -> None:
    """The one deliberate difference: the client's own key was accepted."""

    def script(side: Side) -> Any:
        chat = client(side).chat.completions
        return failing(lambda: chat.create(model=side.model, messages=ASK))

    outcome = sides.through(script, replies.openai_error(status), model="home/m")
    assert outcome.client[:2] == ("InternalServerError", 502)
    assert outcome.client[3] == "upstream_credential_refused"


def test_an_error_inside_a_stream_raises(sides: Sides) -> None:
    error = {"error": {"message": "told", "type": "server_error", "param": None, "code": "boom"}}
    holds: list[Hold] = []

    def stream(_: Received) -> Reply:
        holds.append(Hold())
        return Reply.sse(replies.chat_chunk({"content": "Hel"}), holds[-1], replies.event(error))

    def script(side: Side) -> Any:
        texts = []

        def read() -> None:
            for chunk in client(side).chat.completions.create(
                model=side.model, messages=ASK, stream=True
            ):
                texts.append(chunk.choices[0].delta.content)
                holds[-1].release()

        return failing(read), texts

    failure, texts = sides.both(script, stream).client
    assert (failure[0], failure[2], texts) == ("APIError", "told", ["Hel"])


def test_retries_follow_the_headers_of_the_upstream(sides: Sides) -> None:
    """The SDK retries a 429 after the time it is told, on both sides alike."""

    def script(side: Side) -> Any:
        raw = client(side, max_retries=2).chat.completions.with_raw_response.create(
            model=side.model, messages=ASK
        )
        return raw.retries_taken, dump(raw.parse())

    busy = replies.openai_error(429, "busy", code="rate_limit_exceeded", retry_after_ms="20")
    outcome = sides.both(script, busy, busy, replies.chat("Hello"))
    assert outcome.client[0] == 2
    assert len(outcome.through) == len(outcome.direct) == 3


def test_no_retry_where_it_would_not_help(sides: Sides) -> None:
    def script(side: Side) -> Any:
        chat = client(side, max_retries=2).chat.completions
        return failing(lambda: chat.create(model=side.model, messages=ASK))

    sides.both(script, replies.openai_error(400, "told"))


def test_request_ids_name_the_decision(sides: Sides) -> None:
    def script(side: Side) -> Any:
        chat = client(side).chat.completions
        raw = chat.with_raw_response.create(model=side.model, messages=ASK)
        with pytest.raises(openai.BadRequestError) as refused:
            chat.create(model=side.model, messages=ASK)
        return raw.parse()._request_id, raw.headers, refused.value.request_id

    replied = replies.chat("Hello"), replies.openai_error(400)
    served, headers, refused = sides.through(script, *replied, model="home/m").client
    assert headers["x-locavore-model"] == "home/m"
    assert headers["x-locavore-place"] == "on_prem"
    assert served == headers["x-locavore-decision"]
    assert [record.id for record in sides.gateway.records()] == [served, refused]


def test_rate_limit_headers_cross(sides: Sides) -> None:
    limits: Any = {"x_ratelimit_limit_requests": "60", "x_ratelimit_remaining_requests": "59"}

    def script(side: Side) -> Any:
        raw = client(side).chat.completions.with_raw_response.create(model=side.model, messages=ASK)
        return {n: v for n, v in raw.headers.items() if n.startswith("x-ratelimit")}

    steps = replies.chat("Hello").steps
    assert isinstance(steps[0], Chunk)
    body = json.loads(steps[0].data)
    assert len(sides.both(script, Reply.json(body, **limits)).client) == 2


async def _gathered(side: Side) -> Any:
    async with openai.AsyncOpenAI(api_key="k", base_url=side.url, max_retries=0) as api:
        stream = await api.chat.completions.create(model=side.model, messages=ASK, stream=True)
        return [dump(chunk) async for chunk in stream]


def test_the_async_client(sides: Sides) -> None:
    import asyncio

    sides.both(lambda side: asyncio.run(_gathered(side)), replies.chat_stream(usage=None))
