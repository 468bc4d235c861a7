"""Probes against the real engine, and against servers that cut prompts or refuse."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from locavore.core.backend import Backend, Place
from locavore.engines import probe
from locavore.engines.ask import AskError
from locavore.engines.embedded import EmbeddedEngine
from locavore.engines.test_model import CALLING_TEMPLATE, tool_call, write_test_model
from locavore.engines.truncation import truncated
from locavore.engines.weights import InstalledModel, sha256_of

if TYPE_CHECKING:
    from tests.engines.conftest import Client

pytestmark = pytest.mark.anyio

Chat = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


@pytest.fixture
def serve() -> Iterator[Callable[[Chat], Backend]]:
    running = []

    def begin(chat: Chat) -> Backend:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                is_chat = self.path == "/v1/chat/completions"
                status, answer = chat(body) if is_chat else (404, {"error": {}})
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        running.append(server)
        return Backend(
            id="ollama/m",
            provider="ollama",
            model="m",
            url=f"http://127.0.0.1:{server.server_port}/v1",
            dialect="openai",
            place=Place.ON_PREM,
            context_tokens=32_768,
            capabilities=frozenset({"chat", "logprobs"}),
        )

    yield begin
    for server in running:
        server.shutdown()
        server.server_close()


def _answer(text: str, prompt_tokens: int | None) -> tuple[int, dict[str, Any]]:
    usage = {} if prompt_tokens is None else {"usage": {"prompt_tokens": prompt_tokens}}
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}], **usage}


def _words(body: dict[str, Any]) -> int:
    return str(body["messages"][0]["content"]).count(probe.WORD)


async def test_what_the_embedded_engine_does(client: "Client") -> None:
    backend = msgspec.structs.replace(client.model.backend, context_tokens=4096, quirks=frozenset())
    headers = {name.decode(): value.decode() for name, value in client.model.headers}
    findings = await probe.probe(backend, headers=headers)
    can = {"chat", "json_schema", "json_object", "logprobs", "choices", "embeddings"}
    assert findings.capabilities == can
    assert findings.lacks == {"vision", "tool_choice"}  # it only ever says its sentence
    assert findings.context_tokens
    assert 4096 - 200 < findings.context_tokens <= 4096
    assert not findings.context_is_limit
    assert not findings.truncates
    assert findings.prefill_tokens_s


async def test_a_model_that_calls_tools(engine: EmbeddedEngine, tmp_path: Path) -> None:
    path = tmp_path / "caller.gguf"
    write_test_model(path, tool_call("weather", '{"city": "Oslo"}'), template=CALLING_TEMPLATE)
    model = InstalledModel(name="caller", path=path, sha256=sha256_of(path), bytes=1, source="file")
    running = await engine.start(model, context_tokens=2048, parallel=1)
    headers = {name.decode(): value.decode() for name, value in running.headers}
    backend = msgspec.structs.replace(running.backend, quirks=frozenset(), context_tokens=None)
    findings = await probe.probe(backend, headers=headers)
    assert {"tools", "tool_choice"} <= findings.capabilities
    assert findings.context_is_limit  # 2048 tokens were refused, half of them were read
    assert findings.context_tokens
    assert 1024 - 64 < findings.context_tokens < 2048
    await engine.stop("caller")


async def test_c40_an_engine_that_cuts_prompts_is_caught(
    serve: Callable[[Chat], Backend],
) -> None:
    backend = serve(lambda body: _answer("ok", min(4096, 20 + 2 * _words(body))))
    findings = await probe.probe(backend)
    assert findings.truncates
    assert findings.context_is_limit
    assert findings.context_tokens == 4096
    assert "cut a prompt" in findings.notes[-1]
    assert probe.applied(backend, findings).context_tokens == 4096


async def test_c40_an_engine_that_refuses_is_honest(serve: Callable[[Chat], Backend]) -> None:
    def chat(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        tokens = 20 + _words(body)
        return _answer("ok", tokens) if tokens <= 8192 else (400, {"error": {"message": "long"}})

    findings = await probe.probe(serve(chat))
    assert not findings.truncates
    assert findings.context_is_limit
    assert findings.context_tokens == 8192


async def test_no_count_no_claim(serve: Callable[[Chat], Backend]) -> None:
    findings = await probe.probe(serve(lambda _body: _answer("ok", None)))
    assert findings.context_tokens is None
    assert "cannot be measured" in findings.notes[-1]


async def test_told_and_seen_differ_and_seen_wins(serve: Callable[[Chat], Backend]) -> None:
    backend = serve(lambda body: _answer('{"shade": "teal-7"}', 20 + _words(body)))
    real = probe.applied(backend, await probe.probe(backend, budget_s=0))
    assert "logprobs" in real.lacks
    assert not real.can("logprobs")
    assert real.can("json_schema")
    assert "tools" not in real.capabilities | real.lacks  # a text instead of a call proves nothing
    assert "embeddings" in real.lacks


async def test_an_engine_that_does_not_work_is_an_error(serve: Callable[[Chat], Backend]) -> None:
    with pytest.raises(AskError, match="answers 500"):
        await probe.probe(serve(lambda _body: (500, {"error": "no"})))


async def test_findings_are_kept_for_exactly_this_build(
    serve: Callable[[Chat], Backend], tmp_path: Path
) -> None:
    backend = serve(lambda body: _answer("red", 20 + _words(body)))
    assert probe.load(tmp_path, backend) is None
    result = await probe.probe_all([(backend, {})], tmp_path)
    assert probe.load(tmp_path, backend) == result[backend.id]
    assert probe.load(tmp_path, msgspec.structs.replace(backend, engine_build="new")) is None


@pytest.mark.parametrize(
    ("low", "reported", "cut"),
    [
        (1000, 999, True),
        (1000, 1000, False),
        (1000, 5000, False),
        (1000, None, False),
        (0, 0, False),
        (1000, 0, False),
    ],
)
def test_c40_the_rule(low: float, reported: int | None, cut: bool) -> None:
    assert truncated(low, reported) is cut
