"""A configuration is data, and the same input decides the same way: C107, C110."""

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from locavore.core.decision import Decision
from locavore.testing import ScriptedUpstream, replies
from tests.conformance.client import CHAT, Client, backend, toml
from tests.conformance.conftest import Start

RUNS = [
    "$(touch {path})",
    "`touch {path}`",
    "; touch {path}",
    "| touch {path}",
    "__import__('pathlib').Path('{path}').touch()",
    "{{{{ ''.__class__.__mro__[1].__subclasses__() }}}} {path}",
    "${{__import__('os').system('touch {path}')}}",
    "!!python/object/apply:os.system ['touch {path}']",
    "%(touch)s {path}",
]


@pytest.mark.parametrize("text", RUNS)
def test_c107_no_text_of_a_configuration_is_run(
    start: Start, upstream: ScriptedUpstream, tmp_path: Path, text: str
) -> None:
    made = tmp_path / "made"
    hostile = text.format(path=made)
    config = backend("home/m", upstream, model=hostile)
    config += f"[alias]\n{json.dumps(hostile)} = 'home/m'\n"
    upstream.always(replies.chat())
    client = start(config)
    assert client.chat(model=hostile).status == 200
    assert upstream.requests[0].json["model"] == hostile
    assert not made.exists()


def test_c107_the_value_of_a_variable_is_text_and_not_read_again(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, model="${NAME}"), NAME="${OTHER} $(x)", OTHER="no")
    upstream.always(replies.chat())
    client.chat()
    assert upstream.requests[0].json["model"] == "${OTHER} $(x)"


# -- C110 ------------------------------------------------------------------------------------------

POLICY: dict[str, Any] = {"posture": "local_first", "stage": "route"}


def fleet(home: ScriptedUpstream, cloud: ScriptedUpstream) -> str:
    lines = [f"{name} = {toml(value)}" for name, value in POLICY.items()]
    price = {"input_mtok": "1", "output_mtok": "4"}
    config = "\n".join(lines) + "\n" + backend("home/m", home, context_tokens=8192)
    config += backend("cloud/x", cloud, place="public_api", price=price, context_tokens=100_000)
    return (
        config
        + '[[rule]]\nname = "stay"\nwhen = { label = "a" }\nrequire = { farthest = "on_prem" }\n'
    )


def dry_run(client: Client, **fields: Any) -> Decision:
    answer = client.post("/v1/route", CHAT | fields)
    return msgspec.json.decode(answer.body, type=Decision)


def without_id(decision: Decision) -> Decision:
    return msgspec.structs.replace(decision, id="")


def test_c110_the_same_input_and_state_give_the_same_decision(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream, tmp_path: Path
) -> None:
    client = start(fleet(upstream, other))
    first = dry_run(client, model="auto")
    assert first.policy_version
    for _ in range(5):
        assert without_id(dry_run(client, model="auto")) == without_id(first)
    client.gateway.reload(fleet(upstream, other))
    again = dry_run(client, model="auto")
    assert without_id(again) == without_id(first), "the same file is the same policy"
    stricter = fleet(upstream, other).replace("local_first", "quality_first")
    client.gateway.reload(stricter)
    assert dry_run(client, model="auto").policy_version != first.policy_version


def test_c110_a_kept_decision_is_the_one_that_was_made(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = start(fleet(upstream, other))
    upstream.always(replies.chat())
    other.always(replies.chat())
    live = client.chat(model="auto", headers={"x-locavore-labels": "a"})
    assert live.status == 200
    kept = client.get(f"/v1/decisions/{live.headers['x-locavore-decision']}").json
    assert kept["decision"]["chosen"] == live.headers["x-locavore-model"] == "home/m"
    decision = msgspec.convert(kept["decision"], Decision, strict=False)
    assert without_id(decision) == without_id(client.record.decision)


def test_configurations_of_this_file_are_toml(
    upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    assert tomllib.loads(fleet(upstream, other))["backend"]
