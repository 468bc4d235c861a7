"""Tables in a narrow terminal: names are folded, never cut."""

from io import StringIO

from click.testing import CliRunner
from rich.console import Console

from locavore import __version__
from locavore.cli import main
from locavore.cli.tables import table


def _printed(width: int) -> str:
    made = table(("model", "calls"), title="Calls", right=("calls",), whole=("calls",))
    made.add_row("embedded/a-rather-long-name", "12,345")
    out = StringIO()
    Console(file=out, width=width).print(made)
    return out.getvalue()


def test_a_name_without_room_is_folded_and_keeps_every_letter() -> None:
    printed = _printed(20)
    assert "…" not in printed
    letters = "".join(line[:12].strip() for line in printed.splitlines())
    assert "embedded/a-rather-long-name" in letters
    assert "12,345" in printed


def test_a_name_with_room_stays_on_one_line() -> None:
    assert "embedded/a-rather-long-name  12,345" in _printed(80)


def test_version_works_in_a_checkout() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"locavore {__version__}\n")
