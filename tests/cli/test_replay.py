"""`locavore replay`: recorded calls under another policy."""

import json
from decimal import Decimal
from pathlib import Path

import openai
import pytest
from click.testing import CliRunner

from locavore.cli import main
from locavore.routing.estimators.promised import FOLDER, save
from locavore.testing.gateway import RunningGateway
from locavore.testing.replies import chat
from locavore.testing.upstream import ScriptedUpstream
from tests.promises import entry

BACKENDS = """
labels = ["health"]
[discover]
env = false
local = false
[[backend]]
id = "cloud/big"
url = "{url}"
place = "public_api"
context_tokens = 100000
price = {{ input_mtok = 2, output_mtok = 8 }}
[[backend]]
id = "home/small"
url = "{url}"
context_tokens = 8192
price = {{ input_mtok = "0.10", output_mtok = "0.40" }}
"""
NOW = 'posture = "local_first"\nstage = "observe"\nbaseline = "cloud/big"\n'
OTHER = NOW
CHAT_STAYS = """
[[rule]]
name = "small talk stays"
when = { task = "chat" }
require = { farthest = "on_prem" }
"""
USAGE = {"prompt_tokens": 1_000_000, "completion_tokens": 0}


def body(text: str) -> dict[str, object]:
    return {"model": "auto", "messages": [{"role": "user", "content": text}]}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    backends = BACKENDS.format(url="http://127.0.0.1:9/v1")
    (tmp_path / "now.toml").write_text(NOW + backends)
    (tmp_path / "other.toml").write_text(OTHER + backends + CHAT_STAYS)
    lines = [
        {"custom_id": "easy", "body": body("Hello, how are you?"), "usage": USAGE},
        {"custom_id": "hard", "body": body("Write a Python function that sorts."), "usage": USAGE},
    ]
    (tmp_path / "calls.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return {p.stem: str(p) for p in tmp_path.iterdir()} | {"home": str(tmp_path / "home")}


def run(files: dict[str, str], *more: str) -> str:
    arguments = ["replay", "--config", files["now"], "--policy", files["other"]]
    result = CliRunner(env={"COLUMNS": "120"}).invoke(
        main, [*arguments, "--home", files["home"], *more]
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def test_calls_move_and_their_measured_usage_is_priced_anew(files: dict[str, str]) -> None:
    found = json.loads(run(files, files["calls"], "--json"))
    assert [m["id"] for m in found["moves"]] == ["easy"]
    assert found["before"]["places"] == {"public_api": 2}
    assert found["after"]["places"] == {"on_prem": 1, "public_api": 1}
    assert Decimal(found["before"]["cost_usd"]) == 4
    assert Decimal(found["after"]["cost_usd"]) == Decimal("2.1")
    (flow,) = found["flows"]
    assert (flow["before"], flow["after"], flow["calls"]) == ("cloud/big", "home/small", 1)
    assert (Decimal(flow["saved_usd"]), flow["unknown"]) == (Decimal("1.9"), 0)
    assert found["before"]["quality"]["n"] == 2
    assert found["after"]["quality"]["n"] == 1  # nothing is known of the small model's


def test_c110_a_replay_repeats_itself_exactly(files: dict[str, str]) -> None:
    assert run(files, files["calls"], "--json") == run(files, files["calls"], "--json")


def test_the_table_names_the_calls_that_move(files: dict[str, str]) -> None:
    told = run(files, files["calls"])
    assert "1 of 2 calls move" in told
    assert "1 calls cloud/big -> home/small: $1.900000 less" in told
    assert "easy (chat): cloud/big -> home/small" in told


def test_a_line_that_is_no_call_is_named(files: dict[str, str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"model": "auto", "messages": []}\n[1]\n')
    result = CliRunner().invoke(main, ["replay", str(bad), "--policy", files["other"]])
    assert result.exit_code == 2
    assert "bad.jsonl, line" in result.output


def test_the_own_ledger_is_replayed_from_its_facts(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        upstream.always(chat("fine"))
        backends = BACKENDS.format(url=upstream.url).replace(
            "[discover]\nenv = false\nlocal = false\n", ""
        )
        with RunningGateway(tmp_path / "home", NOW + backends) as gateway:
            client = openai.OpenAI(base_url=gateway.url, api_key="none", max_retries=0)
            client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "Hello, how are you?"}]
            )
            gateway.records()
    (tmp_path / "now.toml").write_text(NOW + BACKENDS.format(url="http://127.0.0.1:9/v1"))
    (tmp_path / "other.toml").write_text(
        OTHER + BACKENDS.format(url="http://127.0.0.1:9/v1") + CHAT_STAYS
    )
    files = {name: str(tmp_path / f"{name}.toml") for name in ("now", "other")}
    command = ["replay", "--policy", files["other"], "--config", files["now"], "--json"]
    command += ["--home", str(tmp_path / "home")]
    replayed = CliRunner().invoke(main, command, catch_exceptions=False)
    found = json.loads(replayed.stdout)
    assert found["before"]["calls"] == 1
    assert [m["after"]["chosen"] for m in found["moves"]] == ["home/small"]
    assert not replayed.stderr
    save(tmp_path / "home" / FOLDER, entry("home/small", "cloud/big"))
    again = CliRunner().invoke(main, command, catch_exceptions=False)
    assert again.stdout == replayed.stdout
    assert "promises are not asked" in again.stderr
