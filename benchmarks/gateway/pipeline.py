"""CPU of one call inside the serving pipeline: no sockets, no HTTP, everything else on.

`Pipeline.serve` with an engine that answers at once: reading, deciding, the body for the upstream,
usage, costs, headers and the journal. What the data plane adds is measured by the other modules
here. The minimum over many short batches is the figure: the machine is shared.

    python -m benchmarks.gateway.pipeline
"""

import argparse
import asyncio
import gc
import json
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import msgspec

from locavore.core.backend import Backend, Capability, Place
from locavore.core.money import FREE, Price, Rate
from locavore.core.policy import Policy
from locavore.core.ports import Headers, Receiver, Timeouts
from locavore.ledger.conversations import FileHomes
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.session_labels import FileSessionLabels
from locavore.routing import promise
from locavore.routing.estimators.promised import Entry
from locavore.serving.client import Listener
from locavore.serving.pipeline import PLAIN, Pipeline
from locavore.serving.snapshot import Snapshot, Target
from locavore.serving.state import State

BATCH_CALLS = 200
CHUNKS = 100
"""Chunks of a streamed answer; each comes in a read of its own."""
HEAD: Headers = [(b"content-type", b"application/json"), (b"content-length", b"560")]
STREAM_HEAD: Headers = [(b"content-type", b"text/event-stream")]


def _answer() -> bytes:
    message = {"role": "assistant", "content": "x" * 300}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 8000, "completion_tokens": 30, "total_tokens": 8030}
    return json.dumps({**_named("chat.completion"), "choices": [choice], "usage": usage}).encode()


def _named(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "m"}


def _chunks() -> list[bytes]:
    def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        text = json.dumps({**_named("chat.completion.chunk"), "choices": [choice]})
        return f"data: {text}\n\n".encode()

    words = [chunk({"content": "word "})] * CHUNKS
    return [
        chunk({"role": "assistant", "content": ""}),
        *words,
        chunk({}, "stop"),
        b"data: [DONE]\n\n",
    ]


class _Sent:
    """An upstream call that has ended."""

    sent = True

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def cancel(self) -> None: ...


class _Engine:
    """Answers while it is asked."""

    def __init__(self) -> None:
        self.head = HEAD
        self.pieces = [_answer()]
        self._sent = _Sent()

    def streams(self) -> None:
        self.head, self.pieces = STREAM_HEAD, _chunks()

    def send(
        self,
        path: bytes,
        body: bytes,
        receiver: Receiver,
        *,
        timeouts: Timeouts,
        headers: Headers = (),
    ) -> _Sent:
        del path, body, timeouts, headers
        if len(self.pieces) == 1:
            receiver.on_answer(200, self.head, self.pieces[0])
            return self._sent
        receiver.on_head(200, self.head)
        for piece in self.pieces:
            receiver.on_body(piece)
        receiver.on_end()
        return self._sent


class _Reply:
    """A client that takes everything."""

    __slots__ = ("listener",)

    def __init__(self) -> None:
        self.listener: Listener | None = None

    def respond(self, status: int, headers: Headers | bytes, body: bytes) -> None:
        del headers
        self.listener = None
        if status != 200:
            raise RuntimeError(f"status {status}: {body!r}")

    def start(self, status: int, headers: Headers | bytes) -> None: ...
    def write(self, data: bytes) -> None: ...

    def finish(self, data: bytes = b"") -> None:
        del data
        self.listener = None


def _snapshot() -> Snapshot:
    chat = frozenset({Capability.CHAT.value})
    home = Backend(
        id="home/m",
        provider="home",
        model="m",
        url="http://127.0.0.1:1/v1",
        dialect="openai",
        place=Place.ON_PREM,
        context_tokens=32_768,
        capabilities=chat,
        price=FREE,
    )
    rate = Rate(input_mtok=Decimal(2), output_mtok=Decimal(8))
    cloud = Backend(
        id="cloud/x",
        provider="cloud",
        model="x",
        url="http://127.0.0.1:1/v1",
        dialect="openai",
        place=Place.PUBLIC_API,
        context_tokens=100_000,
        capabilities=chat,
        price=Price(rate=rate, source="config"),
    )
    return Snapshot(
        version="1",
        policy=Policy(stage="route", baseline=cloud.id, version="0123456789abcdef"),
        backends=(home, cloud),
        targets={b.id: Target(name=b.id, url=b.url) for b in (home, cloud)},
        target_of={home.id: home.id, cloud.id: cloud.id},
    )


def _promised(threshold: float) -> Snapshot:
    """`auto` is answered at home and looked at; from `threshold` on, an answer stays there."""
    looked = promise.Promise(
        target=promise.Target(),
        basis="labels",
        labels=1000,
        threshold=threshold,
        share=0.9,
        quality=0.99,
        lower=0.98,
    )
    entry = Entry(
        local="home/m",
        cloud="cloud/x",
        pre=promise.nothing(promise.Target(), 1000, "a request that tells"),
        post=looked,
        samples=2,
        local_quality=0.9,
        cloud_quality=0.9,
        made_s=0.0,
    )
    return msgspec.structs.replace(_snapshot(), promises=(entry,))


def body(model: str, size_bytes: int, *, stream: bool = False) -> bytes:
    """A chat call of a system message, a long text and an ask."""
    messages = [
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": "word " * (size_bytes // 5)},
        {"role": "user", "content": "Say hello to Bob."},
    ]
    fields = {"model": model, "messages": messages, "temperature": 0.2}
    if stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(fields).encode()


def least_us(call: Callable[[], None], batches: int) -> float:
    """CPU of one call: the least of many batches."""
    best = float("inf")
    for _ in range(batches):
        start_s = time.process_time()
        for _ in range(BATCH_CALLS):
            call()
        best = min(best, time.process_time() - start_s)
    return best / BATCH_CALLS * 1e6


async def measure(home: Path, batches: int) -> dict[str, float]:
    """Case -> µs of CPU per call; `floor` is the engine and the client alone."""
    engine = _Engine()
    pipeline = Pipeline(
        State(_snapshot(), lambda _target: engine),
        SegmentJournal(home),
        loop=asyncio.get_running_loop(),
        sessions=FileSessionLabels(home / "sessions"),
        homes=FileHomes(home / "run" / "conversations"),
        resolve=_nobody,
    )
    gc.collect()
    gc.freeze()
    cases = {
        f"{model} {size / 1000:.1f} KB": body(model, size - 180)
        for model in ("home/m", "cloud/x", "auto")
        for size in (1_300, 29_000)
    }
    found = {name: least_us(_calls(pipeline, sent), batches) for name, sent in cases.items()}
    for name, threshold in (("cascade kept", -2.0), ("cascade escalated", 2.0)):
        pipeline.load(State(_promised(threshold), lambda _target: engine), None)
        found[name] = least_us(_calls(pipeline, body("auto", 1_120)), batches // 5)
    pipeline.load(State(_snapshot(), lambda _target: engine), None)
    engine.streams()
    streamed = body("home/m", 1_120, stream=True)
    found["chunk"] = least_us(_calls(pipeline, streamed), batches // 5) / CHUNKS
    pipeline.close()
    return {"floor": least_us(lambda: None, batches), **found}


def _calls(pipeline: Pipeline, sent: bytes) -> Callable[[], None]:
    plain = PLAIN
    return lambda: pipeline.serve("openai_chat", sent, _Reply(), plain)


def _nobody(name: str) -> "asyncio.Future[Backend | None]":
    raise LookupError(f"nobody knows {name!r}")


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.gateway.pipeline", description=__doc__)
    parser.add_argument("--batches", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = asyncio.run(measure(Path(home), options.batches))
    for name, cost_us in found.items():
        print(f"{name:18s} {cost_us:7.2f} µs")


if __name__ == "__main__":
    main()
