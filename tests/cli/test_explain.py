"""`locavore explain` and `locavore route --explain`, as a user types them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from locavore.cli import main
from locavore.routing.estimators import promised
from locavore.testing import ScriptedUpstream, replies
from locavore.testing.gateway import RunningGateway
from tests.conformance.client import Client, backend
from tests.serving.promises import short_answers_are_right


def run(*args: str) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "100"}).invoke(main, args)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def config(upstream: ScriptedUpstream) -> str:
    price = {"input_mtok": "2", "output_mtok": "8"}
    return (
        'stage = "route"\nbaseline = "sky/large"\nlabels = ["secret"]\n'
        + backend("sky/large", upstream, place="public_api", price=price)
        + backend("home/m", upstream, context_tokens=8192)
        + '[[rule]]\nname = "stay"\nwhen = { label = "secret" }\n'
        + 'require = { farthest = "on_prem" }\n'
    )


@pytest.fixture
def decision_id(home: Path) -> str:
    """Of a call that was served."""
    with ScriptedUpstream() as upstream:
        upstream.always(replies.chat("hello"))
        with RunningGateway(home, config(upstream)) as gateway:
            headers = {"x-locavore-labels": "secret"}
            answer = Client(gateway).chat(model="auto", headers=headers)
            return answer.headers["x-locavore-decision"]


def test_a_past_decision_is_explained_from_the_ledger(home: Path, decision_id: str) -> None:
    code, output = run("explain", decision_id, "--home", str(home))
    assert code == 0
    assert output.startswith("home/m was chosen for 'auto'")
    why, changes = output.split("why\n")[1].split("what would change it")
    assert "nothing else is allowed" in why
    assert "sky/large: farther away than the labels, rules or posture" in changes


def test_as_json_with_the_decision(home: Path, decision_id: str) -> None:
    code, output = run("explain", decision_id, "--home", str(home), "--json")
    found = json.loads(output)
    assert code == 0
    assert found["decision"]["id"] == found["explanation"]["id"] == decision_id
    assert found["explanation"]["chosen"] == "home/m"
    assert found["explanation"]["changes"][0]["kind"] == "limit"


def test_what_a_cascade_saw_is_told(home: Path) -> None:
    entry = short_answers_are_right("home/m", "sky/large")
    promised.save(home / promised.FOLDER, entry)
    ask = [{"role": "user", "content": "What is six times seven?"}]
    usage = {"prompt_tokens": 12, "completion_tokens": 200}
    with ScriptedUpstream() as local, ScriptedUpstream() as cloud:
        local.always(replies.chat("Let me see.", usage=usage))
        cloud.always(replies.chat("42"))
        both = config(cloud).replace(
            f'"home/m"\nurl = "{cloud.url}"', f'"home/m"\nurl = "{local.url}"'
        )
        with RunningGateway(home, both + "[explore]\nshare = 0\n") as gateway:
            answer = Client(gateway).chat(model="auto", messages=ask)
    id_ = answer.headers["x-locavore-decision"]
    _, output = run("explain", id_, "--home", str(home))
    came = output.split("what came of it\n")[1]
    assert "home/m, first: answered in" in came
    assert "sky/large, escalation: answered in" in came
    assert "looked at home/m for" in came
    assert ": doubtful, -" in came
    assert "sky/large then said something else" in came
    assert came.rstrip().endswith("served, status 200")
    _, as_json = run("explain", id_, "--home", str(home), "--json")
    assert json.loads(as_json)["cascade"]["reason"] == "doubtful"


def test_an_unknown_id_is_said_and_fails(home: Path, decision_id: str) -> None:
    assert decision_id
    result = CliRunner().invoke(main, ["explain", "no-such-id", "--home", str(home)])
    assert result.exit_code == 1
    assert "no decision 'no-such-id'" in result.output


def test_a_dry_run_explains_itself(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        'stage = "route"\nbaseline = "sky/large"\ndiscover = { env = false, local = false }\n'
        '[[backend]]\nid = "sky/large"\nurl = "http://127.0.0.1:9/v1"\nplace = "public_api"\n'
        "context_tokens = 9000\nprice = { input_mtok = 2, output_mtok = 8 }\n"
        '[[backend]]\nid = "home/m"\nurl = "http://127.0.0.1:9/v1"\ncontext_tokens = 9000\n'
    )
    options = ["--config", str(path), "--home", str(tmp_path)]
    code, output = run("route", "--explain", *options, "hello there")
    assert code == 0
    assert "the cheapest whose quality suffices" in output
    assert "home/m: no benchmark of it for this task" in output
    code, output = run("route", "--explain", "--json", *options, "hello there")
    assert json.loads(output)["explanation"]["chosen"] == "sky/large"
    code, output = run("route", "--json", *options, "hello there")
    assert json.loads(output)["chosen"] == "sky/large"


def test_its_help_has_examples() -> None:
    code, output = run("explain", "--help")
    assert code == 0
    assert "locavore route --explain" in output
