"""docs/explain/deciding.md says what the code does."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from locavore.cli import main
from locavore.core.policy import QUALITY_FLOOR
from locavore.routing.reasons import EXCLUDES, NOTES

PAGE = Path(__file__).parents[2] / "docs" / "explain" / "deciding.md"
TEXT = PAGE.read_text("utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("locavore ")
]


def rows(codes: dict[str, str]) -> str:
    return "\n".join(f"| `{code}` | {meaning} |" for code, meaning in codes.items())


@pytest.mark.parametrize("codes", [EXCLUDES, NOTES])
def test_every_reason_code_is_in_the_table(codes: dict[str, str]) -> None:
    assert rows(codes) in TEXT


def test_the_floors_are_the_codes() -> None:
    for posture, floor in QUALITY_FLOOR.items():
        if floor:
            assert f"| `{posture}` | {floor:.2f} |" in TEXT


@pytest.mark.parametrize("line", COMMANDS)
def test_the_examples_run(line: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        'labels = ["health"]\ndiscover = { env = false, local = false }\n'
        '[[backend]]\nid = "a/b"\nurl = "http://127.0.0.1:9/v1"\nplace = "public_api"\n'
        "context_tokens = 32768\nprice = { input_mtok = 1, output_mtok = 2 }\n"
    )
    args = [*shlex.split(line)[1:], "--config", str(config), "--home", str(tmp_path)]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    assert "a/b would serve" in result.output


def test_there_are_examples() -> None:
    assert len(COMMANDS) >= 3
