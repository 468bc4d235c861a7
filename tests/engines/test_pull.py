"""`locavore pull` against a loopback hub that speaks the real endpoints."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from locavore.cli import main as cli
from locavore.core.errors import LocavoreError
from locavore.engines import hub, machine, pull
from locavore.engines.test_model import SENTENCE, build, write_test_model
from locavore.engines.weights import WeightsError, installed_models

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LoopbackHub:
    """Listing on one port, redirecting downloads to a second one, as the hub does to its CDN."""

    def __init__(self, content: bytes) -> None:
        self.files = {"Tiny-Q8_0.gguf": content, "Tiny-Q4_K_M.gguf": content + bytes(64)}
        self.sha256 = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        self.token: str | None = None
        self.cut_after: list[int] = []
        """For each download to come: bytes after which the connection breaks."""
        self.ranges: list[str | None] = []
        self.cdn_authorizations: list[str | None] = []
        self.ignore_ranges = False
        self.failing = 0
        self.cdn = _serve(self._cdn)
        self.hub = _serve(self._hub)
        self.url = f"http://127.0.0.1:{self.hub.server_port}"

    def close(self) -> None:
        for server in (self.cdn, self.hub):
            server.shutdown()
            server.server_close()

    def _hub(self, request: BaseHTTPRequestHandler) -> None:
        if self.token and request.headers["authorization"] != f"Bearer {self.token}":
            return _answer(request, 401, b'{"error":"Invalid username or password."}')
        path, _, query = request.path.partition("?")
        if path == "/api/models/org/Tiny-GGUF/revision/main" and query == "blobs=true":
            return _answer(request, 200, json.dumps(self._listing()).encode())
        prefix = f"/org/Tiny-GGUF/resolve/{COMMIT}/"
        if path.startswith(prefix) and path.removeprefix(prefix) in self.files:
            to = f"http://localhost:{self.cdn.server_port}/{path.removeprefix(prefix)}"
            return _answer(request, 302, b"", location=to)
        return _answer(request, 404, b'{"error":"Repository not found"}')

    def _listing(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = [{"rfilename": "README.md", "size": 3, "blobId": "x"}]
        for name, data in self.files.items():
            lfs = {"sha256": self.sha256[name], "size": len(data), "pointerSize": 130}
            rows.append({"rfilename": name, "size": len(data), "blobId": "y", "lfs": lfs})
        return {"id": "org/Tiny-GGUF", "sha": COMMIT, "siblings": rows}

    def _cdn(self, request: BaseHTTPRequestHandler) -> None:
        self.cdn_authorizations.append(request.headers["authorization"])
        if self.failing:
            self.failing -= 1
            return _answer(request, 503, b"busy")
        data, asked = self.files[request.path[1:]], request.headers["range"]
        self.ranges.append(asked)
        if asked and not self.ignore_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return _answer(request, 206, data[start:], cut=self._cut(), content_range=span)
        return _answer(request, 200, data, cut=self._cut())

    def _cut(self) -> int | None:
        return self.cut_after.pop(0) if self.cut_after else None


def _answer(
    request: BaseHTTPRequestHandler, status: int, body: bytes, cut: int | None = None, **more: str
) -> None:
    request.send_response(status)
    for name, value in more.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("content-length", str(len(body)))
    request.end_headers()
    request.wfile.write(body if cut is None else body[:cut])
    request.close_connection = True


def _serve(handle: Any) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            handle(self)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.fixture
def origin() -> Iterator[LoopbackHub]:
    server = LoopbackHub(build(["Hello", " there"], 4096))
    yield server
    server.close()


def _source(origin: LoopbackHub, **environment: str) -> hub.Hub:
    return hub.Hub({"HF_ENDPOINT": origin.url, **environment}, pause=lambda _seconds: None)


def _pull(origin: LoopbackHub, home: Path, text: str = "org/Tiny-GGUF:Q8_0", **more: str) -> Any:
    return pull.pull(pull.read_spec(text), home, _source(origin, **more), lambda _done, _all: None)


def test_a_quantization_is_found_pinned_and_kept(origin: LoopbackHub, tmp_path: Path) -> None:
    model = _pull(origin, tmp_path)
    assert model.name == "tiny-q8_0"
    assert model.path.read_bytes() == origin.files["Tiny-Q8_0.gguf"]
    assert model.sha256 == origin.sha256["Tiny-Q8_0.gguf"]
    assert model.revision == COMMIT
    assert model.source == "hub:org/Tiny-GGUF/Tiny-Q8_0.gguf"
    assert installed_models(tmp_path) == [model]


def test_without_a_file_the_usual_quantization_is_taken(
    origin: LoopbackHub, tmp_path: Path
) -> None:
    assert _pull(origin, tmp_path, "org/Tiny-GGUF").path.name == "Tiny-Q4_K_M.gguf"


def test_a_broken_connection_goes_on_where_it_stopped(origin: LoopbackHub, tmp_path: Path) -> None:
    origin.cut_after = [10_000, 5_000]
    model = _pull(origin, tmp_path)
    assert origin.ranges == [None, "bytes=10000-", "bytes=15000-"]
    assert model.path.read_bytes() == origin.files["Tiny-Q8_0.gguf"]


def test_a_part_from_an_earlier_run_is_used(origin: LoopbackHub, tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "tiny-q8_0"
    folder.mkdir(parents=True)
    (folder / "Tiny-Q8_0.gguf.part").write_bytes(origin.files["Tiny-Q8_0.gguf"][:12_345])
    _pull(origin, tmp_path)
    assert origin.ranges == ["bytes=12345-"]
    assert not list(folder.glob("*.part"))


def test_a_server_that_ignores_ranges_sends_everything_again(
    origin: LoopbackHub, tmp_path: Path
) -> None:
    origin.cut_after, origin.ignore_ranges = [10_000], True
    assert _pull(origin, tmp_path).sha256 == origin.sha256["Tiny-Q8_0.gguf"]


def test_a_hub_that_stays_down_keeps_what_is_here_and_says_so(
    origin: LoopbackHub, tmp_path: Path
) -> None:
    origin.cut_after = [10_000] + [0] * 20
    with pytest.raises(WeightsError, match=r"10,000 of .* bytes are kept"):
        _pull(origin, tmp_path)
    part = tmp_path / "weights" / "tiny-q8_0" / "Tiny-Q8_0.gguf.part"
    assert part.stat().st_size == 10_000


def test_a_busy_hub_is_asked_again(origin: LoopbackHub, tmp_path: Path) -> None:
    origin.failing = 3
    assert _pull(origin, tmp_path).sha256 == origin.sha256["Tiny-Q8_0.gguf"]


def test_content_that_does_not_match_is_deleted(origin: LoopbackHub, tmp_path: Path) -> None:
    origin.sha256["Tiny-Q8_0.gguf"] = "0" * 64
    with pytest.raises(WeightsError, match=r"expected 0{64}.*deleted"):
        _pull(origin, tmp_path)
    assert installed_models(tmp_path) == []
    assert not list((tmp_path / "weights" / "tiny-q8_0").iterdir())


def test_a_hub_without_hashes_is_refused(origin: LoopbackHub, tmp_path: Path) -> None:
    origin.sha256["Tiny-Q8_0.gguf"] = ""
    with pytest.raises(WeightsError, match="gives no SHA-256"):
        _pull(origin, tmp_path)


def test_a_pulled_model_is_not_fetched_again(origin: LoopbackHub, tmp_path: Path) -> None:
    spec = pull.read_spec("org/Tiny-GGUF:Q8_0")
    remote = _source(origin).find("org/Tiny-GGUF", "main", "Q8_0")
    pinned = msgspec.structs.replace(spec, remote=remote)
    first = pull.pull(pinned, tmp_path, _source(origin), lambda _done, _all: None)
    origin.ranges.clear()
    again = pull.pull(pinned, tmp_path, _source(origin), lambda _done, _all: None)
    assert again == first
    assert origin.ranges == []


def test_the_token_goes_to_the_hub_and_not_to_its_cdn(origin: LoopbackHub, tmp_path: Path) -> None:
    origin.token = "hf_canary"
    with pytest.raises(WeightsError, match="HF_TOKEN is not set"):
        _pull(origin, tmp_path)
    with pytest.raises(WeightsError, match="HF_TOKEN was refused") as caught:
        _pull(origin, tmp_path, HF_TOKEN="hf_wrong")
    assert "hf_wrong" not in str(caught.value)
    _pull(origin, tmp_path, HF_TOKEN="hf_canary")
    assert origin.cdn_authorizations == [None]


def test_offline_means_no_connection(origin: LoopbackHub, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        _pull(origin, tmp_path, HF_HUB_OFFLINE="1")


def test_unknown_repositories_and_files_are_named(origin: LoopbackHub, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not found"):
        _pull(origin, tmp_path, "org/Other-GGUF")
    with pytest.raises(WeightsError, match=r"it holds Tiny-Q4_K_M\.gguf, Tiny-Q8_0\.gguf"):
        _pull(origin, tmp_path, "org/Tiny-GGUF:Q3_K_S")


def test_an_unreachable_hub_says_what_to_check(tmp_path: Path) -> None:
    source = hub.Hub({"HF_ENDPOINT": "http://127.0.0.1:9"}, pause=lambda _seconds: None)
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:9 cannot be reached.*HTTPS_PROXY"):
        pull.pull(pull.read_spec("org/Tiny-GGUF"), tmp_path, source, lambda _done, _all: None)


def test_a_part_of_several_is_refused(origin: LoopbackHub, tmp_path: Path) -> None:
    name = "Big-Q8_0-00001-of-00002.gguf"
    origin.files[name], origin.sha256[name] = b"x", "1" * 64
    with pytest.raises(WeightsError, match="one part of several"):
        _pull(origin, tmp_path, f"org/Tiny-GGUF:{name}")


def test_what_does_not_fit_memory_or_disk_is_refused_with_the_numbers(
    origin: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine.describe()
    small = msgspec.structs.replace(here, memory_bytes=1000, gpus=())
    monkeypatch.setattr(machine, "describe", lambda: small)
    with pytest.raises(WeightsError, match=r"this machine has 0\.00 GiB of memory"):
        _pull(origin, tmp_path)
    monkeypatch.setattr(machine, "describe", lambda: here)
    monkeypatch.setattr(pull, "_DISK_SPARE_BYTES", 1 << 60)
    with pytest.raises(WeightsError, match=r"needs .* GiB more on disk.*GiB free"):
        _pull(origin, tmp_path)
    assert origin.ranges == []


def test_a_local_file_is_pinned_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "My Model.gguf"
    write_test_model(path, SENTENCE)
    nowhere = hub.Hub({"HF_HUB_OFFLINE": "1"})
    model = pull.pull(pull.read_spec(str(path)), tmp_path / "home", nowhere, lambda _d, _a: None)
    assert model.name == "my-model"
    assert model.path == path
    assert installed_models(tmp_path / "home") == [model]
    path.write_bytes(b"changed")
    assert installed_models(tmp_path / "home") == []


def test_a_local_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="not a GGUF file"):
        pull.pull(pull.read_spec(str(path)), tmp_path, hub.Hub({}), lambda _done, _all: None)


def test_the_catalog_names_a_default_with_everything_pinned() -> None:
    default = pull.catalog()[0]
    assert default.name == "qwen3-0.6b"
    assert default.file == "Qwen3-0.6B-Q8_0.gguf"
    spec = pull.read_spec("qwen3-0.6b")
    assert spec.remote
    assert len(spec.remote.sha256) == 64
    assert spec.remote.bytes == 639_446_688


@pytest.mark.parametrize(
    ("text", "name", "repository", "revision", "file"),
    [
        ("Qwen/Qwen3-8B-GGUF", "qwen3-8b", "Qwen/Qwen3-8B-GGUF", "main", None),
        ("a/B-GGUF:Q4_0@v1", "b-q4_0", "a/B-GGUF", "v1", "Q4_0"),
        ("a/b:dir/C-Q8_0.gguf", "c-q8_0", "a/b", "main", "dir/C-Q8_0.gguf"),
    ],
)
def test_names_are_read(
    text: str, name: str, repository: str, revision: str, file: str | None
) -> None:
    spec = pull.read_spec(text)
    assert (spec.name, spec.repository, spec.revision) == (name, repository, revision)
    assert spec.file == file


@pytest.mark.parametrize("text", ["qwen3-0.6", "../../etc/passwd", "", "a b"])
def test_unknown_names_are_answered_with_near_ones(text: str) -> None:
    with pytest.raises(WeightsError, match="qwen3"):
        pull.read_spec(text)


@pytest.mark.parametrize("name", ["..", "a/b", "", "UPPER", "x" * 200])
def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.gguf"
    write_test_model(path)
    spec = pull.Spec(name=name, path=path)
    with pytest.raises(WeightsError, match="model name"):
        pull.pull(spec, tmp_path, hub.Hub({}), lambda _done, _all: None)


def _run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, ["pull", *arguments], env=environment)


def test_command_prints_where_it_is_and_how_to_use_it(origin: LoopbackHub, tmp_path: Path) -> None:
    settings = {"HF_ENDPOINT": origin.url, "LOCAVORE_HOME": str(tmp_path)}
    result = _run("org/Tiny-GGUF:Q8_0", "--name", "tiny", **settings)
    assert result.exit_code == 0
    assert "model embedded/tiny" in result.output
    result = _run("org/Tiny-GGUF:Q8_0", "--name", "tiny", "--json", **settings)
    assert json.loads(result.output)["sha256"] == origin.sha256["Tiny-Q8_0.gguf"]


def test_command_lists_and_explains() -> None:
    assert "qwen3-0.6b" in _run("--list").output
    assert json.loads(_run("--list", "--json").output)[0]["license"] == "Apache-2.0"
    assert "locavore pull qwen3-0.6b" in _run().output
    failed = _run("qwen3-0.6", LOCAVORE_HOME="/nonexistent")
    assert isinstance(failed.exception, LocavoreError)


def test_ctrl_c_says_that_the_download_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pull, "pull", interrupted)
    result = CliRunner().invoke(cli, ["pull", "qwen3-0.6b"], env={"LOCAVORE_HOME": str(tmp_path)})
    assert result.exit_code == 130
    assert "the same command goes on from here" in result.output


def test_a_hub_that_cannot_be_reached_is_told_soon(tmp_path: Path) -> None:
    pauses: list[float] = []
    source = hub.Hub({"HF_ENDPOINT": "http://127.0.0.1:9"}, pause=pauses.append)
    with pytest.raises(WeightsError, match="the same command goes on"):
        pull.pull(pull.read_spec("qwen3-0.6b"), tmp_path, source, lambda *_: None, force=True)
    assert sum(pauses) < 5
