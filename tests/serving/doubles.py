"""A pipeline without sockets: an engine that plays replies, a client that keeps what it is sent."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from locavore.core.backend import Backend, Capability, Place
from locavore.core.money import FREE
from locavore.core.outcome import CallRecord
from locavore.core.policy import Policy
from locavore.core.ports import Headers, Receiver, Timeouts
from locavore.ledger.budgets import Authorizer
from locavore.ledger.session_labels import FileSessionLabels
from locavore.serving.client import Listener
from locavore.serving.pipeline import Pipeline
from locavore.serving.snapshot import Snapshot, Target
from locavore.serving.state import State
from locavore.testing import Reply
from locavore.testing.upstream import Chunk


class Sent:
    """A call at the engine; `play` answers it."""

    sent = True

    def __init__(self, path: bytes, body: bytes, receiver: Receiver) -> None:
        self.path = path
        self.body = body
        self.receiver = receiver
        self.cancelled = False

    def play(self, reply: Reply) -> None:
        headers = [(n.encode(), v.encode()) for n, v in reply.headers]
        self.receiver.on_head(reply.status, headers)
        for step in reply.steps:
            if isinstance(step, Chunk) and not self.cancelled:
                self.receiver.on_body(step.data)
        if not self.cancelled:
            self.receiver.on_end()

    def pause(self) -> None: ...
    def resume(self) -> None: ...

    def cancel(self) -> None:
        self.cancelled = True


class ScriptedEngine:
    """Answers later, when the test says so."""

    def __init__(self) -> None:
        self.calls: list[Sent] = []

    def send(
        self,
        path: bytes,
        body: bytes,
        receiver: Receiver,
        *,
        timeouts: Timeouts,
        headers: Headers = (),
    ) -> Sent:
        del timeouts, headers
        call = Sent(path, body, receiver)
        self.calls.append(call)
        return call


class Recorder:
    """A journal in memory."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    def append(self, record: CallRecord) -> None:
        self.records.append(record)

    def ensure_room(self) -> None: ...
    def close(self) -> None: ...


class Client:
    """What one client was sent."""

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.done = False

    def respond(self, status: int, headers: Headers | bytes, body: bytes) -> None:
        self.start(status, headers)
        self.body, self.done = body, True

    def start(self, status: int, headers: Headers | bytes) -> None:
        self.status = status
        if isinstance(headers, bytes):
            lines = [line.split(": ", 1) for line in headers.decode().split("\r\n") if line]
            self.headers = dict(lines)
        else:
            self.headers = {name.decode(): value.decode() for name, value in headers}

    def write(self, data: bytes) -> None:
        self.body += data

    def finish(self, data: bytes = b"") -> None:
        self.body += data
        self.done = True


def backend(id_: str = "home/m", place: Place = Place.ON_PREM, **more: Any) -> Backend:
    """`more`: any field of a backend; what we host is free unless a price is given."""
    provider, _, model = id_.partition("/")
    fields: dict[str, Any] = {
        "url": "http://127.0.0.1:1/v1",
        "dialect": "openai",
        "context_tokens": 32_768,
        "capabilities": frozenset({Capability.CHAT.value}),
        "price": FREE,
    }
    return Backend(id=id_, provider=provider, model=model, place=place, **(fields | more))


def snapshot_of(*backends: Backend, policy: Policy | None = None, **more: Any) -> Snapshot:
    return Snapshot(
        version="1",
        policy=policy or Policy(stage="route"),
        backends=backends,
        targets={b.id: Target(name=b.id, url=b.url) for b in backends},
        target_of={b.id: b.id for b in backends},
        **more,
    )


def pipeline_over(
    engine_of: Callable[[Target], ScriptedEngine],
    home: Path,
    snapshot: Snapshot,
    limits: Authorizer | None = None,
) -> tuple[Pipeline, Recorder]:
    """A pipeline on the running loop, and its journal."""
    journal = Recorder()

    def nobody(name: str) -> "asyncio.Future[Backend | None]":
        raise LookupError(name)

    pipeline = Pipeline(
        State(snapshot, engine_of),
        journal,
        loop=asyncio.get_running_loop(),
        limits=limits,
        sessions=FileSessionLabels(home / "sessions"),
        resolve=nobody,
    )
    return pipeline, journal
