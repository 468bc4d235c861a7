"""`locavore ledger`: look into the books."""

import json
import time
from contextlib import closing
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TextIO

import click
import msgspec

from locavore.cli.options import home_option, json_option, ledger_url_option, moment
from locavore.core.errors import RequestError
from locavore.ledger.books import correct, verify
from locavore.ledger.energy import measured
from locavore.ledger.local_price import (
    LocalCost,
    LocalPrice,
    Machine,
    Tariff,
    local_cost,
    modelled,
    price_of,
    works_of,
)
from locavore.ledger.query import decision, open_current, rejects
from locavore.ledger.reconcile import mapping_of, read_invoice, reconcile
from locavore.ledger.retention import erase, prune
from locavore.ledger.rows import usd_of
from locavore.ledger.sqlite import store_path, translated


@click.group()
def command() -> None:
    """Check, query and correct the books."""


@command.command(
    short_help="One call as JSON: decision, attempts, tokens and cost.",
    epilog="""\b
Examples:
  locavore ledger show 0199ab3c-1f-2
  locavore ledger show 0199ab3c-1f-2 | jq .decision.considered
""",
)
@click.argument("call_id")
@ledger_url_option
@home_option
def show(call_id: str, url: str | None, home: Path) -> None:
    """One call as JSON: the decision with every candidate, each attempt, tokens and cost."""
    with closing(open_current(home, url)) as db, translated(store_path(home)):
        record = decision(db, call_id)
    if record is None:
        raise click.ClickException(f"no call {call_id!r} in this ledger")
    click.echo(msgspec.json.format(msgspec.json.encode(record)))


@command.command(
    "rejects",
    short_help="Journal records that could not be read, and why.",
    epilog="""\b
Examples:
  locavore ledger rejects
  locavore ledger rejects --json
""",
)
@json_option
@ledger_url_option
@home_option
def list_rejects(as_json: bool, url: str | None, home: Path) -> None:
    """Journal records that could not be read: where they stood, and why."""
    with closing(open_current(home, url)) as db, translated(store_path(home)):
        found = rejects(db)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    for reject in found:
        place = f"{reject.writer} segment {reject.segment} offset {reject.position}"
        click.echo(f"{place}: {reject.reason} ({reject.size_bytes} bytes kept)")
    if not found:
        click.echo("Every journal record could be read.")


@command.command(
    "verify",
    short_help="Recompute every hash and every sum.",
    epilog="""\b
Examples:
  locavore ledger verify
  locavore ledger verify --json > audit.json    keep it elsewhere
  locavore ledger verify --against audit.json
""",
)
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The JSON of an earlier audit, kept elsewhere: shows whether newest blocks are missing.",
)
@json_option
@ledger_url_option
@home_option
def audit(against: Path | None, as_json: bool, url: str | None, home: Path) -> None:
    """Recompute every hash and every sum; exit code 1 when something does not hold."""
    anchors = _heads(against) if against else None
    with closing(open_current(home, url)) as db, translated(store_path(home)):
        found = verify(db, anchors=anchors)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        for problem in found.problems:
            click.echo(problem, err=True)
        click.echo(
            f"{found.calls:,} calls in {found.blocks:,} blocks, {found.corrections:,} corrections, "
            f"{found.erased:,} records erased: "
            + ("the books hold" if not found.problems else f"{len(found.problems):,} problems")
        )
    if found.problems:
        raise click.exceptions.Exit(1)


def _heads(path: Path) -> dict[str, str]:
    try:
        heads = json.loads(path.read_text("utf-8"))["heads"]
        return {str(name): str(head) for name, head in heads.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise click.BadParameter(
            f"{str(path)!r} is no audit: make one with `locavore ledger verify --json`"
        ) from error


@command.command(
    "correct",
    epilog="""\b
Examples:
  locavore ledger correct 0199ab3c-1f-2 --usd 0.0123 --reason 'invoice 77'
""",
)
@click.argument("call_id")
@click.option("--attempt", type=int, default=0, show_default=True, help="Which one, from 0.")
@click.option("--usd", required=True, help="What it really cost, in US dollars.")
@click.option("--reason", required=True, help="Why; goes into the books.")
@ledger_url_option
@home_option
def book_correction(
    call_id: str, attempt: int, usd: str, reason: str, url: str | None, home: Path
) -> None:
    """Book what an attempt really cost. The old row stays; the difference is a new entry."""
    try:
        amount = Decimal(usd)
    except InvalidOperation:
        raise click.BadParameter(f"{usd!r} is no amount of US dollars") from None
    with closing(open_current(home, url)) as db, translated(store_path(home)):
        try:
            difference = correct(db, call_id, attempt, amount, reason=reason)
        except RequestError as error:
            raise click.ClickException(error.message) from error
    click.echo(f"booked {difference.normalize():+f} USD")


@command.command(
    "prune",
    epilog="""\b
Examples:
  locavore ledger prune --before 90d
  locavore ledger prune --before 2026-01-31
""",
)
@click.option(
    "--before", callback=moment, required=True, help="90d, 12w or a UTC date: older ones go."
)
@ledger_url_option
@home_option
def drop_records(before: float, url: str | None, home: Path) -> None:
    """Delete the whole records of old calls, and other answers kept to judge them. Amounts, tokens
    and times stay."""
    with closing(open_current(home, url)) as db, translated(store_path(home)):
        click.echo(f"{prune(db, before_s=before, home=home):,} records deleted")


@command.command(
    "erase",
    epilog="""\b
Examples:
  locavore ledger erase --user u-17
  locavore ledger erase --session case-17
""",
)
@click.option("--user", help="As the client named it.")
@click.option("--session", help="As the client named it.")
@ledger_url_option
@home_option
def erase_person(user: str | None, session: str | None, url: str | None, home: Path) -> None:
    """Erase a person: their records, their name, and other answers kept to judge their calls.
    Amounts stay, without the name."""
    if (user is None) == (session is None):
        raise click.UsageError("give either --user or --session")
    with closing(open_current(home, url)) as db, translated(store_path(home)):
        click.echo(f"{erase(db, user=user, session=session, home=home):,} calls touched")


@command.command(
    "reconcile",
    short_help="Compare with a provider's usage export (CSV).",
    epilog="""\b
Examples:
  locavore ledger reconcile costs.csv --provider anthropic
  locavore ledger reconcile may.csv --provider openai --columns day=date,model=model,usd=cost
""",
)
@click.argument("invoice", type=click.File("r", encoding="utf-8-sig"))
@click.option("--provider", required=True, help="As in our backends: openai, anthropic, ...")
@click.option(
    "--columns",
    help="day=COLUMN,model=COLUMN,usd=COLUMN[,input=...,output=...]; default: known for the cost "
    "exports of OpenAI and Anthropic",
)
@click.option(
    "--tolerance", default="0.01", show_default=True, help="US dollars per day and model."
)
@json_option
@ledger_url_option
@home_option
def compare(
    invoice: TextIO,
    provider: str,
    columns: str | None,
    tolerance: str,
    as_json: bool,
    url: str | None,
    home: Path,
) -> None:
    """Compare with a provider's usage export (CSV); exit code 1 when something differs."""
    try:
        billed = read_invoice(invoice, mapping_of(columns) if columns else None)
        tolerance_usd = Decimal(tolerance)
    except (ValueError, InvalidOperation) as error:
        raise click.BadParameter(str(error)) from error
    with closing(open_current(home, url)) as db, translated(store_path(home)):
        found = reconcile(db, provider, billed, tolerance_usd=tolerance_usd)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        for line in found.differences:
            click.echo(f"{line.day} {line.model}: {line.usd:+f} USD")
            for reason in line.reasons:
                click.echo(f"    {reason}")
        click.echo(
            f"{found.matched:,} agree, {len(found.differences):,} differ; "
            f"billed {found.billed_usd:f} USD, booked {found.booked_usd.normalize():f} USD"
        )
    if found.differences:
        raise click.exceptions.Exit(1)


@command.command(
    "local-price",
    short_help="What calls to a local BACKEND really cost.",
    epilog="""\b
Examples:
  locavore ledger local-price home/m --since 4w --machine-usd 900 --years 4 --kwh-usd 0.3
""",
)
@click.argument("backend")
@click.option("--since", callback=moment, required=True, help="7d, 2w or a UTC date.")
@click.option("--machine-usd", type=Decimal, required=True, help="What the machine cost.")
@click.option("--residual-usd", type=Decimal, default="0", help="What it will be worth then.")
@click.option("--years", type=Decimal, required=True, help="How long it will be used.")
@click.option("--kwh-usd", required=True, help="One price, or 24 by the hour, comma-separated.")
@click.option("--zone", default="UTC", show_default=True, help="Of the hourly prices.")
@click.option("--idle-w", type=float, help="Modelled power; default: the measured energy.")
@click.option("--busy-w", type=float, help="Modelled power while a call runs.")
@json_option
@ledger_url_option
@home_option
def price_local(
    backend: str,
    since: float,
    as_json: bool,
    url: str | None,
    home: Path,
    idle_w: float | None,
    busy_w: float | None,
    **given: Any,
) -> None:
    """What calls to a local BACKEND really cost: energy and the machine, idle time included."""
    machine = Machine(
        price_usd=given["machine_usd"],
        residual_usd=given["residual_usd"],
        lifetime_years=given["years"],
    )
    tariff = Tariff(usd_per_kwh=_hourly(given["kwh_usd"]), zone=given["zone"])
    until_s = time.time()
    with closing(open_current(home, url)) as db, translated(store_path(home)):
        works = works_of(db, backend, since_s=since, until_s=until_s)
        if idle_w is not None and busy_w is not None:
            intervals = modelled(
                works, since_s=since, until_s=until_s, idle_w=idle_w, busy_w=busy_w
            )
        else:
            intervals = measured(db, since_s=since, until_s=until_s)
    if not intervals:
        raise click.ClickException("no energy was measured then: give --idle-w and --busy-w")
    cost = local_cost(intervals, works, machine, tariff)
    _say_price(price_of(cost, works), cost, len(works), as_json)


def _hourly(text: str) -> tuple[Decimal, ...]:
    try:
        figures = tuple(Decimal(part) for part in text.split(","))
    except InvalidOperation:
        raise click.BadParameter(f"{text!r} is no price per kWh") from None
    if len(figures) not in (1, 24):
        raise click.BadParameter(f"{len(figures)} prices per kWh: give 1 or 24")
    return figures


def _say_price(price: LocalPrice, cost: LocalCost, calls: int, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode({"price": price, "calls": calls, "cost": cost}))
        return
    dollars = {
        name: usd_of(pico)
        for name, pico in (
            ("energy", cost.energy_pico),
            ("machine", cost.machine_pico),
            ("idle", cost.idle_pico),
        )
    }
    click.echo(
        f"{calls:,} calls; {cost.joules / 3_600_000:.3f} kWh: {dollars['energy']:.6f} USD; "
        f"machine: {dollars['machine']:.6f} USD; of both, {dollars['idle']:.6f} USD while idle; "
        f"busy {cost.busy_s / cost.window_s:.1%} of {cost.window_s / 3600:.1f} h"
    )
    if price.per_call_usd is None:
        click.echo("No call to bear it: no price.")
        return
    figures = {"input_mtok": price.input_mtok, "output_mtok": price.output_mtok}
    known = ", ".join(f'{name} = "{usd:f}"' for name, usd in figures.items() if usd is not None)
    click.echo(f"per call: {price.per_call_usd:f} USD")
    click.echo(f"price = {{ {known} }}")
