"""Local servers found by their metadata: loopback servers that answer with the real shapes."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from locavore.core.backend import Backend, Capability, Place
from locavore.engines import discover, quirks, servers

if TYPE_CHECKING:
    from tests.engines.conftest import Client

pytestmark = pytest.mark.anyio

# Shapes as the projects document them; values are made up.
OLLAMA: dict[str, Any] = {
    "/api/version": {"version": "0.12.11"},
    "/api/tags": {
        "models": [
            {"name": "qwen3:8b", "model": "qwen3:8b", "size": 1, "details": {"format": "gguf"}},
            {"name": "llava:7b", "model": "llava:7b", "size": 1, "details": {}},
            {"name": "nomic-embed-text:latest", "size": 1, "details": {}},
            {
                "name": "qwen3-coder:480b-cloud",
                "remote_model": "qwen3-coder:480b",
                "remote_host": "https://ollama.com:443",
                "size": 382,
                "details": {},
            },
        ]
    },
    "/api/ps": {"models": [{"name": "qwen3:8b", "size_vram": 1, "context_length": 16384}]},
    "/api/show": {
        "qwen3:8b": {
            "parameters": "stop    <|im_end|>\nnum_ctx    8192",
            "capabilities": ["completion", "tools", "thinking"],
            "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40960},
        },
        "llava:7b": {
            "parameters": "num_ctx 99999",
            "capabilities": ["completion", "vision"],
            "model_info": {"general.architecture": "llama", "llama.context_length": 32768},
        },
        "nomic-embed-text:latest": {
            "capabilities": ["embedding"],
            "model_info": {"general.architecture": "nomic", "nomic.context_length": 2048},
        },
        "qwen3-coder:480b-cloud": {"capabilities": ["completion", "tools"], "model_info": {}},
    },
}
VLLM = {
    "/version": {"version": "0.11.0"},
    "/v1/models": {
        "object": "list",
        "data": [
            {"id": "qwen3-8b", "owned_by": "vllm", "root": "Qwen/Qwen3-8B", "max_model_len": 32768}
        ],
    },
}
SGLANG = {
    "/v1/models": {"data": [{"id": "qwen3-vl", "owned_by": "sglang", "max_model_len": 65536}]},
    "/get_model_info": {"model_path": "Qwen/Qwen3-VL", "has_image_understanding": True},
}
TGI = {
    "/info": {
        "model_id": "meta-llama/Llama-3.1-8B-Instruct",
        "max_input_tokens": 4095,
        "max_total_tokens": 4096,
        "version": "3.0.0",
        "router": "text-generation-router",
    },
    "/v1/models": {"data": [{"id": "meta-llama/Llama-3.1-8B-Instruct", "owned_by": "x"}]},
}
LLAMA_CPP = {
    "/v1/models": {"data": [{"id": "qwen3", "owned_by": "llamacpp", "meta": {"n_ctx": 8192}}]},
    "/props": {
        "default_generation_settings": {"n_ctx": 2048},
        "total_slots": 4,
        "build_info": "b7012-abc",
        "modalities": {"vision": False, "audio": False},
        "chat_template_caps": {"supports_tools": True},
    },
}
LM_STUDIO = {
    "/api/v1/models": {
        "models": [
            {
                "type": "llm",
                "key": "qwen/qwen3-8b",
                "loaded_instances": [{"id": "qwen/qwen3-8b", "config": {"context_length": 4096}}],
                "max_context_length": 40960,
                "capabilities": {"vision": False, "trained_for_tool_use": True},
            },
            {
                "type": "embedding",
                "key": "nomic-embed",
                "loaded_instances": [],
                "max_context_length": 2048,
            },
        ]
    }
}
LM_STUDIO_OLD = {
    "/api/v0/models": {
        "data": [
            {
                "id": "qwen2-vl",
                "type": "vlm",
                "state": "loaded",
                "max_context_length": 32768,
                "loaded_context_length": 8000,
                "capabilities": ["tool_use"],
            }
        ]
    }
}
LOCALAI = {
    "/system": {"backends": ["llama-cpp"], "loaded_models": []},
    "/v1/models": {"data": [{"id": "phi-4", "object": "model"}]},
}


class Server(ThreadingHTTPServer):
    request_queue_size = 64  # all kinds are asked at once


Start = Callable[[dict[str, Any]], int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server that answers GET with the JSON of its path, and nothing else; its port."""
    running = []

    def begin(answers: dict[str, Any]) -> int:
        server = Server(("127.0.0.1", 0), _handler(answers))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        running.append(server)
        return server.server_port

    yield begin
    for server in running:
        server.shutdown()
        server.server_close()


def _handler(answers: dict[str, Any]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._give(answers.get(self.path))

        def do_POST(self) -> None:
            assert self.path == "/api/show", f"{self.path} is no metadata endpoint"
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._give(answers["/api/show"].get(body["model"]))

        def _give(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(404 if value is None else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    return Handler


async def _look(port: int, name: str, **env: str) -> tuple[dict[str, Backend], str]:
    """Search every kind of server at that one port, so that only the right one may answer."""
    ports = dict.fromkeys(discover.rows(), (port,))
    found = await discover.discover(env, ports=ports, timeout_s=5)
    assert {backend.provider for backend in found.backends} == {name}
    return {backend.model: backend for backend in found.backends}, " ".join(found.messages)


def test_every_row_has_a_reader_and_speaks_our_vocabulary() -> None:
    assert set(discover.rows()) == set(servers.READERS)
    for row in discover.rows().values():
        assert row.capabilities | row.lacks <= set(Capability)
        assert row.quirks <= set(quirks.MEANING)
        assert row.ports
        assert row.source.startswith("https://")


async def test_ollama_tells_the_window_a_call_gets(start: Start) -> None:
    models, notes = await _look(start(OLLAMA), "ollama")
    qwen = models["qwen3:8b"]
    assert qwen.id == "ollama/qwen3:8b"
    assert qwen.context_tokens == 16384  # as loaded, whatever its Modelfile says
    assert models["llava:7b"].context_tokens == 32768  # num_ctx cannot exceed what it was made for
    assert models["nomic-embed-text:latest"].context_tokens == 2048
    assert {"tools", "chat", "reasoning"} <= qwen.capabilities
    assert {"vision", "embeddings", "tool_choice"} <= qwen.lacks
    assert models["nomic-embed-text:latest"].capabilities == {"embeddings"}
    assert qwen.engine_build == "ollama 0.12.11"
    assert "2,048 tokens is assumed" in notes


async def test_c40_an_unloaded_ollama_model_is_taken_for_its_smallest_default(start: Start) -> None:
    shown = {"model_info": {"general.architecture": "q", "q.context_length": 131072}}
    answers = {
        **OLLAMA,
        "/api/tags": {"models": [{"name": "big"}]},
        "/api/ps": {"models": []},
        "/api/show": {"big": shown},
    }
    port = start(answers)
    models, notes = await _look(port, "ollama")
    assert models["big"].context_tokens == 4096
    assert "OLLAMA_CONTEXT_LENGTH" in notes
    models, notes = await _look(port, "ollama", OLLAMA_CONTEXT_LENGTH="64000")
    assert models["big"].context_tokens == 64000
    assert notes == ""


async def test_c91_a_cloud_model_behind_ollama_is_no_local_model(start: Start) -> None:
    models, _ = await _look(start(OLLAMA), "ollama")
    cloud = models["qwen3-coder:480b-cloud"]
    assert cloud.place is Place.PUBLIC_API
    assert cloud.price is None
    assert models["qwen3:8b"].place is Place.ON_PREM
    assert models["qwen3:8b"].price
    assert models["qwen3:8b"].price.source == "free"


async def test_vllm(start: Start) -> None:
    models, _ = await _look(start(VLLM), "vllm")
    backend = models["qwen3-8b"]
    assert backend.context_tokens == 32768
    assert backend.engine_build == "vllm 0.11.0"
    assert backend.url.endswith("/v1")
    assert "tools" not in backend.capabilities | backend.lacks  # a start option; a probe tells


async def test_sglang(start: Start) -> None:
    models, _ = await _look(start(SGLANG), "sglang")
    assert models["qwen3-vl"].context_tokens == 65536
    assert models["qwen3-vl"].can("vision")


async def test_tgi(start: Start) -> None:
    models, _ = await _look(start(TGI), "tgi")
    assert models["meta-llama/Llama-3.1-8B-Instruct"].context_tokens == 4096


async def test_llama_cpp_tells_the_window_of_one_slot(start: Start) -> None:
    models, _ = await _look(start(LLAMA_CPP), "llama_cpp")
    assert models["qwen3"].context_tokens == 2048
    assert models["qwen3"].can("tool_choice")
    assert "vision" in models["qwen3"].lacks
    assert quirks.FORCE_TOOLS_BY_SCHEMA in models["qwen3"].quirks


async def test_lm_studio_new_and_old(start: Start) -> None:
    models, _ = await _look(start(LM_STUDIO), "lm_studio")
    assert models["qwen/qwen3-8b"].context_tokens == 4096
    assert models["qwen/qwen3-8b"].can("tools")
    assert models["nomic-embed"].capabilities == {"embeddings"}
    models, _ = await _look(start(LM_STUDIO_OLD), "lm_studio")
    assert models["qwen2-vl"].context_tokens == 8000
    assert models["qwen2-vl"].can("vision")


async def test_localai(start: Start) -> None:
    models, _ = await _look(start(LOCALAI), "localai")
    assert models["phi-4"].context_tokens is None


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"/v1/models": {"data": [{"id": "gpt-4", "owned_by": "openai"}]}},
        {"/v1/models": {"data": "x"}, "/api/version": [], "/info": {"model_id": 3}, "/system": 1},
        {"/v1/models": {"data": [{"id": "a", "owned_by": "vllm"}, {"id": "b"}]}},
    ],
)
async def test_what_is_not_recognised_is_not_used(start: Start, answers: dict[str, Any]) -> None:
    ports = dict.fromkeys(discover.rows(), (start(answers),))
    found = await discover.discover({}, ports=ports, timeout_s=5)
    assert found == discover.Discovery()


async def test_our_own_listener_is_never_found(start: Start) -> None:
    port = start(VLLM)
    found = await discover.discover({}, ports={"vllm": (port,)}, own_port=port)
    assert found.backends == ()


async def test_two_servers_with_one_model_have_two_names(start: Start) -> None:
    one, two = start(VLLM), start(VLLM)
    found = await discover.discover({}, ports={"vllm": (one, two)}, timeout_s=5)
    assert [backend.id for backend in found.backends] == ["vllm/qwen3-8b", f"vllm/qwen3-8b@{two}"]


async def test_an_address_variable_adds_a_loopback_port(start: Start) -> None:
    env = {"OLLAMA_HOST": f"0.0.0.0:{start(OLLAMA)}"}
    found = await discover.discover(env, ports={}, timeout_s=5)
    assert len(found.backends) == 4


async def test_an_address_elsewhere_is_told_and_not_followed() -> None:
    found = await discover.discover({"OLLAMA_HOST": "http://10.1.2.3:11434"}, ports={})
    assert found.backends == ()
    assert 'url = "http://10.1.2.3:11434/v1"' in found.messages[0]


async def test_a_configured_url_is_identified(start: Start) -> None:
    port = start(SGLANG)
    found = await discover.identify(f"http://127.0.0.1:{port}/v1/", {})
    assert found.backends[0].provider == "sglang"
    found = await discover.identify("http://127.0.0.1:9/v1", {})
    assert "no known server" in found.messages[0]


async def test_a_real_llama_cpp_is_recognised(client: "Client") -> None:
    async def get(path: str, body: Any = None) -> Any:
        answer = await client.get(path)
        return answer.json() if answer.status == 200 else None

    (served,) = await servers.llama_cpp(get, None) or []
    assert served.model == "test"
    assert served.context_tokens == client.model.context_tokens
    assert "tools" in served.capabilities | served.lacks
    for name in ("ollama", "vllm", "sglang", "tgi", "lm_studio", "localai"):
        assert await servers.READERS[name](get, None) is None
