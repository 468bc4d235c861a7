"""Conformance: requests and their translation, as far as bytes alone decide (C24-C36, C105)."""

import json
from typing import Any

import pytest

from locavore.core.errors import RequestError
from locavore.core.request import Conversation, ReasoningPart, ToolCallPart
from locavore.wire.formats import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    EMBEDDINGS,
    FORMATS,
    MESSAGES,
    RESPONSES,
    left_out,
    unsigned,
    untranslatable,
)

USER = [{"role": "user", "content": "hi"}]
PNG = "iVBORw0KGgo="


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": USER, **fields}).encode()


def messages(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 9, "messages": USER, **fields}).encode()


def responses(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "hi", **fields}).encode()


def to(fmt: Any, conversation: Conversation) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(fmt.body(conversation, model="up", stream=False))
    return body


FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


@pytest.mark.parametrize(
    ("fields", "need"),
    [
        ({"tools": [FUNCTION]}, "tools"),
        ({"tools": [FUNCTION], "tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "json_object"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "json_schema"),
        ({"logprobs": True}, "logprobs"),
        ({"n": 2}, "choices"),
        ({"seed": 1}, "seed"),
        ({"reasoning_effort": "high"}, "reasoning"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "vision"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "documents"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "audio"),
    ],
)
def test_c32_c34_fields_of_a_chat_become_needs(fields: dict[str, Any], need: str) -> None:
    assert need in CHAT.request(chat(**fields)).needs
    assert CHAT.request(chat()).needs == {"chat"}


def test_words_about_images_are_no_image() -> None:
    body = chat(messages=[{"role": "user", "content": 'send "image_url": {"url": 1} "tools"'}])
    assert CHAT.request(body).needs == {"chat"}


def test_c34_output_budget_stream_and_usage_are_read() -> None:
    body = chat(
        max_tokens=5, max_completion_tokens=7, stream=True, stream_options={"include_usage": True}
    )
    request = CHAT.request(body)
    assert (request.max_output_tokens, request.stream, request.include_usage) == (7, True, True)
    assert request.body is body


@pytest.mark.parametrize(
    ("fmt", "body"), [(CHAT, chat), (MESSAGES, messages), (RESPONSES, responses)]
)
def test_labels_and_session_are_read_and_removed(fmt: Any, body: Any) -> None:
    sent = body(metadata={"labels": "health, legal", "session_id": "s1"})
    request = fmt.request(sent)
    assert request.labels == {"health", "legal"}
    assert request.session == "s1"
    passed = fmt.rewrite(sent, request, model="up")
    unstored = {"store": False} if fmt is RESPONSES else {}
    assert json.loads(passed) == json.loads(body(model="up", **unstored))
    translated = json.loads(CHAT.body(fmt.conversation(sent), model="up", stream=False))
    assert "health" not in json.dumps(translated)


def test_prompt_bytes_count_text_and_not_pictures() -> None:
    parts = [{"type": "text", "text": "abcdé"}, IMAGE]
    request = CHAT.request(chat(messages=[{"role": "user", "content": parts}]))
    assert (request.prompt_bytes, request.images) == (6, 1)
    result = [{"type": "tool_result", "tool_use_id": "a", "content": [
        {"type": "text", "text": "xyz"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    ]}]  # fmt: skip
    request = MESSAGES.request(messages(messages=[{"role": "user", "content": result}]))
    assert (request.prompt_bytes, request.images) == (3, 1)


@pytest.mark.parametrize(
    ("fmt", "body"),
    [
        (CHAT, chat(messages=[*USER, {"role": "assistant", "content": "x"}])),
        (MESSAGES, messages()),
        (RESPONSES, responses()),
        (RESPONSES, responses(input=USER)),
        (COMPLETIONS, json.dumps({"model": "m", "prompt": "hi"}).encode()),
        (EMBEDDINGS, json.dumps({"model": "m", "input": ["hi"]}).encode()),
    ],
)
def test_the_turns_tell_who_said_what(fmt: Any, body: bytes) -> None:
    assert next(turn.text for turn in fmt.turns(body) if turn.role == "user") == "hi"


BAD_BODIES: list[tuple[str, bytes, str | None]] = [
    ("openai_chat", b"", None),
    ("openai_chat", b'{"model":"m","messages":[', None),
    ("openai_chat", b"[" * 200_000, None),
    ("openai_chat", b'{"model":"m","messages":[],"x":' + b"[" * 200_000, None),
    ("openai_chat", b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}', None),
    ("openai_chat", b'{"messages":[]}', "model"),
    ("openai_chat", chat(messages=[]), "messages"),
    ("openai_chat", chat(messages="hi"), "messages"),
    ("openai_chat", chat(max_tokens="9"), "max_tokens"),
    ("openai_chat", chat(max_tokens=0), "max_tokens"),
    ("openai_chat", chat(n=0), "n"),
    ("openai_chat", chat(stream="yes"), "stream"),
    ("openai_chat", chat(metadata=[1]), "metadata"),
    ("openai_chat", chat(metadata={"labels": ["a"]}), "metadata.labels"),
    ("openai_chat", chat(response_format={"type": "xml"}), "response_format.type"),
    ("openai_chat", chat(messages=[{"role": "user", "content": 1}]), "messages[0].content"),
    ("anthropic_messages", b'{"model":"m","messages":[]}', "max_tokens"),
    ("anthropic_messages", messages(messages=[]), "messages"),
    ("openai_responses", b'{"model":"m"}', "input"),
    ("openai_completions", b'{"model":"m"}', "prompt"),
    ("openai_embeddings", b'{"model":"m","input":""}', "input"),
]


@pytest.mark.parametrize(("name", "body", "param"), BAD_BODIES, ids=lambda v: str(v)[:30])
def test_c105_bad_bodies_are_refused_by_field(name: str, body: bytes, param: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        FORMATS[name].request(body)
    assert caught.value.status == 400
    assert caught.value.param == param
    assert json.loads(FORMATS[name].error_body(caught.value))["error"]["message"]


def test_c105_many_messages_are_read() -> None:
    assert CHAT.request(chat(messages=USER * 100_000)).prompt_bytes == 200_000


def test_c105_the_message_shows_the_value() -> None:
    with pytest.raises(RequestError, match=r"max_tokens: .* '9'"):
        CHAT.request(chat(max_tokens="9"))


@pytest.mark.parametrize(
    "field",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
        {"background": True},
        {"store": True},
        {"prompt": {"id": "p"}},
        {"input": [{"type": "item_reference", "id": "i"}]},
    ],
    ids=lambda field: next(iter(field)),
)
def test_c35_stored_state_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="no answers are stored here"):
        RESPONSES.request(responses(**field))


@pytest.mark.parametrize("field", [{}, {"store": False}, {"store": None}, {"background": False}])
def test_c35_what_sdks_send_by_default_works(field: dict[str, Any]) -> None:
    assert RESPONSES.request(responses(**field)).needs == {"chat"}


def test_c35_built_in_tools_need_a_server_that_has_them() -> None:
    body = responses(tools=[{"type": "web_search"}])
    request = RESPONSES.request(body)
    assert "responses" in request.needs
    assert untranslatable(request, "openai_chat") == ("tools",)
    with pytest.raises(RequestError, match="built-in tool 'web_search'"):
        RESPONSES.conversation(body)


def test_responses_become_chat_with_calls_results_and_schema() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    body = responses(
        instructions="be brief",
        input=[
            *USER,
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]},
            call,
            {"type": "function_call_output", "call_id": "c", "output": "42"},
        ],
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        text={"format": {"type": "json_schema", "name": "s", "schema": SCHEMA, "strict": True}},
    )
    sent = to(CHAT, RESPONSES.conversation(body))
    function = {"name": "f", "arguments": "{}"}
    assert sent["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ]
    assert sent["tools"] == [FUNCTION]
    schema = {"name": "s", "schema": SCHEMA, "strict": True}
    assert sent["response_format"] == {"type": "json_schema", "json_schema": schema}


def test_c28_a_schema_survives_every_translation() -> None:
    spec = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}
    conversation = CHAT.conversation(chat(response_format=spec))
    assert to(CHAT, conversation)["response_format"] == spec
    assert to(MESSAGES, conversation)["output_config"]["format"]["schema"] == SCHEMA
    assert to(RESPONSES, conversation)["text"]["format"]["schema"] == SCHEMA
    assert (
        MESSAGES.conversation(json.dumps(to(MESSAGES, conversation)).encode()).output.schema
        == SCHEMA
    )


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({"seed": 1}, "seed"),
        ({"logprobs": True}, "logprobs"),
        ({"n": 2}, "n"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"temperature": 1.5}, "temperature"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format.json_object"),
        ({"guided_regex": "a+"}, "guided_regex"),
    ],
)
def test_c33_c34_what_messages_cannot_carry_is_named(fields: dict[str, Any], feature: str) -> None:
    conversation = CHAT.conversation(chat(**fields))
    assert untranslatable(conversation, "anthropic_messages") == (feature,)
    assert untranslatable(conversation, "openai_chat") == ()
    with pytest.raises(RequestError) as caught:
        MESSAGES.body(conversation, model="up", stream=False)
    assert (caught.value.code, caught.value.param) == ("untranslatable", feature)


def test_c33_unknown_fields_are_kept_in_their_own_dialect() -> None:
    conversation = CHAT.conversation(chat(guided_regex="a+", min_p=0.1))
    sent = to(CHAT, conversation)
    assert (sent["guided_regex"], sent["min_p"]) == ("a+", 0.1)


def test_c33_hints_that_a_translation_leaves_out_are_listed() -> None:
    conversation = CHAT.conversation(chat(store=False, prompt_cache_key="k", service_tier="auto"))
    assert left_out(conversation, "anthropic_messages") == (
        "prompt_cache_key",
        "service_tier",
        "store",
    )
    assert left_out(conversation, "openai_chat") == ()


def test_c33_needs_alone_name_what_a_target_lacks() -> None:
    request = CHAT.request(chat(seed=1, n=2))
    assert untranslatable(request, "anthropic_messages") == ("n", "seed")
    assert untranslatable(request, "openai_chat") == ()
    embeddings = EMBEDDINGS.request(b'{"model":"m","input":"x"}')
    assert untranslatable(embeddings, "openai_chat") != ()


def test_c34_developer_and_system_messages_keep_their_rank() -> None:
    body = chat(messages=[{"role": "developer", "content": "be brief"}, *USER], stop=["a", "b"])
    sent = to(MESSAGES, CHAT.conversation(body))
    assert sent["system"] == [{"type": "text", "text": "be brief"}]
    assert sent["stop_sequences"] == ["a", "b"]
    assert [turn["role"] for turn in sent["messages"]] == ["user"]


def tool_use(call_id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "f", "input": {"x": 1}}


def test_c26_results_become_tool_messages_and_pictures_follow_them() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    turns = [
        *USER,
        {"role": "assistant", "content": [tool_use("a"), tool_use("b")]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "content": [{"type": "text", "text": "broken"}],
                    "is_error": True,
                },
                {
                    "type": "tool_result",
                    "tool_use_id": "a",
                    "content": [{"type": "text", "text": "see"}, image],
                },
                {"type": "text", "text": "go on"},
            ],
        },
    ]
    sent = to(CHAT, MESSAGES.conversation(messages(messages=turns)))["messages"]
    assert [m["role"] for m in sent] == ["user", "assistant", "tool", "tool", "user"]
    assert [(m["tool_call_id"], m["content"]) for m in sent[2:4]] == [
        ("b", "Error: broken"),
        ("a", "see"),
    ]
    assert [part["type"] for part in sent[4]["content"]] == ["image_url", "text"]


def test_c26_tool_messages_become_one_user_turn_that_they_open() -> None:
    calls = [
        {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for call_id in ("functions.f:0", "b")
    ]
    turns = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "user", "content": "and now?"},
    ]
    sent = to(MESSAGES, CHAT.conversation(chat(messages=turns)))["messages"]
    assert [turn["role"] for turn in sent] == ["user", "assistant", "user"]
    assert [block["id"] for block in sent[1]["content"]] == ["functions_f_0", "b"]
    assert [block["type"] for block in sent[2]["content"]] == ["tool_result", "tool_result", "text"]
    assert sent[2]["content"][0]["tool_use_id"] == "functions_f_0"


@pytest.mark.parametrize("arguments", ['{"x": ', "not json", "[1]", ""])
def test_c27_malformed_tool_json_in_a_history_is_carried(arguments: str) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    body = chat(messages=[*USER, {"role": "assistant", "content": None, "tool_calls": [call]}])
    assert CHAT.request(body).model == "m"
    conversation = CHAT.conversation(body)
    assert isinstance(conversation.messages[1].parts[0], ToolCallPart)
    block = to(MESSAGES, conversation)["messages"][1]["content"][0]
    assert isinstance(block["input"], dict)
    if arguments:
        assert block["input"] == {"malformed_json": arguments}
    sent = to(CHAT, conversation)["messages"][1]["tool_calls"][0]
    assert sent["function"]["arguments"] == arguments


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "sig"}
SEALED = {"type": "redacted_thinking", "data": "xyz"}
TEXT = {"type": "text", "text": "so"}


def test_c30_signed_thinking_is_kept_in_its_dialect_and_stripped_on_a_change() -> None:
    turns = [*USER, {"role": "assistant", "content": [THOUGHT, SEALED, TEXT]}, *USER]
    conversation = MESSAGES.conversation(messages(messages=turns))
    assert to(MESSAGES, conversation)["messages"][1]["content"] == [THOUGHT, SEALED, TEXT]
    assert to(CHAT, conversation)["messages"][1] == {"role": "assistant", "content": "so"}
    stripped = unsigned(conversation)
    assert not any(isinstance(p, ReasoningPart) for m in stripped.messages for p in m.parts)
    assert to(MESSAGES, stripped)["messages"][1]["content"] == [TEXT]


def test_c30_thinking_that_no_signature_vouches_for_is_not_sent() -> None:
    ours = {"type": "thinking", "thinking": "hm", "signature": ""}
    turns = [*USER, {"role": "assistant", "content": [ours, TEXT]}, *USER]
    request = MESSAGES.request(messages(messages=turns))
    passed = json.loads(MESSAGES.rewrite(request.body, request, model="up"))
    assert passed["messages"][1]["content"] == [TEXT]


def test_c32_pictures_and_documents_are_carried_both_ways() -> None:
    pdf = {"type": "file", "file": {"file_data": "data:application/pdf;base64,QQ==",
                                    "filename": "a.pdf"}}  # fmt: skip
    url = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    body = chat(messages=[{"role": "user", "content": [IMAGE, url, pdf]}])
    conversation = CHAT.conversation(body)
    sent = to(MESSAGES, conversation)
    kinds = [(b["type"], b["source"]["type"]) for b in sent["messages"][0]["content"]]
    assert kinds == [("image", "base64"), ("image", "url"), ("document", "base64")]
    back = to(CHAT, MESSAGES.conversation(json.dumps({**sent, "max_tokens": 1}).encode()))
    assert back["messages"][0]["content"] == [IMAGE, url, pdf]


def test_c32_a_document_by_url_cannot_become_chat() -> None:
    block = {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}
    body = messages(messages=[{"role": "user", "content": [block]}])
    assert "documents" in MESSAGES.request(body).needs
    conversation = MESSAGES.conversation(body)
    assert untranslatable(conversation, "openai_chat") == ("document_url",)


def test_c25_a_forced_choice_is_carried_or_named() -> None:
    choice = {"type": "function", "function": {"name": "f"}}
    body = chat(tools=[FUNCTION], tool_choice=choice, parallel_tool_calls=False)
    sent = to(MESSAGES, CHAT.conversation(body))
    assert sent["tool_choice"] == {
        "type": "tool",
        "name": "f",
        "disable_parallel_tool_use": True,
    }
    back = to(CHAT, MESSAGES.conversation(json.dumps(sent).encode()))
    assert (back["tool_choice"], back["parallel_tool_calls"]) == (choice, False)


def test_c24_a_hundred_and_twenty_eight_tools_are_carried() -> None:
    tools = [
        {"type": "function", "function": {"name": f"wëtter_{i}", "parameters": {}}}
        for i in range(128)
    ]
    sent = to(MESSAGES, CHAT.conversation(chat(tools=tools)))
    assert [tool["name"] for tool in sent["tools"]] == [f"wëtter_{i}" for i in range(128)]


def test_c36_count_tokens_reads_the_same_prompt() -> None:
    body = json.dumps({"model": "m", "system": "abc", "messages": USER}).encode()
    request = COUNT_TOKENS.request(body)
    assert request.prompt_bytes == 5
    assert request.needs == {"count_tokens"}
    assert "max_tokens" not in to(COUNT_TOKENS, COUNT_TOKENS.conversation(body))
    assert COUNT_TOKENS.count_body(7) == b'{"input_tokens":7}'


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ["a", "b"]},
        {"prompt": [1, 2, 3]},
        {"prompt": "a", "suffix": "b"},
        {"prompt": "a", "echo": True},
        {"prompt": "a", "logprobs": 1},
        {"prompt": "a", "best_of": 2},
    ],
    ids=str,
)
def test_completions_that_no_chat_can_answer_need_the_endpoint(fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", **fields}).encode()
    request = COMPLETIONS.request(body)
    assert "completions" in request.needs
    assert untranslatable(request, "openai_chat") == ("prompt",)
    with pytest.raises(RequestError) as caught:
        COMPLETIONS.conversation(body)
    assert caught.value.code == "untranslatable"


def test_a_plain_completion_can_be_answered_by_a_chat() -> None:
    body = json.dumps({"model": "m", "prompt": "a", "stop": "x", "max_tokens": 4}).encode()
    assert COMPLETIONS.request(body).needs == {"chat"}
    sent = to(CHAT, COMPLETIONS.conversation(body))
    assert sent == {
        "model": "up",
        "messages": [{"role": "user", "content": "a"}],
        "max_tokens": 4,
        "stop": ["x"],
    }


def test_rewrite_lets_the_last_of_duplicate_keys_win() -> None:
    body = b'{"model":"a","messages":[{"role":"user","content":"x"}],"model":"b"}'
    request = CHAT.request(body)
    assert request.model == "b"
    passed = CHAT.rewrite(body, request, model="up")
    assert passed.count(b'"model"') == 1
    assert json.loads(passed)["model"] == "up"


def test_rewrite_leaves_the_bytes_of_other_fields_alone() -> None:
    body = b'{"model":"m","messages":[{"role":"user",  "content":"\\u00e9"}],"temperature":1.0e0}'
    passed = CHAT.rewrite(body, CHAT.request(body), model="up")
    assert b'[{"role":"user",  "content":"\\u00e9"}]' in passed
    assert b"1.0e0" in passed
    assert CHAT.rewrite(body, CHAT.request(body), model="m", drop_labels=False) is body
