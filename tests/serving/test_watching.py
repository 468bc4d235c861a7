"""What stands beside a call sees the record and the answer, and harms no client."""

import asyncio
import json
from pathlib import Path

import pytest

from locavore.core.decision import Decision
from locavore.core.events import TextDelta
from locavore.core.request import Request
from locavore.serving.pipeline import PLAIN
from locavore.serving.watching import Watched
from locavore.testing import replies
from tests.serving.doubles import Client, ScriptedEngine, backend, pipeline_over, snapshot_of

pytestmark = pytest.mark.anyio
CHAT = {"model": "home/m", "messages": [{"role": "user", "content": "Say hello."}]}


class Sees:
    def __init__(self, *, wants: bool = True, breaks: bool = False) -> None:
        self.seen: list[Watched] = []
        self._wants = wants
        self._breaks = breaks

    def wants(self, request: Request, decision: Decision) -> bool:
        assert decision.chosen == request.model
        return self._wants

    def served(self, call: Watched) -> None:
        self.seen.append(call)
        if self._breaks:
            raise RuntimeError("a watcher's own bug")


async def served(watcher: Sees, home: Path, *, stream: bool, status: int = 200) -> Client:
    engine, client = ScriptedEngine(), Client()
    pipeline, journal = pipeline_over(lambda _: engine, home, snapshot_of(backend()))
    pipeline.watcher = watcher
    body = json.dumps(CHAT | {"stream": stream}).encode()
    pipeline.serve("openai_chat", body, client, PLAIN)
    reply = replies.chat_stream() if stream else replies.chat()
    engine.calls[0].play(reply if status == 200 else replies.openai_error(status))
    assert len(journal.records) == 1
    assert not watcher.seen, "told before the client had its last byte"
    await asyncio.sleep(0)
    pipeline.close()
    return client


@pytest.mark.parametrize("stream", [False, True])
async def test_a_watcher_sees_the_record_and_what_the_client_was_sent(
    tmp_path: Path, stream: bool
) -> None:
    watcher = Sees()
    client = await served(watcher, tmp_path, stream=stream)
    (call,) = watcher.seen
    assert call.record.outcome == "served"
    text = "".join(event.text for event in call.answer if isinstance(event, TextDelta))
    assert text == "Hello"
    assert client.done


async def test_a_call_nobody_wants_and_a_call_that_failed_are_not_told(tmp_path: Path) -> None:
    uninterested, eager = Sees(wants=False), Sees()
    await served(uninterested, tmp_path, stream=False)
    client = await served(eager, tmp_path, stream=False, status=400)
    assert client.status == 400
    assert not uninterested.seen
    assert not eager.seen


async def test_a_watcher_that_breaks_harms_no_client(tmp_path: Path) -> None:
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _loop, context: told.append(context))
    client = await served(Sees(breaks=True), tmp_path, stream=False)
    assert client.status == 200
    assert "own bug" in str(told[0]["exception"])
