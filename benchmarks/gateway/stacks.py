"""What is measured: how each stack is started and addressed."""

import json
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gateway import tools
from benchmarks.gateway.tools import BUILD, PYTHON, Running, free_port, start

KEY = "bench-key-0123456789"
PEERS = BUILD / "peers"
MODEL = "bench/bench"
CONFIG = """\
stage = "route"
posture = "local_only"
[[backend]]
id = "bench/bench"
url = "{url}"
dialect = "openai"
place = "on_prem"
context_tokens = 32768
capabilities = ["tools", "json_schema", "seed", "logprobs"]
price = {{ input_mtok = "0.10", output_mtok = "0.40" }}
[[backend]]
id = "bench/dearer"
url = "{url}"
dialect = "openai"
place = "on_prem"
context_tokens = 131072
price = {{ input_mtok = "0.50", output_mtok = "1.50" }}
"""
LITELLM = """\
model_list:
  - model_name: bench/bench
    litellm_params: {{model: openai/bench, api_base: "{url}", api_key: none}}
general_settings: {{master_key: {key}}}
litellm_settings: {{telemetry: false}}
"""
TENSORZERO = """\
[gateway]
bind_address = "127.0.0.1:{port}"
observability.enabled = false
disable_pseudonymous_usage_analytics = true
[models.bench]
routing = ["bench"]
[models.bench.providers.bench]
type = "openai"
model_name = "bench"
api_base = "{url}"
api_key_location = "none"
"""
TENSORZERO_START = """\
import asyncio, sys, threading
from openai import OpenAI
from tensorzero import patch_openai_client
client = patch_openai_client(OpenAI(api_key="none"), config_file=sys.argv[1], async_setup=False)
print(client.base_url, flush=True)
threading.Event().wait()
"""


@dataclass
class Stack:
    """A started stack, ready for load."""

    name: str
    port: int
    running: Running | None
    """None for the upstream itself: nothing stands between."""
    version: str = ""
    model: str = MODEL
    path: str = "/v1/chat/completions"
    headers: list[str] = field(default_factory=list)
    slow: bool = False
    """Milliseconds of CPU per call: few connections and a low rate."""


class Unavailable(Exception):
    """This stack cannot run here; the text says why and what to do."""


def nginx_version() -> str:
    shown = subprocess.run([str(tools.find("nginx")), "-v"], capture_output=True, text=True)
    return shown.stderr.strip().rpartition("/")[2]


def nginx(name: str, upstream: int, *, tls: bool) -> Stack:
    port = free_port()
    command = tools.nginx(name, port, upstream, serves_tls=False, speaks_tls=tls)
    running = start(name, command, port, cores=tools.GATEWAY_CPU)
    return Stack(name, port, running, nginx_version())


def bare(name: str, upstream: int, *, tls: bool) -> Stack:
    port = free_port()
    url = f"https://localhost:{upstream}/v1" if tls else f"http://127.0.0.1:{upstream}/v1"
    command = [PYTHON, "-m", "benchmarks.gateway.bare", str(port), url]
    if tls:
        command.append(str(BUILD / "tls.pem"))
    return Stack(name, port, start(name, command, port, cores=tools.GATEWAY_CPU))


def locavore(name: str, upstream: int, *, tls: bool) -> Stack:
    """The whole product: one worker, key check, limits, journal, ledger, metrics."""
    port = free_port()
    home = BUILD / name
    home.mkdir(exist_ok=True)
    url = f"https://localhost:{upstream}/v1" if tls else f"http://127.0.0.1:{upstream}/v1"
    config = home / "config.toml"
    config.write_text(CONFIG.format(url=url), encoding="utf-8")
    command = [PYTHON, "-m", "locavore", "serve", "--port", str(port), "--workers", "1"]
    command += ["--home", str(home), "--config", str(config), "--no-env"]
    environment = {"LOCAVORE_KEY": KEY, "SSL_CERT_FILE": str(BUILD / "tls.pem")}
    running = start(name, command, port, cores=tools.GATEWAY_CPU, environment=environment)
    return Stack(name, port, running, headers=[f"authorization: Bearer {KEY}"])


def litellm(name: str, upstream: int) -> Stack:
    binary = PEERS / "litellm" / "bin" / "litellm"
    _installed(name, binary)
    port = free_port()
    config = BUILD / "litellm.yaml"
    key = "sk-bench-0123456789abcdef0123456789"
    url = f"http://127.0.0.1:{upstream}/v1"
    config.write_text(LITELLM.format(url=url, key=key), encoding="utf-8")
    command = [str(binary), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
    }
    running = start(name, command, port, cores=tools.GATEWAY_CPU, environment=environment)
    version = _package_version("litellm", "litellm")
    return Stack(name, port, running, version, headers=[f"authorization: Bearer {key}"], slow=True)


def tensorzero(name: str, upstream: int) -> Stack:
    python = PEERS / "tensorzero" / "bin" / "python"
    _installed(name, python)
    url = f"http://127.0.0.1:{upstream}/v1/"
    config = BUILD / "tensorzero.toml"
    config.write_text(TENSORZERO.format(port=free_port(), url=url), encoding="utf-8")
    script = BUILD / "tensorzero_start.py"
    script.write_text(TENSORZERO_START, encoding="utf-8")
    running = tools.start_printing_url(
        name, [str(python), str(script), str(config)], cores=tools.GATEWAY_CPU
    )
    version = _package_version("tensorzero", "tensorzero")
    path = running.url_path.rstrip("/") + "/chat/completions"
    model = "tensorzero::model_name::bench"
    return Stack(name, running.port, running, version, model=model, path=path)


def portkey(name: str, upstream: int) -> Stack:
    package = PEERS / "portkey" / "node_modules" / "@portkey-ai" / "gateway"
    _installed(name, package / "build" / "start-server.js")
    port = free_port()
    command = ["node", str(package / "build" / "start-server.js"), f"--port={port}", "--headless"]
    running = start(name, command, port, cores=tools.GATEWAY_CPU, cwd=package)
    version = json.loads((package / "package.json").read_text())["version"]
    headers = [
        "x-portkey-provider: openai",
        f"x-portkey-custom-host: http://127.0.0.1:{upstream}/v1",
        "authorization: Bearer none",
    ]
    return Stack(name, port, running, version, model="bench", headers=headers, slow=True)


PEER_STACKS: dict[str, Callable[[str, int], Stack]] = {
    "tensorzero": tensorzero,
    "portkey": portkey,
    "litellm": litellm,
}
PEER_PACKAGES = {
    "litellm": ["litellm[proxy]", "uvloop"],
    "tensorzero": ["tensorzero", "openai"],
}


def install_peers() -> None:
    """Each Python peer in its own environment, Portkey under its own prefix; all under build/."""
    PEERS.mkdir(parents=True, exist_ok=True)
    for name, packages in PEER_PACKAGES.items():
        folder = PEERS / name
        if not (folder / "bin" / "python").exists():
            venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _try(name, [*pip, "--disable-pip-version-check", *packages])
    folder = PEERS / "portkey"
    folder.mkdir(exist_ok=True)
    _try("portkey", ["npm", "install", "--prefix", str(folder), "--silent", "@portkey-ai/gateway"])


def _try(name: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{name} did not install: {done.stderr.strip()[-400:]}", file=sys.stderr)


def _installed(name: str, path: Path) -> None:
    if not path.exists():
        raise Unavailable(f"{name} is not installed; run with --install")


def _package_version(peer: str, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    python = str(PEERS / peer / "bin" / "python")
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()
