"""Every command explains itself by example, and every command that prints data prints JSON."""

import re
from collections.abc import Iterator

import click
import pytest

from locavore.cli import main
from tests.architecture.test_pages import parse

ACTS = frozenset({"serve", "ledger correct", "ledger erase", "ledger prune", "keys revoke"})
"""Commands that do something rather than tell something."""
ALWAYS_JSON = frozenset({"ledger show"})


def leaves(
    command: click.Command, path: tuple[str, ...] = (), parent: click.Context | None = None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    name = path[-1] if path else "locavore"
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    if not isinstance(command, click.Group):
        yield " ".join(path), command, context
        return
    for inner in command.list_commands(context):
        found = command.get_command(context, inner)
        assert found is not None
        yield from leaves(found, (*path, inner), context)


COMMANDS = {name: (command, context) for name, command, context in leaves(main)}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_it_does_and_shows_examples_that_parse(name: str) -> None:
    command, context = COMMANDS[name]
    text = command.get_help(context)
    assert (command.help or "").strip()
    assert "Examples:" in text
    examples = re.findall(r"^ +(locavore .+?)(?: {2,}.*)?$", text, re.MULTILINE)
    assert examples
    for line in examples:
        parse(line)


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - ACTS - ALWAYS_JSON))
def test_what_prints_data_prints_json(name: str) -> None:
    command, _ = COMMANDS[name]
    assert any("--json" in parameter.opts for parameter in command.params)


def test_options_explain_themselves() -> None:
    silent = [
        (name, parameter.name)
        for name, (command, _) in COMMANDS.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert silent == []
