"""Gateways on shared stores: one budget over two of them, and what they do when a store is lost."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from locavore.testing import ScriptedUpstream, replies
from locavore.testing.gateway import RunningGateway
from tests.contracts.servers import Postgres, Valkey, postgres, postgres_bin, valkey_binary
from tests.contracts.test_ledger_stores import empty
from tests.docs.examples import sections
from tests.e2e.serving import QUIET, Serving, environment, eventually, locavore

EXAMPLE = Path(__file__).parents[2] / "examples" / "two_gateways" / "run.py"
BUDGET = '[[budget]]\nunit = "requests"\nlimit = 6\nperiod = "total"\n'
LEDGER = '[ledger]\nurl = "${BOOKS}"\n'


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        server.always(replies.chat())
        yield server


@pytest.fixture
def books() -> Iterator[Postgres]:
    """A PostgreSQL of its own: the test kills it."""
    found = postgres_bin()
    if found is None:
        pytest.skip("no PostgreSQL here: apt install postgresql")
    with postgres(found) as server:
        yield server


def config(upstream: ScriptedUpstream, *parts: str) -> str:
    backend = f'[[backend]]\nid = "home/m"\nurl = "{upstream.url}"\n'
    return "".join((QUIET, backend, *parts))


def test_c60_two_gateways_keep_one_budget_exactly() -> None:
    if postgres_bin() is None or valkey_binary() is None:
        pytest.skip("no PostgreSQL or no Valkey here: apt install postgresql redis-server")
    done = subprocess.run(
        [sys.executable, EXAMPLE], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("12 of 200 calls were served, 12 reached the model", "the books hold"):
        assert words in done.stdout


def test_c81_without_its_limiter_a_gateway_has_its_share(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    lost = f'[ledger]\nlimits_url = "unix://{tmp_path}/nobody.sock"\nnodes = 2\n'
    with Serving(tmp_path, config(upstream, BUDGET, lost), "--workers=1") as serving:
        assert [serving.chat().status for _ in range(4)] == [200, 200, 200, 429]
        serving.told("limits: ")
        told: list[str] = eventually(lambda: degraded(serving), "readiness tells")
        assert "nobody.sock" in told[0]
        assert serving.get("/health/ready").status == 200
    found = locavore("doctor", home=tmp_path)
    assert "nobody.sock" in found.stdout


def test_the_guide_to_shared_state_works(
    tmp_path: Path, upstream: ScriptedUpstream, books: Postgres, valkey_server: Valkey
) -> None:
    parts = sections("howto/shared-state.md")
    (toml,) = [code for part in parts for code in part.code("toml")]
    patient = f"{valkey_server.url}?socket_timeout=5"  # a busy machine is no lost limiter
    env = {"LOCAVORE_LEDGER_URL": books.url, "LOCAVORE_LIMITS_URL": patient}
    with Serving(tmp_path, config(upstream, BUDGET, toml), "--workers=1", env=env) as serving:
        assert serving.chat().status == 200
        (code,) = [code for part in parts for code in part.code("sh")]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euc", code.replace("127.0.0.1:4000", f"127.0.0.1:{serving.port}")],
            env=environment(tmp_path, **env, COLUMNS="200") | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("shared by 2 gateways", '"degraded":[]', "1 calls in 1 blocks"):
        assert words in done.stdout


def degraded(serving: Serving) -> list[str]:
    told: list[str] = serving.get("/health/ready").json["degraded"]
    return told


def test_c80_a_lost_ledger_stops_no_call_and_is_caught_up_with(
    tmp_path: Path, upstream: ScriptedUpstream, books: Postgres
) -> None:
    env = {"LOCAVORE_LEDGER_URL": books.url}
    made = json.loads(locavore("keys", "create", "web", "--json", home=tmp_path, **env).stdout)
    key = {"authorization": f"Bearer {made['key']}"}
    text = config(upstream, LEDGER)
    with Serving(tmp_path, text, "--workers=1", env={"BOOKS": books.url}) as serving:
        assert serving.chat().status == 401
        assert serving.chat(key).status == 200
        books.kill()
        told: list[str] = eventually(lambda: degraded(serving), "readiness tells")
        assert "PostgreSQL" in told[0]
        assert serving.chat(key).status == 200
        assert serving.chat().status == 401
        assert serving.get("/metrics", key).status == 503
        books.start()
        eventually(lambda: not degraded(serving), "works again")
        assert served(tmp_path, env) == 2
        assert serving.stderr.count("keys: the ledger") == 1
    assert not (tmp_path / "ledger.sqlite3").exists()


def test_a_gateway_in_a_test_tells_what_postgresql_has(
    tmp_path: Path, upstream: ScriptedUpstream, postgres_server: Postgres
) -> None:
    url = empty(postgres_server)
    text = config(upstream, LEDGER).replace(QUIET, "")
    with RunningGateway(tmp_path, text, env={"BOOKS": url}) as gateway:
        body = {"model": "home/m", "messages": [{"role": "user", "content": "Hello"}]}
        with httpx2.Client(trust_env=False) as client:
            answer = client.post(f"{gateway.url}/chat/completions", json=body, timeout=30)
        assert answer.status_code == 200
        assert [record.outcome for record in gateway.records()] == ["served"]
    assert not (tmp_path / "ledger.sqlite3").exists()


def served(home: Path, env: dict[str, str]) -> Any:
    return json.loads(locavore("report", "--json", home=home, **env).stdout)["total"]["served"]


def test_without_its_keys_a_gateway_does_not_start(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    (tmp_path / "config.toml").write_text(config(upstream, LEDGER))
    url = "postgresql://user:hidden@127.0.0.1:1/books"
    refused = locavore("serve", "--port=0", home=tmp_path, BOOKS=url)
    assert refused.returncode != 0
    assert "PostgreSQL cannot be used" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "hidden" not in refused.stderr
