"""A provider's export against the ledger: what agrees, what does not, and why."""

import contextlib
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from locavore.cli import main
from locavore.core.money import Usage
from locavore.core.outcome import Attempt
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.query import open_current
from locavore.ledger.reconcile import Reconciliation, mapping_of, read_invoice, reconcile
from tests.ledger.records import NOON_S, attempt, call, usd

DAY_S = 86_400
COLUMNS = "day=date,model=model,usd=cost,input=in,output=out"
HEAD = "date,model,cost,in,out\n"


def cloud(day: int = 0, model: str = "gpt-4.1", **changes: Any) -> Attempt:
    fields: dict[str, Any] = {
        "provider": "openai",
        "model": model,
        "backend": f"openai/{model}",
        "started_s": NOON_S + day * DAY_S,
        "usage": Usage(input_tokens=1000, output_tokens=100),
        "cost": usd("0.50"),
    }
    return attempt(**(fields | changes))


def compared(home: Path, invoice: str, *attempts: Attempt) -> Reconciliation:
    journal = SegmentJournal(home)
    for n, made in enumerate(attempts):
        journal.append(call(f"d{n}", made))
    journal.close()
    billed = read_invoice(io.StringIO(HEAD + invoice), mapping_of(COLUMNS))
    with contextlib.closing(open_current(home)) as db:
        return reconcile(db, "openai", billed)


def test_what_agrees_within_a_cent_is_no_difference(tmp_path: Path) -> None:
    found = compared(
        tmp_path,
        "2026-01-01,gpt-4.1-2025-04-14,0.6,1500,150\n2026-01-01,gpt-4.1,$0.405,500,50\n",
        cloud(),
        cloud(),
        attempt(provider="vllm", cost=usd("7")),  # another provider's is not compared
    )
    assert (found.matched, found.differences) == (1, ())
    assert (found.billed_usd, found.booked_usd) == (Decimal("1.005"), Decimal(1))


@pytest.mark.parametrize(
    ("invoice", "attempts", "reason"),
    [
        ("2026-01-01,gpt-4.1,5,1000,100\n2026-01-01,o9,1,1,1\n", [cloud()], "not in the ledger"),
        ("2026-01-01,gpt-4.1,0.5,1000,100\n", [cloud(), cloud(model="mini")], "not on the invoice"),
        ("2026-01-01,gpt-4.1,1,2000,200\n", [cloud(), cloud(cost=None)], "1 attempts of unknown"),
        ("2026-01-01,gpt-4.1,1,1000,100\n", [cloud()], "2.0000 times our price"),
        ("2026-01-01,gpt-4.1,1,1700,100\n", [cloud()], "billed 1,700, booked 1,000"),
        (
            "2026-01-01,gpt-4.1,1,1000,100\n",
            [cloud(usage=Usage(input_tokens=9, output_tokens=9, estimated=True))],
            "our own estimate",
        ),
        (
            "2026-01-01,gpt-4.1,1,1000,100\n",
            [cloud(), cloud(usage=None, cost=None, fault="truncated")],
            "broke off",
        ),
    ],
)
def test_each_difference_has_its_reason(
    tmp_path: Path, invoice: str, attempts: list[Attempt], reason: str
) -> None:
    found = compared(tmp_path, invoice, *attempts)
    said = [text for line in found.differences for text in line.reasons]
    assert any(reason in text for text in said), said


def test_days_are_utc_and_may_be_times_or_unix_seconds(tmp_path: Path) -> None:
    found = compared(
        tmp_path,
        f"2026-01-02T01:00:00+02:00,gpt-4.1,0.5,1000,100\n{int(NOON_S) + DAY_S},gpt-4.1,0.5,1,1\n",
        cloud(),
        cloud(1),
    )
    assert found.matched == 2


@pytest.mark.parametrize(
    ("columns", "text", "complaint"),
    [
        ("day=date,model=model", "", "usd"),
        ("day=date,model=model,usd=cost,vat=x", "", "'vat'"),
        ("day=when,model=model,usd=cost", HEAD, "no column 'when'; it has date, model"),
        (COLUMNS, HEAD + "yesterday,m,1,1,1\n", "line 2: .*yesterday"),
        (COLUMNS, HEAD + "2026-01-01,m,free,1,1\n", "line 2"),
    ],
)
def test_a_file_or_mapping_that_does_not_fit_is_named(
    columns: str, text: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_invoice(io.StringIO(text), mapping_of(columns))


def test_the_command_explains_and_tells_scripts(tmp_path: Path) -> None:
    compared(tmp_path, "2026-01-01,gpt-4.1,0.5,1000,100\n", cloud())
    invoice = tmp_path / "invoice.csv"
    args = ["ledger", "reconcile", str(invoice), "--provider", "openai", "--columns", COLUMNS]
    args += ["--home", str(tmp_path)]
    invoice.write_text(HEAD + "2026-01-01,gpt-4.1,0.5,1000,100\n")
    agreed = CliRunner().invoke(main, args)
    assert (agreed.exit_code, "1 agree, 0 differ" in agreed.stdout) == (0, True)
    invoice.write_text(HEAD + "2026-01-01,gpt-4.1,1.5,1000,100\n")
    differs = CliRunner().invoke(main, args)
    assert differs.exit_code == 1
    assert "3.0000 times our price" in differs.stdout
    facts = json.loads(CliRunner().invoke(main, [*args, "--json"]).stdout)
    assert facts["differences"][0]["billed_usd"] == "1.5"
    args[args.index("--columns") + 1] = "day=date"
    assert CliRunner().invoke(main, args).exit_code == 2


OPENAI = (
    "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,quantity,"
    "quantity_unit,line_item,user_id,api_key_id,project_id,organization_id,project_name,"
    "organization_name,user_email,api_source\n"
)
ANTHROPIC = (
    "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,"
    "list_price_usd,cost_type,inference_geo,speed,api_key_id,api_key_status\n"
)
DAY = 1_767_225_600
"""2026-01-01 00:00 UTC."""


def export_of(home: Path, provider: str, text: str, *attempts: Attempt) -> Reconciliation:
    journal = SegmentJournal(home)
    for n, made in enumerate(attempts):
        journal.append(call(f"d{n}", made))
    journal.close()
    with contextlib.closing(open_current(home)) as db:
        return reconcile(db, provider, read_invoice(io.StringIO(text)))


def openai_row(usd: str, item: str, day: int = 0) -> str:
    start = DAY + day * DAY_S
    return f'{start},{start + DAY_S},,,{usd},usd,,,"{item}",,,,org-1,,Org,,\n'


def test_the_cost_export_of_openai_is_known(tmp_path: Path) -> None:
    text = OPENAI + openai_row("0.40", "gpt-4.1-2025-04-14, input_tokens")
    text += openai_row("0.1000000000", "gpt-4.1-2025-04-14, output_tokens")
    text += f"{DAY + DAY_S},{DAY + 2 * DAY_S},,,,,,,,,,,,,,,\n"  # nothing on that day
    found = export_of(tmp_path, "openai", text, cloud())
    assert (found.matched, found.differences) == (1, ())


def test_an_export_by_day_only_is_compared_by_day(tmp_path: Path) -> None:
    text = OPENAI + openai_row("1.50", "")
    found = export_of(tmp_path, "openai", text, cloud(), cloud(model="gpt-x", cost=usd("0.9")))
    (line,) = found.differences
    assert (line.model, line.usd) == ("all models", Decimal("0.10"))


def test_the_cost_export_of_anthropic_is_known(tmp_path: Path) -> None:
    row = "2026-01-01,Claude Haiku 4.5,Default,key,message,≤ 200k,{},{},{},token,,,id,active\n"
    text = ANTHROPIC + row.format("input_no_cache", "0.30", "0.30")
    text += row.format("output", "0.20", "0.20")
    made = cloud(model="claude-haiku-4-5-20251001", provider="anthropic")
    found = export_of(tmp_path, "anthropic", text, made)
    assert (found.matched, found.differences) == (1, ())


def test_an_unknown_export_or_currency_is_told() -> None:
    with pytest.raises(ValueError, match="name its columns: a, b"):
        read_invoice(io.StringIO("a,b\n1,2\n"))
    with pytest.raises(ValueError, match="only US dollars, not 'eur'"):
        read_invoice(io.StringIO(OPENAI + openai_row("1", "m").replace("usd", "eur")))
