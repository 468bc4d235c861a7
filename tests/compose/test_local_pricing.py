"""What models on this machine cost: from its price, its energy and what they used of it (C73)."""

import contextlib
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from locavore.compose.local_pricing import LEAST_CALLS, LocalPricing
from locavore.config.schema import MachineTable
from locavore.core.money import Usage
from locavore.ledger.energy import read_meters
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.query import open_current
from locavore.testing import ScriptedUpstream, replies
from tests.docs.examples import sections
from tests.e2e.serving import QUIET, Serving, eventually, locavore
from tests.ledger.records import attempt, call

NOW_S = 1_800_000_000.0
TOKENS = Usage(input_tokens=1000, output_tokens=100)


def machine(**fields: object) -> MachineTable:
    known = {"price_usd": Decimal(3156), "years": Decimal(1), "kwh_usd": (Decimal("0.36"),)}
    return MachineTable(**(known | fields))  # type: ignore[arg-type]


def used(home: Path, now_s: float, *backends: str, calls: int = LEAST_CALLS) -> None:
    """Calls of ten seconds each, one after the other, two of them reading the prompt."""
    journal = SegmentJournal(home)
    for n in range(calls):
        for which, backend in enumerate(backends):
            start_s = now_s - 3600 + n * 20 * len(backends) + which * 20
            tried = attempt(
                1, backend=backend, usage=TOKENS, started_s=start_s, duration_s=10.0, ttft_s=2.0
            )
            journal.append(call(f"{backend}{n}", tried, started_s=start_s))
    journal.close()
    open_current(home).close()


def clock(now_s: float) -> Callable[[], float]:
    return lambda: now_s


def test_c73_modelled_shares_of_all_models_add_up_to_what_the_machine_cost(tmp_path: Path) -> None:
    used(tmp_path, NOW_S, "home/a", "home/b")
    told: list[str] = []
    pricing = LocalPricing(
        tmp_path,
        machine(idle_w=100.0, busy_w=300.0),
        tell=told.append,
        meters=dict,
        clock=clock(NOW_S),
    )
    assert pricing.reprice(["home/a", "home/b"])
    total = Decimal(0)
    for price in pricing.prices.values():
        assert price.source == "local, modelled with 100 and 300 W"
        assert price.rate.input_mtok is not None
        assert price.rate.output_mtok is not None
        total += LEAST_CALLS * (price.rate.input_mtok * 1000 + price.rate.output_mtok * 100) / 10**6
    busy_s = LEAST_CALLS * 2 * 10
    joules = busy_s * 300 + (3600 - busy_s) * 100
    expected = Decimal(joules) / 3_600_000 * Decimal("0.36") + Decimal(3156) * 3600 / 31_557_600
    assert total == pytest.approx(expected, rel=Decimal("0.0001"))
    assert not pricing.reprice(["home/a", "home/b"])  # within the hour
    assert told == []


def test_counters_are_read_and_say_so(tmp_path: Path) -> None:
    zone = tmp_path / "rapl" / "intel-rapl:0"
    zone.mkdir(parents=True)
    now = [NOW_S]

    def meters() -> dict[str, int]:
        return {m: j for m, j in read_meters(tmp_path / "rapl").items() if m.startswith("rapl")}

    pricing = LocalPricing(
        tmp_path, machine(), tell=pytest.fail, meters=meters, clock=lambda: now[0]
    )
    for minute in range(61):
        now[0] = NOW_S - 3600 + minute * 60
        (zone / "energy_uj").write_text(str(minute * 60 * 50 * 10**6))  # 50 W
        assert pricing.read() == ({"rapl:intel-rapl:0": 3000} if minute else {})
    used(tmp_path, NOW_S, "home/a")
    assert pricing.reprice(["home/a"])
    (price,) = pricing.prices.values()
    assert price.source == "local, measured by rapl"
    assert price.rate.input_mtok is not None
    assert price.rate.output_mtok is not None
    spent = LEAST_CALLS * (price.rate.input_mtok * 1000 + price.rate.output_mtok * 100) / 10**6
    expected = Decimal("0.05") * Decimal("0.36") + Decimal(3156) * 3600 / 31_557_600
    assert spent == pytest.approx(expected, rel=Decimal("0.0001"))


def test_what_was_used_while_this_gateway_did_not_run_is_nobodys(tmp_path: Path) -> None:
    readings = iter([0, 3000, 9_000_000, 9_003_000])
    now = [NOW_S]
    free = machine(price_usd=Decimal(0))
    pricing = LocalPricing(
        tmp_path,
        free,
        tell=pytest.fail,
        meters=lambda: {"rapl:x": next(readings, 9_003_000)},
        clock=lambda: now[0],
    )
    for at_s in (-3600, -3540, -60, 0):
        now[0] = NOW_S + at_s
        pricing.read()
    used(tmp_path, NOW_S, "home/a")
    assert pricing.reprice(["home/a"])
    (price,) = pricing.prices.values()
    assert price.rate.input_mtok is not None
    assert price.rate.output_mtok is not None
    spent = LEAST_CALLS * (price.rate.input_mtok * 1000 + price.rate.output_mtok * 100) / 10**6
    assert spent == pytest.approx(Decimal(6000) / 3_600_000 * Decimal("0.36"), rel=Decimal("0.001"))


def test_without_evidence_there_is_no_price_and_what_is_missing_is_told_once(
    tmp_path: Path,
) -> None:
    told: list[str] = []
    pricing = LocalPricing(tmp_path, machine(), tell=told.append, meters=dict, clock=clock(NOW_S))
    used(tmp_path, NOW_S, "home/a")
    assert not pricing.reprice(["home/a"])
    pricing._clock = clock(NOW_S + 3600)
    assert not pricing.reprice(["home/a"])
    assert ["idle_w and busy_w" in line for line in told] == [True]
    with contextlib.suppress(FileNotFoundError):
        (tmp_path / "ledger.sqlite3").unlink()
    few = LocalPricing(
        tmp_path, machine(idle_w=1.0, busy_w=2.0), tell=told.append, meters=dict, clock=clock(NOW_S)
    )
    used(tmp_path, NOW_S, "home/a", calls=LEAST_CALLS - 1)
    assert not few.reprice(["home/a"])


MACHINE = """
[machine]
price_usd = "900"
years = 4
kwh_usd = ["0.30"]
idle_w = 40
busy_w = 200
"""


def test_c73_a_gateway_books_local_calls_at_the_price_of_its_machine(tmp_path: Path) -> None:
    import time

    with ScriptedUpstream() as upstream:
        upstream.always(replies.chat())
        text = f'{QUIET}[[backend]]\nid = "home/m"\nurl = "{upstream.url}"\n{MACHINE}'
        used(tmp_path, time.time(), "home/m")
        with Serving(tmp_path, text, "--workers=1") as serving:
            serving.told("prices of models on this machine: home/m")
            cost = eventually(
                lambda: float(serving.chat(model="home/m").headers.get("x-locavore-cost-usd", 0)),
                "a call has a cost",
            )
            assert cost > 0
            assert serving.stop() == 0
    lines = json.loads(locavore("report", "--by", "place", "--json", home=tmp_path).stdout)
    (line,) = lines["lines"]
    assert Decimal(line["cost_usd"]) > 0


def test_the_page_on_money_shows_a_machine_that_works(tmp_path: Path) -> None:
    (code,) = [code for part in sections("explain/money.md") for code in part.code("toml")]
    (tmp_path / "config.toml").write_text(code)
    checked = locavore("serve", "--check", home=tmp_path)
    assert checked.returncode == 0, checked.stderr


def test_a_machine_that_cannot_be_priced_is_told_with_key_and_value(tmp_path: Path) -> None:
    wrong = MACHINE.replace('["0.30"]', '["0.30", "0.20"]').replace("busy_w = 200\n", "")
    (tmp_path / "config.toml").write_text(wrong)
    refused = locavore("serve", "--check", home=tmp_path)
    assert refused.returncode != 0
    said = refused.stdout + refused.stderr
    assert "machine.kwh_usd: expected 1 or 24 prices, got 2" in said
    assert "machine.idle_w: expected with busy_w, or neither" in said
