"""What the command line says to a name it does not know."""

import pytest
from click.testing import CliRunner

from locavore.cli import main


@pytest.mark.parametrize(("typed", "meant"), [("serv", "serve"), ("reprot", "report")])
def test_a_mistyped_command_names_the_nearest(typed: str, meant: str) -> None:
    done = CliRunner().invoke(main, [typed])
    assert done.exit_code == 2
    assert f"No such command {typed!r}. Did you mean {meant!r}?" in done.output


def test_a_name_like_no_command_is_only_refused() -> None:
    done = CliRunner().invoke(main, ["xyzzy"])
    assert done.exit_code == 2
    assert "Did you mean" not in done.output
