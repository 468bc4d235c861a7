"""`locavore explain`: why a past call was decided as it was, and what would have changed it."""

import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console

from locavore.cli.options import home_option, json_option, ledger_url_option
from locavore.cli.route import show, told
from locavore.ledger.query import find_decision
from locavore.routing.explaining import explain


@click.command(
    epilog="""\b
The id is in each answer's header x-locavore-decision. No prompt is kept, so none is shown.
\b
Examples:
  locavore explain 19aa3b1c2d4-1f2e3d4c5b6a-7
  locavore explain 19aa3b1c2d4-1f2e3d4c5b6a-7 --json
  locavore route --explain "translate to French: good morning"
Exit code 0: found; 1: no such decision.
"""
)
@click.argument("decision_id")
@home_option
@ledger_url_option
@json_option
def command(decision_id: str, home: Path, url: str | None, as_json: bool) -> None:
    """Say what the decision DECISION_ID rests on, from the ledger."""
    record = find_decision(home, decision_id, url=url)
    if record is None:
        known = "a call is listed once it has finished"
        click.echo(f"no decision {decision_id!r} in the ledger under {home}; {known}", err=True)
        sys.exit(1)
    if as_json:
        both = {"decision": record.decision, "explanation": explain(record.decision)}
        click.echo(msgspec.json.encode(both))
        return
    console = Console()
    show(record.decision, console, past=True)
    told(record.decision, console)
