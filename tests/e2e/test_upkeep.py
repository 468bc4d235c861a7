"""What a supervisor does with its stores now and then: alerts, prices, failures told once."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from locavore.compose.inventory import Inventory
from locavore.compose.upkeep import Upkeep
from locavore.config import load
from locavore.ledger.budgets import Authorizer, Reservation, leases_dir
from locavore.ledger.leases import LeaseTable
from locavore.ledger.prices import PriceBook
from locavore.ledger.sqlite_leases import SqliteLeases
from locavore.serving.snapshot import Snapshot
from locavore.testing import Reply, ScriptedUpstream

BUDGET = '[[budget]]\nunit = "usd"\nlimit = 1\nperiod = "total"\n'


@pytest.fixture
def hook() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        yield server


def spend(home: Path, snapshot: Snapshot, usd: str) -> None:
    table = LeaseTable(leases_dir(home))
    limits = Authorizer(snapshot.quotas, SqliteLeases(home), table)
    made = limits.reserve(None, None, Decimal(usd), 0)
    assert isinstance(made, Reservation)
    limits.settle(made, Decimal(usd), None)
    limits.close()


def test_a_webhook_is_told_and_its_failure_is_told_once(
    tmp_path: Path, hook: ScriptedUpstream
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'{BUDGET}[ledger]\nalert_webhook = "{hook.origin}/alerts"\n')
    config = load(path, {}, {"home": str(tmp_path)})
    snapshot = Snapshot(version="", policy=config.policy, backends=(), quotas=config.quotas)
    told: list[str] = []
    upkeep = Upkeep(config, told.append)
    upkeep.alert(snapshot)
    assert not hook.requests, "nothing was spent yet"
    spend(tmp_path, snapshot, "0.85")
    hook.script(Reply(status=500), Reply(status=500), Reply(status=204))
    for _ in range(4):
        upkeep.alert(snapshot)
    assert [r.json["percent"] for r in hook.requests] == [80, 80, 80]
    assert [line.partition(":")[0] for line in told] == ["alerts", "alerts"]
    assert told[-1] == "alerts: works again"
    assert not upkeep.failures


@pytest.mark.anyio
async def test_c70_prices_with_a_date_hold_from_that_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('baseline = "openai/o3"\n[discover]\nlocal = false\n')
    config = load(path, {}, {"home": str(tmp_path)})
    env = {"OPENAI_API_KEY": "k"}
    inventory = Inventory(config, env, tell=lambda _: None, engines=False)
    before = PriceBook.load(now=datetime(2025, 5, 1, tzinfo=UTC))
    with monkeypatch.context() as patched:
        patched.setattr(PriceBook, "load", lambda: before)
        await inventory.look(own_port=None)
        dear = price_of(inventory.compile())
        assert not inventory.reprice()
    assert inventory.reprice(), "its price fell in June 2025"
    assert price_of(inventory.compile()) < dear
    assert not inventory.reprice()
    await inventory.close()


def price_of(snapshot: Snapshot) -> Decimal:
    (found,) = [b.price for b in (*snapshot.backends, *snapshot.named) if b.id == "openai/o3"]
    assert found is not None
    assert found.rate.output_mtok is not None
    return found.rate.output_mtok
