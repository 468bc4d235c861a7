"""`locavore models`: what this gateway can reach, where it stands, what it can do and costs."""

from decimal import Decimal
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from locavore.cli.options import json_option
from locavore.cli.route import config_option, home_flag, snapshot_of
from locavore.core.backend import Backend
from locavore.core.money import Price
from locavore.serving.snapshot import Snapshot


@click.command(
    epilog="""\b
Examples:
  locavore models
  locavore models --json | jq '.backends[].id'
"""
)
@config_option
@home_flag
@json_option
def command(config: Path | None, home: str | None, as_json: bool) -> None:
    """List backends, aliases and the names that compete for `auto`. Calls no model."""
    snapshot = snapshot_of(config, home)
    if as_json:
        click.echo(msgspec.json.encode(as_facts(snapshot)))
    else:
        show(snapshot, Console())


def as_facts(snapshot: Snapshot) -> dict[str, object]:
    """Backends without their URLs' credentials; there are none in a `Backend`."""
    return {
        "backends": msgspec.to_builtins(snapshot.backends),
        "named": msgspec.to_builtins(snapshot.named),
        "wildcards": [f"{w.prefix}/*" for w in snapshot.wildcards],
        "aliases": snapshot.policy.aliases,
        "baseline": snapshot.policy.baseline,
        "messages": snapshot.messages,
    }


def show(snapshot: Snapshot, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("backend and what it can do", overflow="fold", ratio=1)
    table.add_column("place", no_wrap=True)
    for name in ("context", "$ per million"):
        table.add_column(name, justify="right", no_wrap=True)
    for backend in (*snapshot.backends, *snapshot.named):
        table.add_row(*_cells(backend, snapshot.policy.baseline))
    for wildcard in snapshot.wildcards:
        place = wildcard.template.place.label
        table.add_row(f"{wildcard.prefix}/*\n  any model it serves, by name", place, "", "by model")
    console.print(table)
    for alias, target in snapshot.policy.aliases.items():
        console.print(f"alias {alias} -> {target}", highlight=False, markup=False)
    for message in snapshot.messages:
        console.print(message, highlight=False, markup=False, style="dim")
    if not snapshot.backends and not snapshot.wildcards:
        console.print("nothing is configured or found; `locavore doctor` says what to do")


def _cells(backend: Backend, baseline: str | None) -> list[str]:
    mark = " (baseline)" if backend.id == baseline else ""
    able = ", ".join(sorted(backend.capabilities))
    return [
        escape(f"{backend.id}{mark}\n  {able}"),
        backend.place.label,
        "?" if backend.context_tokens is None else f"{backend.context_tokens:,}",
        price_text(backend.price),
    ]


def price_text(price: Price | None) -> str:
    """Prompt / answer: `2 / 8`, `free`, or `?` for unknown."""
    if price is None:
        return "?"
    if price.source == "free":
        return "free"
    return f"{_rate(price.rate.input_mtok)} / {_rate(price.rate.output_mtok)}"


def _rate(rate: Decimal | None) -> str:
    return "-" if rate is None else f"{rate.normalize():f}"
