"""What a report says about calls, and what it refuses to guess."""

import contextlib
import json
import sqlite3
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from locavore.cli import main
from locavore.core.decision import Facts
from locavore.core.estimate import Estimate
from locavore.core.money import Cost, Price, Rate, Usage, cost_of
from locavore.core.outcome import CallRecord
from locavore.ledger.groups import Groups, tables
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.migrations import migrate
from locavore.ledger.query import DIMENSIONS, Report, open_current, report
from locavore.ledger.rows import LARGEST_USD, decode, rows_of, usd_of
from locavore.ledger.savings import savings
from locavore.ledger.sums import write_sums
from tests.ledger.records import NOON_S, attempt, call, decision, usd

DAY_S = 86_400
CLOUD: dict[str, Any] = {
    "backend": "openai/gpt",
    "provider": "openai",
    "model": "gpt",
    "place": "public_api",
}


def reported(home: Path, *records: CallRecord, **options: object) -> Report:
    journal = SegmentJournal(home)
    for record in records:
        journal.append(record)
    journal.close()
    with contextlib.closing(open_current(home)) as db:
        return report(db, **options)  # type: ignore[arg-type]


def test_c69_every_attempt_is_counted_where_it_was_made(tmp_path: Path) -> None:
    tried = (
        attempt(0, status=503, fault="overloaded", usage=None, cost=None),
        attempt(1, kind="retry", cost=usd("0.000001")),
        attempt(2, kind="fallback", cost=usd("0.01"), **CLOUD),
    )
    found = reported(tmp_path, call("d1", *tried), by="model")
    home, cloud = found.lines
    assert (home.group, home.attempts, home.calls) == ("home/small", 2, 0)
    assert (cloud.group, cloud.attempts, cloud.calls) == ("openai/gpt", 1, 1)
    assert found.total.cost_usd == Decimal("0.010001")
    assert found.total.unknown_cost == 0  # a 503 is not billed


def test_c69_a_call_made_for_another_one_names_it(tmp_path: Path) -> None:
    reported(tmp_path, call("judge", parent_id="d1"), call("d1"))
    with contextlib.closing(open_current(tmp_path)) as db:
        rows = db.execute("SELECT id FROM calls WHERE parent_id = 'd1'").fetchall()
    assert rows == [("judge",)]


@pytest.mark.parametrize(
    "cost", [None, Cost(usd=None, source="genai-prices")], ids=["no cost", "no price"]
)
def test_c62_an_unknown_cost_is_counted_and_never_zero(tmp_path: Path, cost: Cost | None) -> None:
    records = (call("d1"), call("d2", attempt(cost=cost)))
    found = reported(tmp_path, *records)
    assert found.total.unknown_cost == 1
    assert found.total.cost_usd == Decimal("0.000125")
    assert found.total.compared == 1  # savings are told about the other call only


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [
        ({"fault": "connect", "status": None}, 0),
        ({"fault": "rate_limited", "status": 429}, 0),
        ({"fault": "truncated", "status": 200}, 1),
        ({"fault": "first_byte_timeout", "status": None}, 1),
    ],
)
def test_a_failed_attempt_without_usage_is_free_only_when_nobody_can_bill_it(
    tmp_path: Path, changes: dict[str, Any], unknown: int
) -> None:
    failed = attempt(usage=None, cost=None, **changes)
    found = reported(tmp_path, call("d1", failed, outcome="failed", status=502))
    assert found.total.unknown_cost == unknown
    assert found.total.failed == 1


def test_c67_an_explicit_zero_is_not_a_missing_count(tmp_path: Path) -> None:
    price = Price(rate=Rate(input_mtok=Decimal(1), output_mtok=Decimal(2)), source="test")
    zero, missing = Usage(input_tokens=0, output_tokens=0), Usage()
    found = reported(
        tmp_path,
        call("d1", attempt(usage=zero, cost=cost_of(zero, price))),
        call("d2", attempt(usage=missing, cost=cost_of(missing, price))),
    )
    assert (found.total.missing_usage, found.total.unknown_cost) == (1, 1)
    assert found.total.cost_usd == 0


def test_c65_the_same_tokens_cost_the_same_streamed_or_not(tmp_path: Path) -> None:
    price = Price(rate=Rate(input_mtok=Decimal("0.15"), output_mtok=Decimal("0.6")), source="test")
    usage = Usage(input_tokens=123_457, output_tokens=7_891, cache_read_tokens=1024)
    cost = cost_of(usage, price)
    for stream in (True, False):
        reported(tmp_path, call(f"d{stream}", attempt(usage=usage, cost=cost), stream=stream))
    with contextlib.closing(open_current(tmp_path)) as db:
        costs = db.execute("SELECT cost_pico FROM calls").fetchall()
    assert cost.usd is not None
    assert {usd_of(pico) for (pico,) in costs} == {cost.usd}


def test_c15_c66_an_estimate_is_marked_as_one(tmp_path: Path) -> None:
    guess = Usage(input_tokens=100, output_tokens=7, estimated=True)
    record = call("d1", attempt(usage=guess), outcome="cancelled", status=499)
    found = reported(tmp_path, record, call("d2"))
    assert (found.total.estimated, found.total.cancelled) == (1, 1)


def micro_charges(calls: int) -> Decimal:
    """The sum the store would keep for `calls` × 100 attempts of a tenth of a micro-dollar."""
    record = call("d", *(attempt(n, cost=usd("0.0000001")) for n in range(100)))
    slim = decode(msgspec.msgpack.encode(record))
    row, attempts = rows_of(1, 1, slim)
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db)
        for _ in range(calls // 1000):
            groups = Groups()
            for _ in range(1000):
                groups.add(row, attempts, slim.decision)
            write_sums(tables(groups), db)
        return report(db).total.cost_usd


def test_c71_micro_charges_sum_exactly() -> None:
    assert micro_charges(1_000) == Decimal("0.01")


@pytest.mark.torture
def test_c71_ten_million_micro_charges_sum_exactly() -> None:
    assert micro_charges(100_000) == 1


def test_c71_sums_beyond_64_bits_of_pico_dollars_are_exact(tmp_path: Path) -> None:
    largest = Cost(usd=Decimal(LARGEST_USD), source="test")
    records = [
        call(f"d{day}-{n}", attempt(cost=largest), started_s=NOON_S + day * DAY_S)
        for day in range(4)
        for n in range(500)
    ]
    assert reported(tmp_path, *records).total.cost_usd == 2000 * Decimal(LARGEST_USD)


@pytest.mark.parametrize("by", list(DIMENSIONS))
def test_every_breakdown_sums_to_the_same_total(tmp_path: Path, by: str) -> None:
    records = [
        call("d1", tenant="a", team="x", key_name="k1"),
        call("d2", attempt(**CLOUD), started_s=NOON_S + DAY_S, format="anthropic_messages"),
        call("d3", outcome="refused", status=503),
    ]
    found = reported(tmp_path, *records, by=by)
    assert sum(line.cost_usd for line in found.lines) == found.total.cost_usd
    assert sum(line.calls for line in found.lines) == found.total.calls == 3


def test_task_and_day_are_read_from_the_record(tmp_path: Path) -> None:
    facts = Facts(input_tokens=Estimate.exact(1, source="t"), output_tokens=1, task="code")
    record = call("d1", decision=decision("d1", facts=facts))
    assert [line.group for line in reported(tmp_path, record, by="task").lines] == ["code"]
    assert [line.group for line in reported(tmp_path, by="day").lines] == ["2026-01-01"]


@pytest.mark.parametrize(
    ("since", "calls"),
    [(NOON_S - 5 * 3600, 7), (NOON_S, 2 + 4), (NOON_S + 60, 6), (NOON_S + DAY_S, 3)],
)
def test_since_counts_from_the_full_hour_over_midnight(
    tmp_path: Path, since: float, calls: int
) -> None:
    hours = (-1, 0, 1, 12, 24, 25, 48)  # 11:00, 12:00, 13:00; midnight; next noon and on
    records = [call(f"d{h}", started_s=NOON_S + h * 3600) for h in hours]
    assert reported(tmp_path, *records, since_s=since).total.calls == calls


def test_savings_are_net_of_every_attempt_and_may_be_negative(tmp_path: Path) -> None:
    record = call("d1", attempt(cost=usd("0.002")), attempt(1, cost=usd("0.003"), **CLOUD))
    total = reported(tmp_path, record).total
    assert (total.baseline_usd, savings(total).net_usd) == (Decimal("0.001"), Decimal("-0.004"))


def run(*args: str) -> str:
    result = CliRunner().invoke(main, list(args), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_prints_json_with_decimal_strings(tmp_path: Path) -> None:
    reported(tmp_path, call("d1"))
    facts = json.loads(run("report", "--json", "--by", "place", "--home", str(tmp_path)))
    assert facts["lines"][0]["group"] == "on_prem"
    assert Decimal(facts["total"]["cost_usd"]) == Decimal("0.000125")
    assert Decimal(facts["total"]["saved_usd"]) == Decimal("0.000875")


def test_the_command_names_what_the_sums_leave_out(tmp_path: Path) -> None:
    reported(tmp_path, call("d1", attempt(cost=None, usage=None)))
    output = run("report", "--home", str(tmp_path))
    assert "Of 1 attempt the cost is unknown" in output
    assert "No comparison" in output


def test_the_command_on_a_fresh_home_says_what_to_do(tmp_path: Path) -> None:
    assert "No calls yet" in run("report", "--home", str(tmp_path))


def test_the_command_refuses_a_time_it_cannot_read(tmp_path: Path) -> None:
    args = ["report", "--since", "yesterday", "--home", str(tmp_path)]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2
    assert "'yesterday' is no time" in result.output


def test_since_reads_spans_and_dates(tmp_path: Path) -> None:
    now = datetime.now(UTC).timestamp()
    reported(tmp_path, call("old"), call("new", started_s=now))
    for since, calls in (("1d", 1), ("2h", 1), ("2026-01-01", 2), ("2026-01-02T00:00", 1)):
        output = run("report", "--json", "--since", since, "--home", str(tmp_path))
        assert json.loads(output)["total"]["calls"] == calls


def test_ledger_show_gives_the_whole_record_and_rejects_are_listed(tmp_path: Path) -> None:
    reported(tmp_path, call("d1"))
    shown = json.loads(run("ledger", "show", "d1", "--home", str(tmp_path)))
    assert shown["decision"]["considered"][0]["id"] == "home/small"
    journal = SegmentJournal(tmp_path)
    journal.append_payload(b"\xc1")
    journal.close()
    assert "offset 8" in run("ledger", "rejects", "--home", str(tmp_path))
    result = CliRunner().invoke(main, ["ledger", "show", "d2", "--home", str(tmp_path)])
    assert result.exit_code == 1
    assert "no call 'd2'" in result.output
