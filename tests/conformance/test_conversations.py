"""Conversations through the gateway: they keep their place, in any worker and after a restart."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from locavore.routing.explaining import explain
from locavore.testing import ScriptedUpstream, replies
from locavore.testing.gateway import RunningGateway
from tests.conformance.client import MESSAGES_PATH, Answer, Client, backend
from tests.conformance.conftest import Start

DEAR, CHEAP = "sky/dear", "sky/cheap"
LONG = "The mill stands by the river, and the river turns the mill. " * 200
JSON: dict[str, Any] = {"response_format": {"type": "json_object"}}
"""Only the dear one can write JSON, so a conversation that begins with it begins there."""


def config(upstream: ScriptedUpstream, **routing: Any) -> str:
    dear = {"input_mtok": "4", "output_mtok": "4", "cache_read_mtok": "0.4"}
    cheap = {"input_mtok": "3", "output_mtok": "3", "cache_read_mtok": "0.3"}
    lines = "".join(f"{name} = {msgspec.json.encode(v).decode()}\n" for name, v in routing.items())
    return (
        'stage = "route"\nposture = "local_only"\ndefault_output_tokens = 100\n'
        + backend(
            DEAR,
            upstream,
            place="private_cloud",
            price=dear,
            capabilities=["chat", "json_object"],
            context_tokens=100_000,
        )
        + backend(
            CHEAP,
            upstream,
            place="private_cloud",
            price=cheap,
            capabilities=["chat"],
            lacks=["json_object"],
            context_tokens=100_000,
        )
        + f"[routing]\n{lines}"
    )


@pytest.fixture
def told(upstream: ScriptedUpstream) -> ScriptedUpstream:
    usage = {"prompt_tokens": 3000, "completion_tokens": 4, "total_tokens": 3004}
    upstream.always(replies.chat('{"ok": true}', usage=usage))
    return upstream


def begin(client: Client, **more: Any) -> list[dict[str, str]]:
    """A first turn that the dear model serves; returns the conversation so far."""
    messages = [{"role": "user", "content": LONG}]
    answer = client.chat(model="auto", messages=messages, **JSON, **more)
    assert answer.headers["x-locavore-model"] == DEAR
    return [*messages, {"role": "assistant", "content": '{"ok": true}'}]


def go_on(client: Client, messages: list[dict[str, str]], **more: Any) -> Answer:
    return client.chat(
        model="auto", messages=[*messages, {"role": "user", "content": "go on"}], **more
    )


def test_c113_a_conversation_stays_and_a_new_one_does_not(
    start: Start, told: ScriptedUpstream
) -> None:
    client = start(config(told))
    messages = begin(client)
    assert go_on(client, messages).headers["x-locavore-model"] == DEAR
    decision = client.records()[-1].decision
    assert decision.given is not None
    assert decision.given.home == DEAR
    assert any("served this conversation before" in note for note in explain(decision).notes)
    other = [{"role": "user", "content": LONG + "!"}, {"role": "assistant", "content": "ok"}]
    assert go_on(client, other).headers["x-locavore-model"] == CHEAP
    assert client.chat(model="auto", messages=messages[:1]).headers["x-locavore-model"] == CHEAP


def test_c113_turns_reach_any_worker_and_survive_a_restart(
    told: ScriptedUpstream, tmp_path: Path
) -> None:
    """Two gateways over one home are what two workers are to each other: they share its files."""
    home, text = tmp_path / "home", config(told)
    with RunningGateway(home, text) as one, RunningGateway(home, text) as two:
        messages = begin(Client(one))
        assert go_on(Client(two), messages).headers["x-locavore-model"] == DEAR
    with RunningGateway(home, text) as later:
        assert go_on(Client(later), messages).headers["x-locavore-model"] == DEAR


def test_c113_a_dry_run_knows_the_place_and_leaves_it(start: Start, told: ScriptedUpstream) -> None:
    client = start(config(told))
    messages = begin(client)
    body = {"model": "auto", "messages": [*messages, {"role": "user", "content": "go on"}]}
    for _ in range(2):
        assert client.post("/v1/route", body).json["chosen"] == DEAR
    assert go_on(client, messages).headers["x-locavore-model"] == DEAR


def test_c113_another_format_is_another_conversation_with_the_same_rules(
    start: Start, told: ScriptedUpstream
) -> None:
    client = start(config(told))
    first: dict[str, Any] = {
        "model": DEAR,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": LONG}],
    }
    assert client.post(MESSAGES_PATH, first).headers["x-locavore-model"] == DEAR
    turn = [
        *first["messages"],
        {"role": "assistant", "content": [{"type": "text", "text": "ok"}]},
        {"role": "user", "content": [{"type": "text", "text": "go on"}]},
    ]
    again = client.post(MESSAGES_PATH, first | {"model": "auto", "messages": turn})
    assert again.headers["x-locavore-model"] == CHEAP, "a turn that named its model is not kept"
    more = [*turn, {"role": "assistant", "content": "ok"}, {"role": "user", "content": "more"}]
    third = client.post(MESSAGES_PATH, first | {"model": "auto", "messages": more})
    assert third.headers["x-locavore-model"] == CHEAP
    assert client.records()[-1].decision.given is not None


def test_c113_policy_forgets_what_no_provider_keeps(start: Start, told: ScriptedUpstream) -> None:
    client = start(config(told, cache_s=0))
    assert go_on(client, begin(client)).headers["x-locavore-model"] == CHEAP


def test_c94_no_word_of_a_conversation_is_in_the_table(
    start: Start, told: ScriptedUpstream, tmp_path: Path
) -> None:
    client = start(config(told))
    go_on(client, begin(client, metadata={"session_id": "canary-session"}))
    table = (tmp_path / "home" / "run" / "conversations").read_bytes()
    for canary in (b"mill stands", b"canary-session", b"go on", DEAR.encode()):
        assert canary not in table


def test_a_past_decision_explains_itself(start: Start, told: ScriptedUpstream) -> None:
    client = start(config(told))
    answer = go_on(client, begin(client))
    found = client.get(f"/v1/decisions/{answer.headers['x-locavore-decision']}").json
    explanation = found["explanation"]
    assert explanation["chosen"] == found["decision"]["chosen"] == DEAR
    flips = [change for change in explanation["changes"] if change["kind"] == "price"]
    assert [change["candidate"] for change in flips] == [CHEAP]
    considered = {c["id"]: c for c in found["decision"]["considered"]}
    assert flips[0]["at"] == considered[DEAR]["cost_usd"]
