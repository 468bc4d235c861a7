"""`locavore usage`: who used how much, as a table or as a CSV in FOCUS columns."""

import sys
from contextlib import closing
from pathlib import Path

import click
import msgspec
from rich.console import Console

from locavore.cli.options import home_option, json_option, ledger_url_option, moment
from locavore.cli.report import as_facts, dollars
from locavore.cli.tables import table as make_table
from locavore.ledger.focus import write_focus
from locavore.ledger.query import DIMENSIONS, Line, open_current, report
from locavore.ledger.sqlite import store_path, translated


@click.command(
    epilog="""\b
Examples:
  locavore usage                        by key
  locavore usage --by team --since 4w   who used how much
  locavore usage --focus > usage.csv    for a cost tool that reads FOCUS
"""
)
@click.option(
    "--by", type=click.Choice(list(DIMENSIONS)), default="key", show_default=True, help="Grouping."
)
@click.option(
    "--since", callback=moment, help="36h, 7d, 2w or a UTC date; counted from its full hour."
)
@click.option("--focus", is_flag=True, help="CSV in FOCUS 1.2 columns, by UTC day; no grouping.")
@json_option
@ledger_url_option
@home_option
def command(
    by: str, since: float | None, focus: bool, as_json: bool, url: str | None, home: Path
) -> None:
    """Calls, tokens by kind and cost by tenant, team, key, model, place, task or day."""
    with closing(open_current(home, url)) as db, translated(store_path(home)):
        if focus:
            write_focus(db, sys.stdout, since_s=since or 0.0)
            return
        found = report(db, by=by, since_s=since)
    if as_json:
        click.echo(msgspec.json.encode(as_facts(found)))
        return
    figures = ("calls", "input", "cache read", "cache write", "output", "reasoning", "cost USD")
    table = make_table((by, *figures), right=figures, whole=("cost USD",))
    for line in (*found.lines, found.total):
        table.add_row(*_cells(line))
    Console().print(table)


def _cells(line: Line) -> tuple[str, ...]:
    tokens = (
        line.input_tokens,
        line.cache_read_tokens,
        line.cache_write_tokens,
        line.output_tokens,
        line.reasoning_tokens,
    )
    unknown = f"\n+ {line.unknown_cost:,} unknown" if line.unknown_cost else ""
    counts = (f"{count:,}" for count in (line.calls, *tokens))
    return (line.group or "(none)", *counts, dollars(line.cost_usd) + unknown)
