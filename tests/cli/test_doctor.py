"""`locavore doctor`: what is wrong, where, and what to do."""

import json
import os
import socket
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from locavore.cli import main
from locavore.testing import ScriptedUpstream, replies
from locavore.testing.gateway import RunningGateway


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


CLOSED = '[discover]\nlocal = false\nenv = false\n[server]\nport = 0\n[[backend]]\nid = "home/m"\n'


def _findings(home: Path) -> list[dict[str, str]]:
    arguments = ["doctor", "--json", "--home", str(home)]
    found: list[dict[str, str]] = json.loads(CliRunner().invoke(main, arguments).stdout)
    return found


def test_a_backend_on_loopback_where_nothing_listens_is_told(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"  # bound, and not listening
        (tmp_path / "config.toml").write_text(f'{CLOSED}url = "{url}"\n')
        (told,) = (f for f in _findings(tmp_path) if "nothing listens" in f["what"])
        assert told["level"] == "warn"
        assert told["what"] == f"nothing listens at {url} for home/m"
        free.listen()
        assert not [f for f in _findings(tmp_path) if "nothing listens" in f["what"]]


def test_a_refused_key_is_told_until_a_call_succeeds(tmp_path: Path) -> None:
    call = {"model": "home/m", "messages": [{"role": "user", "content": "Hi"}]}
    with ScriptedUpstream() as upstream:
        config = f'[[backend]]\nid = "home/m"\nurl = "{upstream.url}"\n'
        with RunningGateway(tmp_path, config) as gateway:
            upstream.script(replies.openai_error(401), replies.chat("Hello"))
            assert httpx2.post(f"{gateway.url}/chat/completions", json=call).status_code == 502
            gateway.wait_for_records(1)
            (told,) = (f for f in _findings(tmp_path) if f["where"] == "last try")
            assert "home/m refused the key (status 401), at " in told["what"]
            assert told["level"] == "warn"
            assert told["do"]
            assert httpx2.post(f"{gateway.url}/chat/completions", json=call).status_code == 200
            gateway.wait_for_records(2)
            assert not [f for f in _findings(tmp_path) if f["where"] == "last try"]
