"""Tables in a narrow terminal: names are folded, never cut."""

from io import StringIO

from click.testing import CliRunner
from rich.console import Console

from locavore import __version__
from locavore.cli import main, quality
from locavore.cli.tables import table
from locavore.core.estimate import Estimate
from locavore.evidence.achieved import Achieved


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


def test_achieved_quality_is_whole_in_a_narrow_terminal() -> None:
    sure = Estimate(mean=0.2, low=0.191, high=0.246, n=152, source="test")
    line = Achieved(
        local="house/qwen3-8b", cloud="openai/gpt-4.1", promise="p", task=None, target=0.98,
        confidence=0.95, basis="evidence", labels=320, expected=sure, explored=1152, kept=1152,
        judged=1052, judged_kept=1052, quality=sure, needed=345, form=sure, agreement=sure,
    )  # fmt: skip
    out = StringIO()
    quality.show([line], Console(file=out, width=80))
    table_text = out.getvalue().partition("Promised:")[0]
    for part in ("house/qwen3-8b", "expected", "(19.1-24.6%)", "of 1,152", "agree"):
        assert part in table_text
    assert "…" not in table_text
