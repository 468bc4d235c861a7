"""What one protocol says, told in another through the gateway: C20-C35, C57."""

import json
from typing import Any

import pytest

from locavore.testing import Reply, ScriptedUpstream, replies
from locavore.testing.replies import DONE, chat_chunk
from tests.conformance.client import CHAT, MESSAGES, Answer, Client, backend
from tests.conformance.conftest import Start

FALLBACK = '[fallback]\n"home/m" = ["home/second"]\n'
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
RESPONSES_TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
SPEC = {
    "type": "json_schema",
    "json_schema": {"name": "s", "schema": SCHEMA, "strict": True},
}
RESPONSES = {"model": "home/m", "input": "Say hello."}
READ_ALL = {"prompt_tokens": 2000, "completion_tokens": 3, "total_tokens": 2003}
"""Usage of an engine that read a long prompt whole (C40 would refuse a smaller count)."""
PICTURE = "https://pictures.example/cat.png"


def responses(client: Client, **fields: Any) -> Answer:
    return client.post("/v1/responses", RESPONSES | fields)


def calls_of_chat(answer: Answer) -> list[tuple[str, str, str]]:
    """(id, name, arguments) as a client that joins deltas by index sees them."""
    found: dict[int, list[str]] = {}
    for event in answer.events:
        if event == "[DONE]" or not event["choices"]:
            continue
        for delta in event["choices"][0]["delta"].get("tool_calls") or ():
            call = found.setdefault(delta["index"], ["", "", ""])
            call[0] += delta.get("id") or ""
            call[1] += delta["function"].get("name") or ""
            call[2] += delta["function"].get("arguments") or ""
    return [(c[0], c[1], c[2]) for _, c in sorted(found.items())]


def calls_of_messages(answer: Answer) -> list[tuple[str, str, str]]:
    """(id, name, input) of each block; blocks must not overlap."""
    found: list[list[str]] = []
    is_open = False
    for event in answer.events:
        if event["type"] == "content_block_start":
            assert not is_open
            is_open = True
            block = event["content_block"]
            if block["type"] == "tool_use":
                found.append([block["id"], block["name"], ""])
        elif event["type"] == "content_block_stop":
            is_open = False
        elif event["type"] == "content_block_delta":
            found[-1][2] += event["delta"].get("partial_json", "")
    return [(c[0], c[1], c[2]) for c in found]


def calls_of_responses(answer: Answer) -> list[tuple[str, str, str]]:
    done = [e["item"] for e in answer.events if e["type"] == "response.output_item.done"]
    return [(i["call_id"], i["name"], i["arguments"]) for i in done if i["type"] == "function_call"]


def delta(*calls: dict[str, Any]) -> bytes:
    return chat_chunk({"tool_calls": list(calls)})


INTERLEAVED = Reply.sse(
    chat_chunk({"role": "assistant", "content": ""}),
    delta({"index": 0, "id": "a", "type": "function", "function": {"name": "f"}}),
    delta({"index": 1, "id": "b", "type": "function", "function": {"name": "wëtter"}}),
    delta({"index": 0, "function": {"arguments": '{"x":'}}),
    delta({"index": 1, "function": {"arguments": '{"y":2}'}}),
    delta({"index": 0, "function": {"arguments": "1}"}}),
    chat_chunk({}, finish_reason="tool_calls"),
    DONE,
)
ALL_ZERO = Reply.sse(
    chat_chunk({"role": "assistant", "content": ""}),
    delta({"index": 0, "id": "a", "type": "function", "function": {"name": "f"}}),
    delta({"index": 0, "function": {"arguments": '{"x":1}'}}),
    delta({"index": 0, "id": "b", "type": "function", "function": {"name": "wëtter"}}),
    delta({"index": 0, "function": {"arguments": '{"y":2}'}}),
    chat_chunk({}, finish_reason="tool_calls"),
    DONE,
)
OBJECTS = Reply.sse(
    delta({"id": "a", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}),
    delta({"id": "b", "type": "function", "function": {"name": "wëtter", "arguments": {"y": 2}}}),
    chat_chunk({}, finish_reason="stop"),
    DONE,
)
TWO_CALLS = [("a", "f", {"x": 1}), ("b", "wëtter", {"y": 2})]


@pytest.mark.parametrize(
    "script", [INTERLEAVED, ALL_ZERO, OBJECTS], ids=["interleaved", "all zero", "objects"]
)
@pytest.mark.parametrize("to", ["chat", "messages", "responses"])
def test_c20_c21_c22_parallel_calls_of_a_chat_engine_reach_every_protocol(
    start: Start, upstream: ScriptedUpstream, to: str, script: Reply
) -> None:
    client = start(backend("home/m", upstream, capabilities=["tools"]))
    upstream.script(script)
    if to == "chat":
        answer = client.chat(stream=True, tools=[TOOL])
        calls = calls_of_chat(answer)
    elif to == "messages":
        tool = {"name": "f", "input_schema": {"type": "object"}}
        answer = client.messages(stream=True, tools=[tool])
        calls = calls_of_messages(answer)
        assert answer.events[-2]["delta"]["stop_reason"] == "tool_use"
    else:
        answer = responses(client, stream=True, tools=[RESPONSES_TOOL])
        calls = calls_of_responses(answer)
    assert [(i, name, json.loads(arguments)) for i, name, arguments in calls] == TWO_CALLS


def anthropic_tools() -> Reply:
    """Text, then two calls, as Anthropic streams them."""
    blocks: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"type": "text", "text": ""}, {"type": "text_delta", "text": "I look"}),
        (
            {"type": "tool_use", "id": "a", "name": "f", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"x":1}'},
        ),
        (
            {"type": "tool_use", "id": "b", "name": "wëtter", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"y":2}'},
        ),
    ]
    opening = replies.message_stream().steps[0]
    events: list[dict[str, Any]] = []
    for index, (block, part) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events.append({"type": "content_block_delta", "index": index, "delta": part})
        events.append({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": "tool_use", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 3}})
    events.append({"type": "message_stop"})
    return Reply.sse(opening, *(replies.event(e, e["type"]) for e in events))


@pytest.mark.parametrize("to", ["chat", "responses"])
def test_c20_c23_parallel_calls_of_messages_reach_openai_clients(
    start: Start, upstream: ScriptedUpstream, to: str
) -> None:
    client = start(backend("home/m", upstream, dialect="anthropic", capabilities=["tools"]))
    upstream.script(anthropic_tools())
    if to == "chat":
        answer = client.chat(stream=True, tools=[TOOL])
        calls = calls_of_chat(answer)
        assert answer.text == "I look"
        assert answer.events[-1] == "[DONE]"
        finishes = [
            e["choices"][0]["finish_reason"] for e in answer.events[:-1] if e.get("choices")
        ]
        assert [f for f in finishes if f] == ["tool_calls"]
    else:
        answer = responses(client, stream=True, tools=[RESPONSES_TOOL])
        calls = calls_of_responses(answer)
        assert answer.events[-1]["type"] == "response.completed"
    assert [(i, name, json.loads(arguments)) for i, name, arguments in calls] == TWO_CALLS
    sent = upstream.requests[0].json
    assert sent["tools"][0]["name"] == "f"
    assert sent["max_tokens"] > 0


def test_c24_a_call_without_arguments_is_an_empty_object_in_messages(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, capabilities=["tools"]))
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    upstream.script(replies.chat("", tool_calls=[call], finish_reason="tool_calls", usage=READ_ALL))
    tools = [{"name": f"t{i}", "input_schema": {"type": "object"}} for i in range(128)]
    answer = client.messages(tools=tools)
    (block,) = [b for b in answer.json["content"] if b["type"] == "tool_use"]
    assert block["input"] == {}
    assert len(upstream.requests[0].json["tools"]) == 128


def test_c25_a_forced_tool_is_refused_where_it_cannot_be_forced_and_routed_where_it_can(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    config = backend("home/m", upstream, capabilities=["tools"], lacks=["tool_choice"])
    config += backend("home/second", other, capabilities=["tools", "tool_choice"])
    client = start(config)
    other.always(replies.chat())
    refused = client.chat(tools=[TOOL], tool_choice="required")
    assert refused.status == 400
    assert "tool_choice" in refused.error["message"]
    routed = client.chat(model="auto", tools=[TOOL], tool_choice="required")
    assert routed.headers["x-locavore-model"] == "home/second"
    assert other.requests[0].json["tool_choice"] == "required"
    assert not upstream.requests


def test_c26_c27_results_and_broken_histories_reach_a_chat_engine(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, capabilities=["tools"]))
    upstream.always(replies.chat())
    history = [
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "one"},
                {"type": "tool_result", "tool_use_id": "b", "content": "bad", "is_error": True},
                {"type": "text", "text": "and now?"},
            ],
        },
    ]
    assert client.messages(messages=history).status == 200
    roles = [m["role"] for m in upstream.requests[0].json["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "user"]
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": '}}
    broken = [{"role": "assistant", "tool_calls": [call]}, {"role": "user", "content": "go"}]
    assert client.chat(messages=broken).status == 200


def test_c28_the_schema_reaches_the_fallback_in_its_own_words(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    both = ["json_schema"]
    config = backend("home/m", upstream, capabilities=both)
    config += backend("home/second", other, dialect="anthropic", capabilities=both)
    client = start(config + FALLBACK + "[retry]\nattempts = 1\n")
    upstream.script(replies.openai_error(500))
    other.script(replies.message('{"a": "x"}'))
    answer = client.chat(response_format=SPEC)
    assert json.loads(answer.json["choices"][0]["message"]["content"]) == {"a": "x"}
    assert upstream.requests[0].json["response_format"] == SPEC
    assert other.requests[0].json["output_config"]["format"]["schema"] == SCHEMA


def test_c28_a_fallback_that_cannot_hold_the_schema_is_skipped(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    config = backend("home/m", upstream, capabilities=["json_schema"])
    config += backend("home/second", other, lacks=["json_schema"])
    client = start(config + FALLBACK + "[retry]\nattempts = 1\n")
    upstream.always(replies.openai_error(500))
    other.always(replies.chat("prose"))
    assert client.chat(response_format=SPEC).status == 500
    assert not other.requests
    upstream.clear()
    upstream.always(replies.openai_error(500))
    assert client.chat().status == 200, "without a schema the fallback serves"


WRAPPED = 'Sure!\n```json\n{"a": "x"}\n```'


@pytest.mark.parametrize("repair", [False, True])
def test_c29_wrapped_json_is_mended_only_where_the_policy_says_so(
    start: Start, upstream: ScriptedUpstream, repair: bool
) -> None:
    config = backend("home/m", upstream, capabilities=["json_schema"])
    client = start(config + ("[server]\nrepair_json = true\n" if repair else ""))
    upstream.script(replies.chat(WRAPPED), replies.chat('{"a": "y"}'))
    content = client.chat(response_format=SPEC).json["choices"][0]["message"]["content"]
    assert content == ('{"a": "x"}' if repair else WRAPPED)
    assert client.record.flags == (("json_repaired",) if repair else ("json_invalid",))
    client.chat(response_format=SPEC)
    assert client.records()[-1].flags == ()


@pytest.mark.parametrize("repair", [False, True])
def test_c29_a_stream_of_wrapped_json_passes_as_it_comes_and_is_flagged(
    start: Start, upstream: ScriptedUpstream, repair: bool
) -> None:
    config = backend("home/m", upstream, capabilities=["json_schema"])
    client = start(config + ("[server]\nrepair_json = true\n" if repair else ""))
    pieces = [WRAPPED[:9], WRAPPED[9:]]
    upstream.script(replies.chat_stream(pieces), replies.chat_stream(['{"a":', ' "y"}']))
    assert client.chat(stream=True, response_format=SPEC).text == WRAPPED
    assert client.record.flags == ("json_invalid",)
    assert client.chat(stream=True, response_format=SPEC).text == '{"a": "y"}'
    assert client.records()[-1].flags == ()


@pytest.mark.parametrize("stream", [False, True])
def test_c29_json_is_looked_at_in_other_protocols_too(
    start: Start, upstream: ScriptedUpstream, stream: bool
) -> None:
    config = backend("home/m", upstream, capabilities=["json_schema"])
    client = start(config + "[server]\nrepair_json = true\n")
    upstream.script(replies.chat_stream([WRAPPED]) if stream else replies.chat(WRAPPED))
    form = {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}
    body = {"model": "home/m", "input": "Say hello.", "text": form, "stream": stream}
    answer = client.post("/v1/responses", body)
    assert answer.status == 200
    if stream:
        assert "Sure!" in answer.events[-1]["response"]["output"][0]["content"][0]["text"]
        assert client.record.flags == ("json_invalid",)
    else:
        assert answer.json["output"][0]["content"][0]["text"] == '{"a": "x"}'
        assert client.record.flags == ("json_repaired",)


def test_c30_signed_thinking_stays_in_its_dialect(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    config = backend("home/m", upstream, dialect="anthropic", capabilities=["reasoning"])
    client = start(config + backend("home/second", other))
    upstream.script(replies.message())
    other.script(replies.chat())
    thinking = {"type": "thinking", "thinking": "secret thought", "signature": "c2ln"}
    said = {"role": "assistant", "content": [thinking, {"type": "text", "text": "hi"}]}
    turns = [MESSAGES["messages"][0], said, {"role": "user", "content": "and?"}]
    assert client.messages(messages=turns).status == 200
    assert thinking in upstream.requests[0].json["messages"][1]["content"]
    assert client.messages(messages=turns, model="home/second").status == 200
    assert b"c2ln" not in other.requests[0].body


@pytest.mark.parametrize("shape", ["field", "tags"])
def test_c31_thinking_is_thinking_in_messages_and_responses(
    start: Start, upstream: ScriptedUpstream, shape: str
) -> None:
    client = start(backend("home/m", upstream))
    deltas: list[dict[str, Any]] = (
        [{"reasoning_content": "hm"}, {"content": "yes"}]
        if shape == "field"
        else [{"content": "<think>"}, {"content": "hm</thi"}, {"content": "nk>yes"}]
    )
    script = Reply.sse(*(chat_chunk(d) for d in deltas), chat_chunk({}, finish_reason="stop"), DONE)
    upstream.script(script, script)
    events = client.messages(stream=True).events
    parts = [e["delta"] for e in events if e["type"] == "content_block_delta"]
    assert "".join(p.get("thinking", "") for p in parts) == "hm"
    assert "".join(p.get("text", "") for p in parts) == "yes"
    told = responses(client, stream=True).events
    text = [e["delta"] for e in told if e["type"] == "response.output_text.delta"]
    assert "".join(text) == "yes"


def test_c31_a_chat_client_gets_thinking_in_tags_as_reasoning_content(
    start: Start, upstream: ScriptedUpstream
) -> None:
    """The engine speaks chat too, so its bytes pass: only the tags are told apart."""
    client = start(backend("home/m", upstream))
    said = ["<th", "ink>", "hm </thi", "nk>", "\n\nyes", " <think> is a word"]
    chunks = [chat_chunk({"content": text}) for text in said]
    upstream.script(
        Reply.sse(*chunks, chat_chunk({}, finish_reason="stop"), DONE),
        replies.chat("".join(said)),
        replies.chat("no tags, no thinking"),
    )
    deltas = [e["choices"][0]["delta"] for e in client.chat(stream=True).events[:-1]]
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "hm "
    assert "".join(d.get("content") or "" for d in deltas) == "yes <think> is a word"
    message = client.chat().json["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm ", "yes <think> is a word")
    assert "reasoning_content" not in client.chat().json["choices"][0]["message"]


def test_a_labelled_call_is_not_stored_by_an_api_that_stores_by_default(
    start: Start, upstream: ScriptedUpstream
) -> None:
    rule = '[[rule]]\nname = "r"\nwhen = { model = "ruled/m" }\nset_labels = ["health"]\n'
    can = ["responses", "chat"]
    config = backend("home/m", upstream, capabilities=can)
    client = start(config + backend("ruled/m", upstream, capabilities=can) + rule)
    text = {"type": "output_text", "text": "hi", "annotations": []}
    said = {"type": "message", "role": "assistant", "content": [text]}
    usage = {"input_tokens": 2000, "output_tokens": 1, "total_tokens": 2001}
    answer = {"id": "r", "object": "response", "model": "m", "status": "completed"}
    upstream.always(Reply.json({**answer, "output": [said], "usage": usage}))
    headers = {"x-locavore-labels": "health"}
    client.post("/v1/responses", RESPONSES)
    client.post("/v1/responses", RESPONSES, headers)
    client.post("/v1/responses", RESPONSES | {"store": None}, headers)
    client.post("/v1/responses", RESPONSES | {"model": "ruled/m"})
    assert [r.json.get("store", "unsaid") for r in upstream.requests] == ["unsaid", *[False] * 3]


def picture_turn() -> list[dict[str, Any]]:
    image = {"type": "image_url", "image_url": {"url": PICTURE}}
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]


def test_c32_a_picture_goes_only_to_a_backend_that_sees(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    config = backend("home/m", upstream, lacks=["vision"])
    client = start(config + backend("home/second", other, capabilities=["vision"]))
    other.always(replies.chat(usage=READ_ALL))
    refused = client.chat(messages=picture_turn())
    assert refused.status == 400
    assert "vision" in refused.error["message"]
    routed = client.chat(model="auto", messages=picture_turn())
    assert routed.headers["x-locavore-model"] == "home/second"
    assert not upstream.requests


def test_c32_the_gateway_hands_on_a_url_and_fetches_nothing(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    config = backend("home/m", upstream, dialect="anthropic", capabilities=["vision"])
    client = start(config)
    upstream.script(replies.message(input_tokens=2000))
    turn = picture_turn()
    turn[0]["content"][1]["image_url"]["url"] = f"{other.origin}/cat.png"
    assert client.chat(messages=turn).status == 200
    source = upstream.requests[0].json["messages"][0]["content"][1]["source"]
    assert source == {"type": "url", "url": f"{other.origin}/cat.png"}
    assert not other.requests
    assert other.connections == 0


def test_c32_documents_reach_a_chat_engine_only_as_data(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, capabilities=["documents"]))
    upstream.always(replies.chat())

    def ask(source: dict[str, str]) -> Answer:
        part = {"type": "document", "source": source}
        return client.messages(messages=[{"role": "user", "content": [part]}])

    by_url = ask({"type": "url", "url": "https://files.example/a.pdf"})
    assert by_url.status == 400
    assert not upstream.requests
    as_data = ask({"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="})
    assert as_data.status == 200
    assert "JVBERg==" in upstream.requests[0].body.decode()


def test_c33_what_a_translation_leaves_out_is_in_a_header(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, dialect="anthropic"))
    upstream.always(replies.message())
    answer = client.chat(prompt_cache_key="k")
    assert answer.headers["x-locavore-dropped"] == "prompt_cache_key"
    refused = client.chat(logit_bias={"5": 1})
    assert refused.status == 400
    assert "logit_bias" in refused.error["message"]
    assert len(upstream.requests) == 1


def test_c34_choices_seed_stop_and_budget_pass_and_are_refused_where_nothing_carries_them(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    can = ["choices", "seed", "logprobs"]
    config = backend("home/m", upstream, capabilities=can)
    client = start(config + backend("home/second", other, dialect="anthropic"))
    upstream.always(replies.chat())
    other.always(replies.message())
    fields: dict[str, Any] = {"n": 2, "seed": 7, "stop": ["a", "b"], "max_completion_tokens": 9}
    fields["messages"] = [{"role": "developer", "content": "be brief"}, *CHAT["messages"]]
    assert client.chat(logprobs=True, top_logprobs=2, **fields).status == 200
    sent = upstream.requests[0].json
    assert {name: sent[name] for name in fields} == fields
    assert client.chat(model="home/second", **fields).status == 400
    assert not other.requests
    only_stop = {"stop": ["a", "b"], "max_completion_tokens": 9, "messages": fields["messages"]}
    assert client.chat(model="home/second", **only_stop).status == 200
    told = other.requests[0].json
    assert told["stop_sequences"] == ["a", "b"]
    assert told["max_tokens"] == 9
    assert told["system"] == [{"type": "text", "text": "be brief"}]


@pytest.mark.parametrize(
    "state", [{"previous_response_id": "resp_1"}, {"store": True}, {"conversation": "c"}]
)
def test_c35_stored_state_is_refused_before_anything_is_sent(
    start: Start, upstream: ScriptedUpstream, state: dict[str, Any]
) -> None:
    client = start(backend("home/m", upstream, capabilities=["responses", "chat"]))
    answer = responses(client, **state)
    assert answer.status == 400
    assert next(iter(state)) in answer.error["message"]
    assert not upstream.requests


def embed(client: Client) -> Answer:
    return client.post("/v1/embeddings", {"model": "home/m", "input": "text"})


@pytest.mark.parametrize(("family", "crosses"), [("other-v1", False), ("bge-v1", True)])
def test_c57_an_embedding_falls_back_only_within_its_family(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream, family: str, crosses: bool
) -> None:
    config = backend("home/m", upstream, capabilities=["embeddings"], embedding_family="bge-v1")
    config += backend("home/second", other, capabilities=["embeddings"], embedding_family=family)
    client = start(config + FALLBACK + "[retry]\nattempts = 1\n")
    upstream.always(replies.openai_error(500))
    other.always(replies.embeddings([[1.0, 0.0]]))
    answer = embed(client)
    assert answer.status == (200 if crosses else 500)
    assert bool(other.requests) is crosses
