"""`locavore report`: what was called, where it was served, what it cost, and how good it was."""

from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import click
import msgspec
from rich.console import Console

from locavore.cli import quality
from locavore.cli.options import home_option, json_option, ledger_url_option, moment
from locavore.cli.tables import table as make_table
from locavore.core.errors import ConfigError
from locavore.evidence.achieved import Achieved, achieved_here
from locavore.ledger.database import Database
from locavore.ledger.query import DIMENSIONS, Line, Report, open_current, report
from locavore.ledger.savings import Savings, savings
from locavore.ledger.sqlite import store_path, translated


@click.command(
    epilog="""\b
Examples:
  locavore report                         calls, tokens and cost by model
  locavore report --by place --since 7d   where the last week was served
  locavore report --json | jq .total      the sums, for a script
  locavore report --json | jq .quality    what was promised and what was achieved
"""
)
@click.option(
    "--by",
    type=click.Choice(list(DIMENSIONS)),
    default="model",
    show_default=True,
    help="Grouping.",
)
@click.option(
    "--since", callback=moment, help="36h, 7d, 2w or a UTC date; counted from its full hour."
)
@json_option
@ledger_url_option
@home_option
def command(by: str, since: float | None, as_json: bool, url: str | None, home: Path) -> None:
    """Calls, tokens, cost, what the baseline would have cost, and achieved quality.

    Quality stands beside each promise, with its interval and the calls it rests on.

    Reads the journal first, so the newest call is in; the gateway may run or not.
    """
    with closing(open_current(home, url)) as db, translated(store_path(home)):
        found = report(db, by=by, since_s=since)
        promises = _promises(home, db, since)
    if as_json:
        facts = as_facts(found) | {"quality": [quality.facts_of(line) for line in promises]}
        click.echo(msgspec.json.encode(facts))
        return
    console = Console()
    show(found, console)
    if promises:
        console.print()
        quality.show(promises, console)


def _promises(home: Path, db: Database, since_s: float | None) -> list[Achieved]:
    try:
        return achieved_here(home, db, since_s)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


def as_facts(found: Report) -> dict[str, object]:
    """The report as JSON: money as decimal strings, and the savings with their base."""
    facts: dict[str, object] = msgspec.to_builtins(found)
    facts["lines"] = [_facts(line) for line in found.lines]
    facts["total"] = _facts(found.total)
    return facts


def _facts(line: Line) -> dict[str, object]:
    found = savings(line)
    return _spelled(line) | {"saved_usd": f"{found.net_usd:f}", "savings": _spelled(found)}


def _spelled(record: Line | Savings) -> dict[str, object]:
    """Its fields, with money as decimal strings without an exponent."""
    fields = msgspec.structs.asdict(record)
    return {
        name: f"{value:f}" if isinstance(value, Decimal) else value
        for name, value in fields.items()
    }


def show(found: Report, console: Console) -> None:
    """The report as a table, and below it what the figures leave out."""
    begin = "the first call" if found.since_s is None else _utc(found.since_s)
    figures = ("calls", "failed", "input tok", "cached", "output tok", "cost USD")
    title = f"Calls from {begin} to {_utc(found.until_s)}"
    table = make_table((found.by, *figures), title=title, right=figures, whole=figures)
    for line in found.lines:
        table.add_row(*_cells(line))
    table.add_section()
    table.add_row(*_cells(found.total), style="bold")
    console.print(table)
    for note in notes(found):
        console.print(note, highlight=False, soft_wrap=True)


def _cells(line: Line) -> tuple[str, ...]:
    unknown = f"\n+ {line.unknown_cost:,} unknown" if line.unknown_cost else ""
    return (
        line.group or "(none)",
        f"{line.calls:,}",
        f"{line.failed + line.refused + line.cancelled:,}",
        f"{line.input_tokens:,}",
        f"{line.cache_read_tokens:,}",
        f"{line.output_tokens:,}",
        dollars(line.cost_usd) + unknown,
    )


def notes(found: Report) -> list[str]:
    """What the sums contain and what they do not, in sentences."""
    total = found.total
    said = [_comparison(total)]
    if total.unknown_cost:
        said.append(
            f"Of {_attempts(total.unknown_cost)} the cost is unknown, and in no sum. "
            "Set `price` on the backend to count it."
        )
    if total.missing_usage:
        said.append(f"{_attempts(total.missing_usage)} reported no token counts.")
    if total.estimated:
        said.append(f"Tokens of {_attempts(total.estimated)} are our own estimate.")
    if found.rejects:
        said.append(
            f"{found.rejects:,} journal records could not be read; see `locavore ledger rejects`."
        )
    return said


def _comparison(total: Line) -> str:
    if not total.calls:
        return "No calls yet. Point a client at the gateway: `locavore serve` prints how."
    if not total.compared:
        return (
            "No comparison: no call has both a known cost and a known price on the baseline. "
            "`baseline` in the configuration names what to compare with."
        )
    found = savings(total)
    low = "unknown" if found.low_usd is None else dollars(found.low_usd)
    return (
        f"Net savings: {dollars(found.net_usd)} USD, between {low} and {dollars(found.high_usd)}. "
        f"{found.calls:,} of {total.calls:,} calls cost {dollars(found.paid_usd)} USD, of which "
        f"{dollars(found.retries_usd)} are retries and samples and {dollars(found.beside_usd)} "
        f"judges and shadows; on the baseline the same text costs "
        f"{dollars(found.baseline_usd)} USD. "
        "Electricity and machines count only where a price is set."
    )


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count:,} attempts"


def dollars(amount: Decimal) -> str:
    """Six decimals, more when the amount is smaller than that shows."""
    if amount and abs(amount) < Decimal("0.000001"):
        return f"{amount.normalize():f}"
    return f"{amount:,.6f}"


def _utc(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
