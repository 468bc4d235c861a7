"""`locavore route` and `locavore models`, as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from locavore.cli import main

CONFIG = """
posture = "local_first"
stage = "observe"
baseline = "cloud/big"
labels = ["health"]
[discover]
env = false
local = false
[[backend]]
id = "cloud/big"
url = "http://127.0.0.1:9/v1"
place = "public_api"
context_tokens = 100000
price = { input_mtok = 2, output_mtok = 8 }
[[backend]]
id = "home/small"
url = "http://127.0.0.1:9/v1"
context_tokens = 8192
price = { input_mtok = "0.10", output_mtok = "0.40" }
[[rule]]
name = "health stays"
when = { label = "health" }
require = { farthest = "on_prem" }
[alias]
"gpt-4o" = "auto"
"""


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return ["--config", str(path), "--home", str(tmp_path / "home")]


def run(*args: str, stdin: str | None = None) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "100"}).invoke(main, args, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def decided(*args: str, stdin: str | None = None) -> dict[str, object]:
    code, output = run("route", "--json", *args, stdin=stdin)
    decision: dict[str, object] = json.loads(output)
    assert code == (0 if decision["chosen"] else 1)
    return decision


def test_the_decision_is_told_with_every_candidate(given: list[str]) -> None:
    code, output = run("route", *given, "translate to French: good morning")
    assert code == 0
    for part in (
        "cloud/big would serve 'auto', then home/small",
        "task translate",
        "stage observe",
        "baseline",
        "quality_unknown",
        "public_api",
        "0.0082",
    ):
        assert part in output


def test_nothing_allowed_is_exit_code_1_and_names_the_rule(given: list[str]) -> None:
    code, output = run("route", *given, "--labels", "health", "--model", "cloud", "hello")
    assert code == 1
    assert "rules: health stays" in output
    assert "public_api is farther than on_prem" in output


def test_json_is_the_decision(given: list[str]) -> None:
    found = decided(*given, "--labels", "health", "hello")
    assert (found["chosen"], found["requested"]) == ("home/small", "auto")
    assert decided(*given, "--model", "gpt-4o", "hello")["resolved"] == "alias"


def test_options_narrow(given: list[str]) -> None:
    assert decided(*given, "--max-cost", "0.001", "hello")["chosen"] == "home/small"
    assert decided(*given, "--max-cost", "0.0000001", "hello")["chosen"] is None
    assert decided(*given, "--needs", "tools", "hello")["chosen"] is None
    assert decided(*given, "--output-tokens", "9000", "hello").get("fallbacks") is None


def test_a_whole_body_is_read_as_the_gateway_reads_it(given: list[str]) -> None:
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": "hi"}],
        "metadata": {"labels": "health"},
    }
    assert decided(*given, "--body", "-", stdin=json.dumps(body))["chosen"] == "home/small"


def test_mistakes_are_explained(given: list[str]) -> None:
    assert "give either a PROMPT or --body" in run("route", *given)[1]
    assert "'cheap' is no amount" in run("route", *given, "--max-cost", "cheap", "x")[1]
    assert "'tool' is none of" in run("route", *given, "--needs", "tool", "x")[1]


def test_unknown_names_and_labels_are_one_line_not_a_traceback(given: list[str]) -> None:
    for args, said in (
        (["--model", "home/smal"], "did you mean 'home/small'?"),
        (["--labels", "helth"], "known labels: health"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "locavore", "route", *given, *args, "hello"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_models_are_listed(given: list[str]) -> None:
    code, output = run("models", *given)
    assert code == 0
    for part in ("cloud/big (baseline)", "2 / 8", "home/small", "8,192", "alias gpt-4o -> auto"):
        assert part in output
    listed = json.loads(run("models", "--json", *given)[1])
    assert [b["id"] for b in listed["backends"]] == ["cloud/big", "home/small"]
    assert listed["aliases"] == {"gpt-4o": "auto"}
