"""Writes docs/reference/cli.md from `--help` of every command.

    python scripts/cli_reference.py

A test fails when the page is out of date.
"""

from collections.abc import Iterator
from pathlib import Path

import click

from locavore.cli import main as cli

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"
WIDTH = 100

HEAD = """\
# Command line

`locavore COMMAND --help` says the same. `--json` prints JSON. Errors say what was wrong and what to
do, on stderr. Exit code 0: done; 1: it failed, or the answer is no (nothing may serve, a check did
not pass); 2: the command line or the configuration is wrong. Written by `scripts/cli_reference.py`.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(path, text) for path, text in _helps(cli, "locavore"))


def _helps(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    """(path, help) of a command and of what is below it."""
    parent = None
    for name in path.split()[:-1]:
        parent = click.Context(click.Group(name), info_name=name, parent=parent)
    context = click.Context(
        command,
        info_name=path.split()[-1],
        parent=parent,
        help_option_names=["-h", "--help"],
        terminal_width=WIDTH,
        max_content_width=WIDTH,
    )
    yield path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _helps(found, f"{path} {name}")


def _section(path: str, text: str) -> str:
    depth = "#" * min(4, len(path.split()) + 1)
    return f"\n{depth} {path}\n\n```text\n{text.rstrip()}\n```\n"


def main() -> None:
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
