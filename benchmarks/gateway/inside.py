"""Where the microseconds of one call go, without sockets: the worker's own code on fake transports.

`python -m benchmarks.gateway.inside [--model auto] [--stream] [--profile]`

CPU per call of the bare relay, and of the whole worker (keys, deciding, serving, journal). What
the live benchmark shows above this is the kernel, uvloop, and the ledger's ingestion.
"""

import argparse
import asyncio
import cProfile
import os
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.gateway import tools
from benchmarks.gateway.bare import Relay
from benchmarks.gateway.stacks import CONFIG, KEY, MODEL
from locavore.compose.inventory import Inventory
from locavore.config import load as load_config
from locavore.core.ports import Timeouts
from locavore.engines.deadlines import Deadlines
from locavore.engines.http1 import Connection as Upstream
from locavore.engines.pool import HttpEngine
from locavore.gateway.connection import Connection
from locavore.gateway.exchange import Exchange
from locavore.gateway.keys import KeyCheck
from locavore.gateway.routes import hot_routes
from locavore.gateway.server import Routes, Server
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.session_labels import FileSessionLabels
from locavore.serving.pipeline import Pipeline
from locavore.serving.state import State

ROUNDS, CALLS = 80, 600
"""Many short runs: on a shared machine some of them are undisturbed, and the least counts."""
_HEAD = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: %b\r\n%b\r\n"


class Wire:
    """A transport that keeps the last bytes."""

    def __init__(self) -> None:
        self.last = b""

    def write(self, data: bytes) -> None:
        self.last = data

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, _name: str) -> None:
        return None

    def abort(self) -> None:
        raise AssertionError("a call failed")

    close = write_eof = abort


class Bench:
    """One client connection and one upstream connection around a handler."""

    def __init__(self, routes: Routes, engine: HttpEngine, deadlines: Deadlines) -> None:
        server = Server(routes, deadlines=deadlines)
        server.expire()
        self.to_client, self.to_upstream = Wire(), Wire()
        self.client = Connection(server)
        self.client.connection_made(self.to_client)  # type: ignore[arg-type]
        self.upstream = Upstream(engine)
        self.upstream.connection_made(self.to_upstream)  # type: ignore[arg-type]
        engine._open.add(self.upstream)
        engine.release(self.upstream)

    def run(self, request: bytes, answer: list[bytes], calls: int) -> float:
        """Seconds of CPU."""
        began = time.process_time()
        for _ in range(calls):
            self.client.data_received(request)
            for piece in answer:
                self.upstream.data_received(piece)
        return time.process_time() - began


def _request(model: str, *, stream: bool) -> bytes:
    body = tools.write_body("inside", model, 1488, stream=stream, burst=False).read_bytes()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:4000\r\n"
        b"authorization: Bearer %b\r\naccept: application/json\r\naccept-encoding: identity\r\n"
        b"user-agent: OpenAI/Python 2.0\r\nx-stainless-lang: python\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (KEY.encode(), len(body), body)
    )


def _answer(*, stream: bool) -> list[bytes]:
    """What the upstream sends, one element per read."""
    start = (
        b'{"id":"chatcmpl-7f3a","object":"chat.completion%b","created":1763700000,"model":"bench",'
    )
    usage = b'"usage":{"prompt_tokens":312,"completion_tokens":38,"total_tokens":350}'
    if not stream:
        body = (
            start % b""
            + b'"choices":[{"index":0,"message":{"role":"assistant","content":"'
            + b"The capital of France is Paris. " * 5
            + b'","refusal":null},"logprobs":null,"finish_reason":"stop"}],'
            + usage
            + b"}"
        )
        length = b"content-length: %d\r\n" % len(body)
        return [_HEAD % (b"application/json", length) + body]
    piece = (
        b"data: "
        + start % b".chunk"
        + b'"choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,'
        b'"finish_reason":null}]}\n\n'
    )
    last = (
        b"data: "
        + start % b".chunk"
        + b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: '
        + start % b".chunk"
        + b'"choices":[],'
        + usage
        + b"}\n\ndata: [DONE]\n\n"
    )
    framed = [b"%x\r\n%b\r\n" % (len(part), part) for part in [piece] * 100]
    head = _HEAD % (b"text/event-stream", b"transfer-encoding: chunked\r\n")
    return [head, *framed, b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last)]


async def _pipeline(home: Path, engine: HttpEngine) -> tuple[Pipeline, KeyCheck]:
    config_path = home / "config.toml"
    config_path.write_text(CONFIG.format(url="http://127.0.0.1:1/v1"), encoding="utf-8")
    environment = {**os.environ, "LOCAVORE_KEY": KEY, "LOCAVORE_HOME": str(home)}
    config = load_config(config_path, environment, {"env": False})
    inventory = Inventory(config, environment, tell=lambda _: None, engines=False)
    await inventory.look(own_port=None)
    snapshot = inventory.compile()
    await inventory.close()
    loop = asyncio.get_running_loop()

    def resolve(_name: str) -> Any:
        raise AssertionError("nothing to resolve here")

    pipeline = Pipeline(
        State(snapshot, lambda _target: engine),
        SegmentJournal(home),
        loop=loop,
        sessions=FileSessionLabels(home / "sessions"),
        resolve=resolve,
    )
    return pipeline, KeyCheck(snapshot.grants)


async def _main(options: argparse.Namespace) -> None:
    deadlines = Deadlines()
    engine = HttpEngine("http://127.0.0.1:1/v1", proxy_url="", deadlines=deadlines)
    other = HttpEngine("http://127.0.0.1:1/v1", proxy_url="", deadlines=deadlines)
    timeouts = Timeouts()

    def relay(exchange: Exchange) -> None:
        made = Relay(exchange)
        made.call = other.send(b"/chat/completions", exchange.body, made, timeouts=timeouts)

    request, answer = _request(options.model, stream=options.stream), _answer(stream=options.stream)
    calls = CALLS // 20 if options.stream else CALLS
    with tempfile.TemporaryDirectory() as folder:
        pipeline, keys = await _pipeline(Path(folder), engine)
        benches = {
            "bare": Bench({b"/v1/chat/completions": {b"POST": relay}}, other, deadlines),
            "worker": Bench(hot_routes(pipeline, lambda: keys), engine, deadlines),
        }
        best: dict[str, float] = {}
        for _ in range(ROUNDS):
            for name, bench in benches.items():
                took = bench.run(request, answer, calls) / calls * 1e6
                best[name] = min(took, best.get(name, took))
        for name, bench in benches.items():
            print(f"{name:8} {best[name]:8.2f} µs per call  {bench.to_client.last[:80]!r}")
        if options.profile:
            profile = cProfile.Profile()
            profile.enable()
            benches["worker"].run(request, answer, calls)
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(options.profile)
        pipeline.close()
        pipeline.journal.close()


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.gateway.inside", description=__doc__)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--profile", type=int, metavar="LINES", help="show the dearest functions")
    tools.BUILD.mkdir(exist_ok=True)
    uvloop.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
