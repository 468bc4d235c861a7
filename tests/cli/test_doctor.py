"""`locavore doctor`: what is wrong, where, and what to do."""

import json
from pathlib import Path

from click.testing import CliRunner

from locavore.cli import main


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
