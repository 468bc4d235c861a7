"""`locavore explain`: why a past call was decided as it was, and what would have changed it."""

import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from locavore.cli.options import home_option, json_option, ledger_url_option
from locavore.cli.route import show, told
from locavore.core.money import Usage
from locavore.core.outcome import Attempt, CallRecord, Cascaded
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
        told_all = {
            "decision": record.decision,
            "explanation": explain(record.decision),
            "outcome": record.outcome,
            "attempts": record.attempts,
            "cascade": record.cascade,
        }
        click.echo(msgspec.json.encode(told_all))
        return
    console = Console()
    show(record.decision, console, past=True)
    told(record.decision, console)
    console.print("\n[bold]what came of it[/bold]", highlight=False)
    for line in came_of(record):
        console.print(escape(f"  {line}"), highlight=False, soft_wrap=True)


def came_of(record: CallRecord) -> list[str]:
    """The attempts in order, what a cascade saw of the local answer, and the outcome."""
    said = [_attempt(attempt) for attempt in record.attempts]
    if record.cascade is not None:
        said.append(_look(record.cascade))
    flags = f" ({', '.join(record.flags)})" if record.flags else ""
    return [*said, f"{record.outcome}, status {record.status}{flags}"]


def _attempt(attempt: Attempt) -> str:
    usage, cost = attempt.usage or Usage(), attempt.cost
    tokens = f"{_known(usage.input_tokens)} + {_known(usage.output_tokens)} tokens"
    usd = "cost unknown" if cost is None or cost.usd is None else f"${cost.usd:f}"
    fate = attempt.fault or "answered"
    return (
        f"{attempt.backend}, {attempt.kind}: {fate} in {attempt.duration_s:.1f} s, {tokens}, {usd}"
    )


def _known(tokens: int | None) -> str:
    return "?" if tokens is None else str(tokens)


def _look(seen: Cascaded) -> str:
    parts = [f"looked at {seen.local} for {seen.held_s:.1f} s: {seen.reason}"]
    if seen.margin is not None:
        parts.append(f"{seen.margin:+.3f} beside what the promise asks for")
    if seen.agreement is not None:
        parts.append(f"{seen.agreement:.0%} of its samples agreed")
    if seen.mean_logprob is not None:
        parts.append(f"mean log-probability {seen.mean_logprob:.2f}")
    if seen.agrees is not None:
        parts.append(f"{seen.cloud} then said {'the same' if seen.agrees else 'something else'}")
    return ", ".join(parts)
