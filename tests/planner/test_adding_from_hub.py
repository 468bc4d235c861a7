"""A model added from a hub: config.json, or the head of a GGUF file through a range request."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from locavore.catalog.load import load
from locavore.core.errors import ConfigError
from locavore.planner import adding
from locavore.planner.speed_gguf import write_shape
from locavore.planner.tensors import parameters

CATALOG = load()
LLAMA = {
    "model_type": "llama", "hidden_size": 2048, "num_attention_heads": 32,
    "num_key_value_heads": 8, "num_hidden_layers": 16, "intermediate_size": 8192,
    "vocab_size": 128256, "max_position_embeddings": 131072, "head_dim": 64,
    "tie_word_embeddings": True,
}  # fmt: skip


class Hub(ThreadingHTTPServer):
    files: dict[str, bytes]
    ranges: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = self.path.removeprefix("/ours/model/resolve/main/")
        if self.path == "/api/models/ours/model":
            names = [{"rfilename": name} for name in self.server.files]
            body = json.dumps({"siblings": names, "cardData": {"license": "apache-2.0"}}).encode()
        elif path in self.server.files:
            body = self.server.files[path]
        else:
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        if asked:
            self.server.ranges.append(asked)
            start, end = asked.removeprefix("bytes=").split("-")
            body = body[int(start) : int(end) + 1]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(("127.0.0.1", 0), Handler)
    server.files, server.ranges = {}, []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_repository_with_a_config(hub: Hub, tmp_path: Path) -> None:
    hub.files["config.json"] = json.dumps(LLAMA).encode()
    model, _ = adding.add("ours/model", catalog=CATALOG, to=tmp_path)
    known = CATALOG.model("llama3.2:1b").shape
    assert known is not None
    assert model.shape is not None
    assert parameters(model.shape) == parameters(known)
    assert load(tmp_path).model("ours/model").license == "apache-2.0"


def test_only_the_head_of_a_gguf_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = CATALOG.model("qwen3:0.6b").shape
    assert shape is not None
    whole = tmp_path / "model-Q4_K_M.gguf"
    write_shape(whole, shape, "Q4_K_M")
    hub.files[whole.name] = whole.read_bytes()
    monkeypatch.setattr(adding, "HEAD_BYTES", 8 << 20)
    model, _ = adding.add("ours/model", catalog=CATALOG, to=tmp_path / "catalog")
    assert hub.ranges == [f"bytes=0-{(8 << 20) - 1}"]
    assert model.shape is not None
    assert parameters(model.shape) == parameters(shape)


def test_a_repository_without_either_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files["README.md"] = b""
    with pytest.raises(ConfigError, match=r"neither config\.json"):
        adding.add("ours/model", catalog=CATALOG, to=tmp_path)
    with pytest.raises(ConfigError, match="404"):
        adding.add("ours/nothing", catalog=CATALOG, to=tmp_path)
