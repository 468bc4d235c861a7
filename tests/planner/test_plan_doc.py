"""Every example of docs/howto/plan.md runs as written."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from locavore.catalog.load import load, merge, parse
from locavore.cli import main
from locavore.planner.planning import plan
from locavore.planner.workload import from_file

DOC = Path(__file__).parents[2] / "docs" / "howto" / "plan.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", DOC.read_text("utf-8"), re.DOTALL)
COMMANDS = [
    line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.strip()
]
TOML = [text for kind, text in BLOCKS if kind == "toml"]
MAY_REFUSE = ("locavore fit", "locavore catalog license")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAVORE_HOME", str(tmp_path))


@pytest.mark.parametrize("line", [c for c in COMMANDS if "--from-ledger" not in c])
def test_example_runs(line: str) -> None:
    program, *arguments = shlex.split(line)
    assert program == "locavore"
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    allowed = (0, 1) if line.startswith(MAY_REFUSE) else (0,)
    assert result.exit_code in allowed, result.output
    assert result.output.strip()


def test_workload_file_gives_a_hybrid_split_with_its_cost(tmp_path: Path) -> None:
    path = tmp_path / "workload.toml"
    path.write_text(TOML[0], encoding="utf-8")
    work = from_file(path)
    assert work.input_tokens_day == 60e6
    found = plan(work)
    assert found.hybrid is not None
    assert [part.share for part in found.hybrid.slices] == [0.7, 0.3]
    assert found.hybrid.usd_month is not None


def test_catalog_file_overrides_a_rate() -> None:
    catalog = load()
    shipped = catalog.rate("engineering_usd_hour").figure.value
    fresh = type(catalog)()
    merge(fresh, parse(TOML[1], "mine.toml"), "mine.toml")
    assert fresh.rate("engineering_usd_hour").figure.value == 95 != shipped


def test_python_example(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = [text for kind, text in BLOCKS if kind == "python"]
    exec(compile(code, str(DOC), "exec"), {})
    assert "genai-prices" in capsys.readouterr().out


def test_an_empty_ledger_is_said_to_be_empty(tmp_path: Path) -> None:
    arguments = ["plan", "--from-ledger", "--since", "4w", "--home", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code != 0
    assert "no served call" in str(result.exception.problems if result.exception else "")  # type: ignore[attr-defined]
