"""Links lead somewhere, and what stands in a code block is what its language says."""

import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from locavore.cli import main
from locavore.config import load
from locavore.config.schema import File
from locavore.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(language: str) -> list[tuple[str, str]]:
    """(page and line, code) of every block in this language."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in BLOCK.finditer(text):
            if match[2] == language:
                line = text.count("\n", 0, match.start()) + 1
                code = re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE)
                found.append((f"{name_of(page)}:{line}", code))
    return found


def anchors(page: Path) -> set[str]:
    """As the usual renderers make them from headings."""
    made = set()
    for heading in HEADING.findall(page.read_text("utf-8")):
        plain = re.sub(r"[^\w\- ]", "", heading.lower().replace("`", ""))
        made.add(plain.replace(" ", "-"))
    return made


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text("utf-8")):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        missing = not target.exists()
        if missing or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize(("where", "code"), blocks("python"), ids=lambda v: v.partition("\n")[0])
def test_python_blocks_are_python(where: str, code: str) -> None:
    compile(code, where, "exec")


SETTINGS = [b for b in blocks("toml") if not b[0].startswith("docs/howto/plan.md")]
KEYS = frozenset(File.__struct_fields__)
STORES = {"LOCAVORE_LEDGER_URL": "postgresql://db/x", "LOCAVORE_LIMITS_URL": "redis://db"}


@pytest.mark.parametrize(("where", "code"), SETTINGS, ids=lambda v: v.partition("\n")[0])
def test_toml_blocks_are_configurations(where: str, code: str, tmp_path: Path) -> None:
    table = tomllib.loads(code)
    if not KEYS.issuperset(table):
        pytest.skip(f"{where} is no configuration: {sorted(set(table) - KEYS)}")
    path = tmp_path / "config.toml"
    path.write_text(code, "utf-8")
    named = re.findall(r"\$\{(\w+)\}", code) + re.findall(r'api_key_env = "(\w+)"', code)
    env = {"HOME": str(tmp_path), "LOCAVORE_HOME": str(tmp_path), "OPENAI_API_KEY": "k"}
    try:
        load(path, env | {name: STORES.get(name, "secret") for name in named}, {})
    except ConfigError as error:
        raise AssertionError(f"{where}: {error.problems}") from error


# -- commands -----------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    """(page and line, line) of each `locavore ...` in a shell block."""
    for language in ("sh", "console", "text"):
        for where, code in blocks(language):
            for line in code.replace("\\\n", " ").splitlines():
                text = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
                if language != "text" and text.startswith("locavore "):
                    yield where, text


def parse(line: str) -> None:
    """Find the command and read its options, without running it. Raises click.UsageError."""
    words = shlex.split(line, comments=True)
    for stop in ("|", ">", "&&", "&", ";", "<"):
        if stop in words:
            words = words[: words.index(stop)]
    command: click.Command = main
    context = click.Context(main, info_name="locavore", **main.context_settings)
    arguments = words[1:]
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        found = command.get_command(context, arguments[0])
        if found is None:
            if command.invoke_without_command:
                break
            raise click.UsageError(f"no command {arguments[0]!r}")
        command, arguments = found, arguments[1:]
        context = click.Context(command, info_name=words[1], parent=context)
    command.make_parser(context).parse_args(list(arguments))


COMMANDS = sorted(set(commands()))


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 20


@pytest.mark.parametrize(("where", "line"), COMMANDS, ids=lambda value: value[:60])
def test_commands_of_the_pages_exist_with_their_options(where: str, line: str) -> None:
    parse(line)


@pytest.mark.parametrize("line", ["locavore nonsense", "locavore report --no-such-option"])
def test_a_command_that_does_not_exist_would_be_found(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line)


MAKE = [
    (where, line.split()[1])
    for where, code in blocks("sh")
    for line in code.splitlines()
    if re.match(r"make \w", line)
]


@pytest.mark.parametrize(("where", "target"), MAKE)
def test_make_targets_of_the_pages_exist(where: str, target: str) -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(rf"^{re.escape(target)}:", text, re.MULTILINE), os.fspath(where)
