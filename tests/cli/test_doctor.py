"""`locavore doctor`: what is wrong, where, and what to do."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from locavore.cli import main


def test_a_home_that_cannot_be_written_is_the_last_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    if os.access(home, os.W_OK):  # root may write anywhere
        monkeypatch.setattr(os, "access", lambda *_: False)
    done = CliRunner().invoke(main, ["doctor", "--json", "--home", str(home)])
    assert done.exit_code == 1
    assert done.exception is None or isinstance(done.exception, SystemExit)
    last = json.loads(done.stdout)[-1]
    assert (last["level"], last["where"]) == ("fail", "home")
    assert last["what"] == f"{home} is not writable"


def test_names_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[alias]\n"gpt-4o" = "nowhere/y"\n[discover]\nlocal = false\nenv = false\n'
        '[server]\nport = 0\n[[backend]]\nid = "home/m"\nurl = "http://127.0.0.1:1/v1"\n'
    )
    arguments = ["doctor", "--json", "--config", str(config), "--home", str(tmp_path / "home")]
    findings = json.loads(CliRunner().invoke(main, arguments).stdout)
    told = [f for f in findings if f["where"] == "policy"]
    assert len(told) == 1
    assert told[0]["level"] == "warn"
    assert "nowhere/y" in told[0]["what"]
    assert told[0]["do"]
