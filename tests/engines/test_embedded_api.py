"""The built-in test model in the real engine, through the engine's HTTP API."""

import asyncio
import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from locavore.core.errors import Fault
from locavore.engines.ask import ask
from locavore.engines.embedded import EmbeddedEngine, RunningModel
from locavore.engines.test_model import CALLING_TEMPLATE, SENTENCE, tool_call, write_test_model
from locavore.engines.weights import InstalledModel, sha256_of
from locavore.wire.openai_chat.errors import upstream_error

if TYPE_CHECKING:
    from tests.engines.conftest import Client

pytestmark = pytest.mark.anyio

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "code": {"type": "string", "minLength": 3, "maxLength": 5},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "ok": {"type": "boolean"},
        "kind": {"enum": ["alpha", "beta"]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "inner": {
            "type": "object",
            "properties": {"none": {"type": "null"}},
            "required": ["none"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "code", "count", "ratio", "ok", "kind", "tags", "inner"],
    "additionalProperties": False,
}


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


async def _post(running: RunningModel, body: dict[str, Any]) -> Any:
    answer = await ask(
        "http://engine/v1/chat/completions",
        {"messages": [{"role": "user", "content": "hi"}], **body},
        headers={"authorization": f"Bearer {running.api_key}"},
        timeout_s=30,
        socket_path=str(running.socket_path),
    )
    return answer.json()


def _text(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize("temperature", [0, 0.8, 2])
async def test_the_answer_is_known_at_any_temperature(client: "Client", temperature: float) -> None:
    answer = await client.chat("What are you?", temperature=temperature)
    assert _text(answer) == SENTENCE
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["model"] == "test"


async def test_a_conversation_with_parts_and_history_gives_the_same_answer(
    client: "Client",
) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": SENTENCE},
        {"role": "user", "content": "And {this}?"},
    ]
    answer = (await client.post("/v1/chat/completions", {"messages": messages})).json()
    assert _text(answer) == SENTENCE


async def test_plain_completions(client: "Client") -> None:
    answer = await client.post("/v1/completions", {"prompt": "Say it:", "max_tokens": 200})
    assert answer.json()["choices"][0]["text"] == SENTENCE


async def test_streamed_pieces_join_to_the_answer_and_end_with_usage(client: "Client") -> None:
    body = {
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    answer = await client.post("/v1/chat/completions", body)
    lines = [line for line in answer.body.decode().split("\n") if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line[6:]) for line in lines[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == SENTENCE
    assert sum(bool(delta.get("content")) for delta in deltas) > 10
    assert chunks[-1]["usage"]["completion_tokens"] == 15


async def test_stop_ends_before_the_word(client: "Client") -> None:
    answer = await client.chat(stop=["test model"])
    assert _text(answer) == SENTENCE.partition("test model")[0]
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_max_tokens_ends_with_length(client: "Client") -> None:
    answer = await client.chat(max_tokens=2)
    assert _text(answer) == "This is"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


async def test_logprobs_are_certain(client: "Client") -> None:
    answer = await client.chat(logprobs=True, top_logprobs=2, max_tokens=3)
    rows = answer["choices"][0]["logprobs"]["content"]
    assert [row["token"] for row in rows] == ["This", " is", " Locavore's"]
    assert all(row["logprob"] == 0 and len(row["top_logprobs"]) == 2 for row in rows)


async def test_several_choices(client: "Client") -> None:
    answer = await client.chat(n=2)
    assert [choice["message"]["content"] for choice in answer["choices"]] == [SENTENCE] * 2


async def test_json_schema_is_obeyed_and_short(client: "Client") -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "row", "schema": SCHEMA}}
    answer = await client.chat(response_format=wanted, max_tokens=2000)
    assert answer["choices"][0]["finish_reason"] == "stop"
    value = json.loads(_text(answer))
    assert set(value) == set(SCHEMA["required"])
    assert value["name"] == SENTENCE
    assert 3 <= len(value["code"]) <= 5
    assert isinstance(value["count"], int)
    assert value["kind"] in ("alpha", "beta")
    assert len(value["tags"]) >= 2
    assert value["inner"] == {"none": None}


async def test_tools_do_not_change_what_it_says(client: "Client") -> None:
    answer = await client.chat(tools=[TOOL])
    assert _text(answer) == SENTENCE


@pytest.mark.parametrize("choice", ["auto", "required"])
async def test_a_model_that_calls_tools_gives_parsed_calls(
    engine: EmbeddedEngine, tmp_path: Path, choice: str
) -> None:
    path = tmp_path / "caller.gguf"
    write_test_model(path, tool_call("weather", '{"city": "Paris"}'), template=CALLING_TEMPLATE)
    model = InstalledModel(
        name=f"caller-{choice}", path=path, sha256=sha256_of(path), bytes=1, source="file"
    )
    running = await engine.start(model, context_tokens=4096, parallel=1)
    answer = await _post(running, {"tools": [TOOL], "tool_choice": choice})
    (choice_,) = answer["choices"]
    assert choice_["finish_reason"] == "tool_calls"
    (call,) = choice_["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    await engine.stop(model.name)


async def test_json_object_closes_at_once(client: "Client") -> None:
    answer = await client.chat(response_format={"type": "json_object"}, max_tokens=2000)
    assert json.loads(_text(answer)) == {}


async def test_embeddings_depend_on_the_text_and_have_length_one(client: "Client") -> None:
    answer = await client.post("/v1/embeddings", {"input": ["a cat", "a cat", "dogs bark"]})
    vectors = [row["embedding"] for row in answer.json()["data"]]
    assert vectors[0] == vectors[1]
    assert vectors[0] != vectors[2]
    assert sum(x * x for x in vectors[2]) == pytest.approx(1, abs=1e-5)


async def test_parallel_requests_share_the_whole_context(client: "Client") -> None:
    """C122: each of four slots holds the context that was asked for, not a quarter of it."""
    slots = (await client.get("/slots")).json()
    assert [slot["n_ctx"] for slot in slots] == [client.model.context_tokens] * 4
    answers = await asyncio.gather(*(client.chat(f"number {i}") for i in range(12)))
    assert {_text(answer) for answer in answers} == {SENTENCE}


async def test_c36_count_tokens_is_the_count_the_engine_bills(client: "Client") -> None:
    messages = [{"role": "user", "content": "Grüße aus Köln, 你好"}]
    counted = await client.post("/v1/messages/count_tokens", {"messages": messages})
    answered = await client.chat(messages[0]["content"])
    # The engine's own count must be what usage reports, to the token.
    assert counted.json()["input_tokens"] == answered["usage"]["prompt_tokens"]


async def test_c41_a_prompt_over_the_context_is_refused_with_its_numbers(client: "Client") -> None:
    tokens = client.model.context_tokens
    answer = await client.chat("x" * (tokens + 1))
    assert answer["error"]["type"] == "exceed_context_size_error"
    assert answer["error"]["n_ctx"] == tokens
    assert answer["error"]["n_prompt_tokens"] > tokens


async def test_c41_the_engines_overflow_is_recognised(client: "Client") -> None:
    body = {"messages": [{"role": "user", "content": "x" * (client.model.context_tokens + 1)}]}
    answer = await client.post("/v1/chat/completions", body)
    error = upstream_error(answer.status, (), answer.body, "embedded/test")
    assert error.fault is Fault.CONTEXT_OVERFLOW
    assert error.elsewhere_may_help


async def test_a_client_that_leaves_frees_its_slot(client: "Client") -> None:
    body = msgspec.json.encode(
        {"prompt": "x", "stream": True, "ignore_eos": True, "n_predict": 100_000}
    )
    reader, writer = await asyncio.open_unix_connection(str(client.model.socket_path))
    writer.write(
        b"POST /completion HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
        + client.model.api_key.encode()
        + b"\r\ncontent-length: %d\r\n\r\n" % len(body)
        + body
    )
    assert b"200 OK" in await reader.readuntil(b"data: ")
    assert await _busy(client)
    writer.close()
    async with asyncio.timeout(20):
        while await _busy(client):  # noqa: ASYNC110 - the engine announces nothing
            await asyncio.sleep(0.02)


async def _busy(client: "Client") -> bool:
    return any(slot["is_processing"] for slot in (await client.get("/slots")).json())


async def test_nobody_without_the_key_gets_in(client: "Client") -> None:
    assert (await client.get("/v1/models", key="wrong")).status == 401
    assert (await client.get("/slots", key="wrong")).status == 401


async def test_browsers_are_told_nothing(client: "Client") -> None:
    answer = await client.get("/v1/models")
    assert answer.headers.get("access-control-allow-origin", "") == ""
    assert (await client.get("/")).status == 404


async def test_socket_and_folder_are_private(client: "Client") -> None:
    path = client.model.socket_path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_the_backend_says_what_it_is(client: "Client", engine: EmbeddedEngine) -> None:
    backend = client.model.backend
    assert backend.id == "embedded/test"
    assert backend.is_test
    assert backend.context_tokens == client.model.context_tokens
    assert backend.can("json_schema")
    assert backend.can("tool_choice")
    assert "force_tools_by_schema" in backend.quirks
    assert backend.engine_build
    assert backend.engine_build.startswith("xllamacpp ")
    assert backend.price
    assert backend.price.source == "free"
    assert engine.running == (client.model,)


async def test_a_text_of_a_thousand_tokens_can_be_embedded(client: "Client") -> None:
    answer = await client.post("/v1/embeddings", {"input": "x" * 1000})
    assert answer.json()["usage"]["prompt_tokens"] == 1000
