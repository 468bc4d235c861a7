"""Cascades through the gateway: configuration, a promise on disk, real connections, the ledger."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from locavore.ledger.query import open_current, report
from locavore.routing.estimators import promised
from locavore.testing import Hold, Reply, ScriptedUpstream, replies
from locavore.testing.gateway import RunningGateway
from tests.conformance.client import CHAT_PATH, MESSAGES_PATH, OpenStream, backend
from tests.conformance.conftest import Start
from tests.serving.promises import short_answers_are_right

LOCAL, CLOUD = "home/m", "sky/large"
SHORT = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}
LONG = {"prompt_tokens": 12, "completion_tokens": 200, "total_tokens": 212}
ASK = [{"role": "user", "content": "What is six times seven?"}]
STAY = '[[rule]]\nname = "stay"\nwhen = { label = "secret" }\nrequire = { farthest = "on_prem" }\n'
PRICE = {"input_mtok": "2", "output_mtok": "8"}
CHEAP = {"input_mtok": "0.1", "output_mtok": "0.2"}
ROUTED = f'stage = "route"\nbaseline = "{CLOUD}"\n'


@pytest.fixture
def both(tmp_path: Path, upstream: ScriptedUpstream, other: ScriptedUpstream) -> str:
    """Configuration of a promised local model before a cloud; the promise is on disk."""
    promised.save(tmp_path / "home" / promised.FOLDER, short_answers_are_right(LOCAL, CLOUD))
    return (
        ROUTED
        + backend(LOCAL, upstream, price=CHEAP)
        + backend(CLOUD, other, place="public_api", price=PRICE)
        + STAY
    )


def routing(both: str, **keys: Any) -> str:
    """The configuration with keys of `[routing]`."""
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in keys.items())
    return both + "[explore]\nshare = 0\n[routing]\n" + lines


def test_a_short_answer_stays_and_the_record_says_why(
    both: str, start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = start(routing(both))
    upstream.script(replies.chat("42", usage=SHORT))
    answer = client.chat(model="auto", messages=ASK)
    assert answer.json["choices"][0]["message"]["content"] == "42"
    assert answer.headers["x-locavore-cascade"] == "kept"
    assert answer.headers["x-locavore-model"] == LOCAL
    assert not other.requests
    record = client.record
    assert record.decision.chosen == f"cascade:{LOCAL}"
    assert record.cascade is not None
    assert record.cascade.reason == "kept"
    assert record.cascade.margin is not None
    assert record.cascade.margin > 0
    told = client.get(f"/v1/decisions/{record.id}").json
    assert told["cascade"]["reason"] == "kept"
    assert [a["backend"] for a in told["attempts"]] == [LOCAL]


def test_a_long_answer_escalates_and_both_are_paid_for(
    both: str, start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream, tmp_path: Path
) -> None:
    client = start(routing(both))
    upstream.script(replies.chat("Well, let me see ...", usage=LONG))
    other.script(replies.chat("42", usage=SHORT))
    answer = client.chat(model="auto", messages=ASK)
    assert answer.json["choices"][0]["message"]["content"] == "42"
    assert answer.headers["x-locavore-cascade"] == "escalated"
    assert answer.headers["x-locavore-attempts"] == "2"
    local = (12 * Decimal("0.1") + 200 * Decimal("0.2")) / 10**6
    cloud = (12 * Decimal(2) + 1 * Decimal(8)) / 10**6
    assert Decimal(answer.headers["x-locavore-cost-usd"]) == local + cloud
    record = client.record
    assert [(a.backend, a.kind) for a in record.attempts] == [
        (LOCAL, "first"),
        (CLOUD, "escalation"),
    ]
    assert record.cascade is not None
    assert (record.cascade.escalated, record.cascade.output_tokens) == (True, 200)
    db = open_current(tmp_path / "home")
    found = report(db)
    db.close()
    assert found.total.cost_usd == local + cloud
    assert {line.group: (line.calls, line.attempts) for line in found.lines} == {
        LOCAL: (0, 1),
        CLOUD: (1, 1),
    }


@pytest.mark.parametrize("path", [CHAT_PATH, MESSAGES_PATH])
def test_c03_a_held_stream_begins_once_whoever_answers(
    both: str, start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream, path: str
) -> None:
    client = start(routing(both, stream_hold_s=20))
    upstream.script(replies.chat("Well, let me see ...", usage=LONG))
    other.script(replies.chat_stream(["4", "2"], usage=SHORT))
    body = {"model": "auto", "messages": ASK, "stream": True, "max_tokens": 300}
    answer = client.post(path, body, {"anthropic-version": "2023-06-01"})
    assert answer.status == 200
    starts = b"message_start" if path == MESSAGES_PATH else b'"role":"assistant"'
    assert answer.body.count(b"event: message_start" if path == MESSAGES_PATH else starts) == 1
    assert b"let me see" not in answer.body


def test_streams_are_not_held_back_unless_policy_says_so(
    both: str, start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = start(routing(both))
    other.script(replies.chat_stream(["42"], usage=SHORT))
    assert client.chat(model="auto", messages=ASK, stream=True).text == "42"
    assert not upstream.requests
    assert client.record.cascade is None


def test_a_hold_that_is_over_goes_to_the_cloud(
    both: str, start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = start(routing(both, hold_s=0.05))
    hold = Hold()
    upstream.script(Reply((hold, *replies.chat("42", usage=SHORT).steps)))
    other.script(replies.chat("43", usage=SHORT))
    answer = client.chat(model="auto", messages=ASK)
    assert answer.json["choices"][0]["message"]["content"] == "43"
    assert hold.peer_left.wait(10), "the local engine goes on for nobody"
    assert client.record.cascade is not None
    assert client.record.cascade.reason == "late"


def test_c91_a_label_that_binds_the_call_to_the_house_leaves_no_way_out(
    both: str, start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = start(routing(both))
    upstream.always(replies.chat("Well, let me see ...", usage=LONG))
    answer = client.chat(model="auto", messages=ASK, headers={"x-locavore-labels": "secret"})
    assert answer.status == 200
    upstream.always(replies.openai_error(500))
    assert (
        client.chat(model="auto", messages=ASK, headers={"x-locavore-labels": "secret"}).status
        >= 500
    )
    assert not other.requests
    assert all(r.cascade is None for r in client.records())


def test_c11_a_client_that_leaves_during_the_look_stops_the_local_engine(
    both: str, start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = start(routing(both, stream_hold_s=20))
    hold = Hold()
    upstream.script(Reply((hold, *replies.chat("42", usage=SHORT).steps)))
    stream = OpenStream(client.gateway.port, {"model": "auto", "messages": ASK, "stream": True})
    assert hold.reached.wait(10)
    stream.close()
    assert hold.peer_left.wait(10)
    assert not other.requests


def test_a_dead_local_engine_costs_the_client_nothing_but_a_moment(
    both: str, start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = start(routing(both))
    upstream.script(replies.openai_error(500))
    other.script(replies.chat("42", usage=SHORT))
    answer = client.chat(model="auto", messages=ASK)
    assert answer.json["choices"][0]["message"]["content"] == "42"
    assert client.record.cascade is not None
    assert client.record.cascade.reason == "server_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_real_engine_tells_how_sure_it_was(
    tmp_path: Path, start: Start, other: ScriptedUpstream, stream: bool
) -> None:
    """llama.cpp behind a gateway of its own: its test model is certain of every token."""
    promised.save(tmp_path / "home" / promised.FOLDER, short_answers_are_right(LOCAL, CLOUD))
    with RunningGateway(tmp_path / "engine") as engine:
        able = ["chat", "logprobs"]
        local = backend(LOCAL, engine, model="auto", capabilities=able, price=CHEAP)
        cloud = backend(CLOUD, other, place="public_api", price=PRICE)
        client = start(routing(ROUTED + local + cloud, stream_hold_s=30))
        other.script(replies.chat_stream(["42"]) if stream else replies.chat("42"))
        answer = client.chat(model="auto", messages=ASK, stream=stream)
        (asked,) = engine.records()
    assert answer.status == 200
    assert b'"logprob"' not in answer.body
    seen = client.record.cascade
    assert seen is not None
    assert seen.mean_logprob == pytest.approx(0.0, abs=1e-6)
    assert asked.attempts[0].usage is not None
    assert seen.output_tokens == asked.attempts[0].usage.output_tokens
