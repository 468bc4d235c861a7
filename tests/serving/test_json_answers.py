"""JSON that was asked for: looked at wherever it can be, and never in the way (C29)."""

import json
from pathlib import Path

import msgspec
import pytest

from locavore.core.backend import Capability
from locavore.serving.pipeline import PLAIN
from locavore.testing import Reply, replies
from locavore.testing.upstream import Chunk
from tests.serving.doubles import Client, ScriptedEngine, backend, pipeline_over, snapshot_of

pytestmark = pytest.mark.anyio
ABLE = frozenset({Capability.CHAT.value, Capability.JSON_OBJECT.value})
ASK = {
    "model": "home/m",
    "messages": [{"role": "user", "content": "A number, as JSON."}],
    "response_format": {"type": "json_object"},
    "stream": True,
}


async def test_c11_a_client_that_leaves_a_json_stream_still_has_a_record(tmp_path: Path) -> None:
    engine, client = ScriptedEngine(), Client()
    snapshot = snapshot_of(backend(capabilities=ABLE))
    (name,) = snapshot.targets
    snapshot.targets[name] = msgspec.structs.replace(
        snapshot.targets[name], drain_on_disconnect=True
    )
    pipeline, journal = pipeline_over(lambda _: engine, tmp_path, snapshot)
    pipeline.serve("openai_chat", json.dumps(ASK).encode(), client, PLAIN)
    (call,) = engine.calls
    whole = replies.chat_stream(["{", '"n": 1}'])
    call.receiver.on_head(200, [(b"content-type", b"text/event-stream")])
    first, *rest = (step for step in whole.steps if isinstance(step, Chunk))
    call.receiver.on_body(first.data)
    call.receiver.on_body(rest[0].data)
    assert client.listener is not None
    client.listener.on_disconnect()
    for step in rest[1:]:
        call.receiver.on_body(step.data)
    call.receiver.on_end()
    (record,) = journal.records
    assert (record.outcome, record.flags) == ("cancelled", ())
    assert pipeline.inflight == 0


@pytest.mark.parametrize(("text", "flags"), [('{"n": 1}', ()), ("one", ("json_invalid",))])
async def test_c29_a_stream_is_flagged_by_what_the_client_was_sent(
    tmp_path: Path, text: str, flags: tuple[str, ...]
) -> None:
    engine, client = ScriptedEngine(), Client()
    snapshot = snapshot_of(backend(capabilities=ABLE))
    pipeline, journal = pipeline_over(lambda _: engine, tmp_path, snapshot)
    pipeline.serve("openai_chat", json.dumps(ASK).encode(), client, PLAIN)
    reply: Reply = replies.chat_stream(list(text))
    engine.calls[0].play(reply)
    assert client.done
    assert journal.records[0].flags == flags
