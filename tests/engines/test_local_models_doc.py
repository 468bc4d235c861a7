"""What `docs/howto/local-models.md` says is so."""

import re
import shlex
import tomllib
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from locavore.cli import main as cli
from locavore.config.schema import File
from locavore.core.errors import LocavoreError
from locavore.engines import discover, pull
from locavore.engines.test_model import SENTENCE, write_test_model

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "local-models.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ locavore (.+)$", TEXT, re.MULTILINE)


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) == 4


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that would fetch are stopped at the connection: names and options must hold."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAVORE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_test_model(tmp_path / "my-model.gguf")
    result = CliRunner().invoke(cli, shlex.split(line))
    if result.exit_code:
        assert isinstance(result.exception, LocavoreError)
        assert "HF_HUB_OFFLINE is set" in str(result.exception)
    else:
        assert "my-model.gguf" in line or "--list" in line


def test_its_names_are_in_the_list() -> None:
    assert "embedded/" + pull.catalog()[0].name in TEXT


def test_its_configuration_is_valid() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    file = msgspec.convert(tomllib.loads(block), File)
    assert file.engine.context_tokens == 16_384


def test_its_sentence_is_what_the_model_says() -> None:
    assert f"> {SENTENCE}\n" in TEXT


def test_its_table_of_servers_is_the_data() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", TEXT, re.MULTILINE)
    told = {name: tuple(int(n) for n in re.findall(r"\d+", ports)) for name, ports in rows}
    assert told == {row.name: row.ports for row in discover.rows().values()}
