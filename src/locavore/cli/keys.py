"""`locavore keys`: make, list, rotate and revoke client keys."""

import time
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
from rich.console import Console

from locavore.cli.options import home_option, json_option, ledger_url_option
from locavore.cli.tables import table as make_table
from locavore.core.access import Grant, Period, Quota
from locavore.core.backend import Place
from locavore.ledger.keys import KeyLine, KeyStore

SPANS_S = {"h": 3600, "d": 86_400, "w": 604_800}
LIMITS = {"budget": "usd", "requests": "requests", "tokens": "tokens"}


@click.group()
def command() -> None:
    """Create, list, rotate and revoke keys.

    A running gateway takes a change up within seconds.
    """


def _span(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """`24h`, `90d`, `4w` -> seconds."""
    if text is None:
        return None
    if text[-1:] in SPANS_S and text[:-1].isdigit():
        return float(int(text[:-1]) * SPANS_S[text[-1]])
    raise click.BadParameter(f"{text!r} is no span of time: try 24h, 90d or 4w")


def _per(
    _context: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> list[dict[str, Any]]:
    return [_amount(text, LIMITS[str(option.name)]) for text in texts]


def _amount(text: str, unit: str) -> dict[str, Any]:
    """`10/month` -> the fields of a quota."""
    number, slash, period = text.partition("/")
    try:
        limit = Decimal(number)
    except InvalidOperation:
        limit = Decimal("NaN")
    periods = list(get_args(Period))
    if not slash or period not in periods or not limit.is_finite() or limit < 0:
        raise click.BadParameter(f"{text!r}: write a number, a slash and {' | '.join(periods)}")
    return {"unit": unit, "limit": limit, "period": period}


@command.command(
    epilog="""\b
Examples:
  locavore keys create search --budget 10/month
  locavore keys create clinic --place on_prem --label health
  locavore keys create ci --expires 90d --requests 60/minute --json
"""
)
@click.argument("name")
@click.option("--tenant", default="", help="Who pays.")
@click.option("--team", default="", help="Part of the tenant.")
@click.option("--model", "models", multiple=True, help="Allowed backend or pattern; repeatable.")
@click.option(
    "--place",
    type=click.Choice([place.label for place in Place]),
    help="The farthest place its calls may go to.",
)
@click.option("--label", "labels", multiple=True, help="Set on each of its calls; repeatable.")
@click.option("--expires", callback=_span, help="24h, 90d or 4w from now.")
@click.option("--budget", multiple=True, callback=_per, help="US dollars, e.g. 10/month.")
@click.option("--requests", multiple=True, callback=_per, help="E.g. 60/minute.")
@click.option("--tokens", multiple=True, callback=_per, help="E.g. 100000/minute.")
@click.option("--concurrent", type=click.IntRange(min=1), help="Calls at a time.")
@click.option("--zone", default="UTC", show_default=True, help="Where its days and months begin.")
@click.option("--soft", is_flag=True, help="Flag calls over the budget instead of refusing them.")
@click.option("--admin", is_flag=True, help="For the admin API; serves no model calls.")
@json_option
@ledger_url_option
@home_option
def create(
    name: str,
    as_json: bool,
    url: str | None,
    home: Path,
    place: str | None,
    expires: float | None,
    **given: Any,
) -> None:
    """Make a key and print it. It is not stored and cannot be shown again."""
    grant = Grant(
        name=name,
        tenant=given["tenant"],
        team=given["team"],
        admin=given["admin"],
        models=given["models"],
        farthest=None if place is None else Place[place.upper()],
        labels=frozenset(given["labels"]),
        expires_s=None if expires is None else time.time() + expires,
        quotas=_quotas(name, given),
    )
    with closing(KeyStore(home, url=url)) as store:
        first = not store.used()
        _say(name, store.create(grant), as_json)
    if first:
        click.echo("From now on the gateway asks every caller for a key.", err=True)


def _quotas(name: str, given: dict[str, Any]) -> tuple[Quota, ...]:
    amounts = [amount for option in LIMITS for amount in given[option]]
    if given["concurrent"]:
        limit = Decimal(given["concurrent"])
        amounts.append({"unit": "concurrent", "limit": limit, "period": "total"})
    return tuple(
        Quota(scope="key", name=name, zone=given["zone"], hard=not given["soft"], **amount)
        for amount in amounts
    )


def _say(name: str, secret: str, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode({"name": name, "key": secret}))
    else:
        click.echo(secret)
        click.echo("Shown once. Keep it where secrets are kept.", err=True)


@command.command(
    epilog="""\b
Examples:
  locavore keys rotate search              the old secret works for another day
  locavore keys rotate search --grace 1h
"""
)
@click.argument("name")
@click.option(
    "--grace", callback=_span, default="24h", show_default=True, help="How long the old one works."
)
@json_option
@ledger_url_option
@home_option
def rotate(name: str, grace: float, as_json: bool, url: str | None, home: Path) -> None:
    """Print a new secret for a key; its name, limits and spending stay."""
    with closing(KeyStore(home, url=url)) as store:
        _say(name, store.rotate(name, grace_s=grace), as_json)


@command.command(
    epilog="""\b
Examples:
  locavore keys revoke search
"""
)
@click.argument("name")
@ledger_url_option
@home_option
def revoke(name: str, url: str | None, home: Path) -> None:
    """End a key and all keys that were made with it."""
    with closing(KeyStore(home, url=url)) as store:
        store.revoke(name)
    click.echo(f"{name} is revoked")


@command.command(
    "list",
    epilog="""\b
Examples:
  locavore keys list
  locavore keys list --json
""",
)
@json_option
@ledger_url_option
@home_option
def list_keys(as_json: bool, url: str | None, home: Path) -> None:
    """All keys: what each allows, until when, and how its secret begins."""
    with closing(KeyStore(home, url=url)) as store:
        lines = store.list()
    if as_json:
        click.echo(msgspec.json.encode(lines))
        return
    table = make_table(("name", "begins", "state", "owner", "may use", "limits", "expires"))
    for line in lines:
        table.add_row(*_cells(line))
    Console().print(table if lines else "No keys. Make one: locavore keys create NAME")


def _cells(line: KeyLine) -> tuple[str, ...]:
    grant = line.grant
    may = [*grant.models] or ["any model"]
    if grant.farthest is not None:
        may.append(f"up to {grant.farthest.label}")
    if grant.labels:
        may.append("labelled " + ", ".join(sorted(grant.labels)))
    return (
        grant.name,
        line.hint + "…",
        line.state,
        "/".join(part for part in (grant.tenant, grant.team) if part),
        "admin only" if grant.admin else "; ".join(may),
        "; ".join(f"{q.limit} {q.unit}/{q.period}" for q in grant.quotas),
        "never" if grant.expires_s is None else _date(grant.expires_s),
    )


def _date(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")
