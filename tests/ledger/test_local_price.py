"""The true local price: energy by the hour and the machine, idle time borne once, nothing lost."""

import contextlib
import json
import time
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from locavore.cli import main
from locavore.ledger.energy import Interval, measured, read_meters, record
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.local_price import (
    YEAR_S,
    Machine,
    Tariff,
    Work,
    local_cost,
    modelled,
    price_of,
)
from locavore.ledger.store import open_store
from tests.ledger.records import attempt, call

KWH = 3_600_000
HOUR_S = 3600.0
FREE_MACHINE = Machine(price_usd=Decimal(0), lifetime_years=Decimal(1))
TARIFF = Tariff(usd_per_kwh=(Decimal("0.30"),))
PICO = 10**12


def work(start_s: float, end_s: float, prefill_s: float = 0.0) -> Work:
    return Work(start_s, end_s, prefill_s, 1000, 100)


def test_c73_energy_times_tariff_plus_the_machines_share() -> None:
    machine = Machine(
        price_usd=Decimal(3000), residual_usd=Decimal(1000), lifetime_years=Decimal(1)
    )
    hours = [Interval(0, HOUR_S, KWH)]
    cost = local_cost(hours, [work(0, HOUR_S)], machine, TARIFF)
    assert cost.energy_pico == round(0.30 * PICO)
    assert cost.machine_pico == round(Decimal(2000) * 3600 / YEAR_S * PICO)
    assert cost.shares_pico == (cost.total_pico,)
    assert cost.idle_pico == 0


def test_c73_each_hour_has_its_own_tariff() -> None:
    by_hour = tuple(Decimal("0.40") if 6 <= hour < 22 else Decimal("0.10") for hour in range(24))
    tariff = Tariff(usd_per_kwh=by_hour, zone="Europe/Berlin")
    noon, midnight = 1_767_268_800.0, 1_767_225_600.0 + 82_800  # 13:00 and 00:00 in Berlin
    hours = [Interval(noon, noon + HOUR_S, KWH), Interval(midnight, midnight + HOUR_S, KWH)]
    assert local_cost(hours, [], FREE_MACHINE, tariff).energy_pico == round(0.50 * PICO)


def test_c73_idle_energy_is_borne_once_by_all_calls() -> None:
    hours = [Interval(n * HOUR_S, (n + 1) * HOUR_S, KWH) for n in range(10)]
    works = [work(0, HOUR_S), work(5 * HOUR_S, 6 * HOUR_S)]
    cost = local_cost(hours, works, FREE_MACHINE, TARIFF)
    assert cost.idle_pico == round(8 * 0.30 * PICO)
    assert cost.shares_pico == (cost.total_pico // 2, cost.total_pico // 2)
    assert cost.busy_s / cost.window_s == 0.2


def test_calls_at_the_same_time_share_by_their_seconds() -> None:
    cost = local_cost([Interval(0, 10, KWH)], [work(0, 10), work(5, 10)], FREE_MACHINE, TARIFF)
    assert cost.shares_pico == (round(0.2 * PICO), round(0.1 * PICO))


def test_without_a_call_nobody_bears_anything() -> None:
    cost = local_cost([Interval(0, 10, KWH)], [], FREE_MACHINE, TARIFF)
    assert (cost.shares_pico, cost.idle_pico) == ((), cost.total_pico)
    assert price_of(cost, []).per_call_usd is None


seconds = st.integers(0, 200).map(lambda n: n / 2)
spans = st.tuples(seconds, seconds).map(lambda pair: (min(pair), max(pair) + 0.5))


@given(
    works=st.lists(spans.map(lambda span: work(*span)), max_size=12),
    joules=st.lists(st.integers(0, 10**7), min_size=1, max_size=12),
)
def test_c73_the_shares_add_up_to_the_whole(works: list[Work], joules: list[int]) -> None:
    machine = Machine(price_usd=Decimal("1234.56"), lifetime_years=Decimal("3.5"))
    intervals = [Interval(n * 10.0, n * 10.0 + 10, j) for n, j in enumerate(joules)]
    cost = local_cost(intervals, works, machine, TARIFF)
    assert sum(cost.shares_pico) == (cost.total_pico if works else 0)
    assert all(share >= 0 for share in cost.shares_pico)


def test_modelled_power_is_busy_while_any_call_runs() -> None:
    works = [work(10, 30), work(20, 40), work(100, 110)]
    intervals = modelled(works, since_s=0, until_s=150, idle_w=50, busy_w=300)
    assert sum(i.joules for i in intervals) == 40 * 300 + 110 * 50
    assert [(i.start_s, i.end_s) for i in intervals] == [(0, 60), (60, 120), (120, 150)]


def test_the_price_splits_prefill_and_decoding() -> None:
    works = [work(0, 10, prefill_s=2.5)]
    cost = local_cost([Interval(0, 10, KWH)], works, FREE_MACHINE, TARIFF)
    price = price_of(cost, works)
    assert price.input_mtok == Decimal("75")  # a quarter of 0.30 USD over 1,000 tokens
    assert price.output_mtok == Decimal("2250")
    assert price.per_call_usd == Decimal("0.3")


def test_meters_are_counters_and_a_reset_is_a_gap(tmp_path: Path) -> None:
    with contextlib.closing(open_store(tmp_path)) as db:
        for at_s, gpu, cpu in ((0, 100, 10), (10, 400, 20), (20, 50, 40), (30, 80, 50)):
            record(db, {"nvml:a": gpu, "rapl:b": cpu}, now_s=at_s)
        assert measured(db, since_s=0, until_s=100) == [
            Interval(0, 10, 310),
            Interval(10, 20, 20),  # the driver was loaded again
            Interval(20, 30, 40),
        ]
        record(db, {"nvml:a": 180}, now_s=40)
        record(db, {"nvml:a": 280, "rapl:b": 90}, now_s=50)
        assert measured(db, since_s=30, until_s=50) == [
            Interval(30, 40, 120),
            Interval(40, 50, 120),  # the meter that missed a reading is spread evenly
        ]


def test_what_cannot_be_measured_is_absent(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("12345678\n")
    (tmp_path / "intel-rapl:0:1").mkdir()  # a part of package 0
    (tmp_path / "intel-rapl:0:1" / "energy_uj").write_text("1000000\n")
    (tmp_path / "intel-rapl:1").mkdir()
    rapl = {name: j for name, j in read_meters(tmp_path).items() if name.startswith("rapl")}
    assert rapl == {"rapl:intel-rapl:0": 12}


def test_the_command_prints_a_price_to_paste(tmp_path: Path) -> None:
    start_s = time.time() - 3600
    journal = SegmentJournal(tmp_path)
    made = attempt(0, started_s=start_s, duration_s=10.0, ttft_s=1.0)
    journal.append(call("d1", made, started_s=start_s))
    journal.close()
    args = ["ledger", "local-price", "home/small", "--since", "1d", "--machine-usd", "2000"]
    args += ["--years", "4", "--kwh-usd", "0.30", "--home", str(tmp_path)]
    missing = CliRunner().invoke(main, args)
    assert missing.exit_code == 1
    assert "--idle-w" in missing.output
    modelled_args = [*args, "--idle-w", "60", "--busy-w", "300"]
    shown = CliRunner().invoke(main, modelled_args, catch_exceptions=False).stdout
    assert shown.splitlines()[-1].startswith('price = { input_mtok = "')
    facts = json.loads(CliRunner().invoke(main, [*modelled_args, "--json"]).stdout)
    assert sum(facts["cost"]["shares_pico"]) == (
        facts["cost"]["energy_pico"] + facts["cost"]["machine_pico"]
    )
    args[args.index("--kwh-usd") + 1] = "0.3,0.2"
    assert "give 1 or 24" in CliRunner().invoke(main, args).output


def test_a_measured_price(tmp_path: Path) -> None:
    now_s = time.time()
    with contextlib.closing(open_store(tmp_path)) as db:
        record(db, {"nvml:a": 0}, now_s=now_s - 100)
        record(db, {"nvml:a": KWH}, now_s=now_s - 50)
    journal = SegmentJournal(tmp_path)
    made = attempt(0, started_s=now_s - 90, duration_s=10.0, ttft_s=1.0)
    journal.append(call("d1", made, started_s=now_s - 90))
    journal.close()
    args = ["ledger", "local-price", "home/small", "--since", "1d", "--machine-usd", "0"]
    args += ["--years", "4", "--kwh-usd", "0.30", "--home", str(tmp_path)]
    assert "per call: 0.300000 USD" in CliRunner().invoke(main, args).stdout


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_one_figure_holds_at_every_hour(zone: str) -> None:
    tariff = Tariff(usd_per_kwh=(Decimal("0.25"),), zone=zone)
    assert {tariff.at(hour * HOUR_S) for hour in range(24)} == {Decimal("0.25")}
