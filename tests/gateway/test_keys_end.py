"""A gateway whose last key ends stays closed."""

import contextlib
import time
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from locavore.cli import main
from locavore.core.access import Grant
from locavore.ledger.keys import KeyStore
from locavore.testing import ScriptedUpstream, replies
from locavore.testing.gateway import RunningGateway


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_the_end_of_the_last_key_opens_nothing(tmp_path: Path, end: str) -> None:
    call = {"model": "home/m", "messages": [{"role": "user", "content": "Hi"}]}
    with ScriptedUpstream() as upstream:
        upstream.always(replies.chat("Hello"))
        config = f'[[backend]]\nid = "home/m"\nurl = "{upstream.url}"\n'
        with RunningGateway(tmp_path, config) as gateway:
            chat = f"{gateway.url}/chat/completions"
            assert httpx2.post(chat, json=call).status_code == 200, "no key was ever made"
            an_hour_ago_s = time.time() - 3600
            with contextlib.closing(KeyStore(tmp_path, clock=lambda: an_hour_ago_s)) as store:
                past_s = an_hour_ago_s + 1 if end == "expired" else None
                store.create(Grant(name="only", expires_s=past_s))
                if end == "revoked":
                    store.revoke("only")
            gateway.reload(config)
            refused = httpx2.post(chat, json=call)
            assert refused.status_code == 401
            other = httpx2.post(chat, json=call, headers={"x-api-key": "another"})
            assert other.status_code == 401
            assert len(upstream.requests) == 1
    told = CliRunner().invoke(main, ["doctor", "--home", str(tmp_path), "--json"]).stdout
    assert "no caller is let in" in told


def test_the_first_key_says_that_it_closes_the_gateway(tmp_path: Path) -> None:
    told = "asks every caller for a key"
    first, second = (
        CliRunner().invoke(main, ["keys", "create", name, "--home", str(tmp_path)])
        for name in ("one", "two")
    )
    assert told in first.stderr
    assert told not in second.stderr
