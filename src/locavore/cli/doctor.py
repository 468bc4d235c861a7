"""`locavore doctor`: what is wrong, where, and what to do."""

import asyncio
import os
import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from locavore.cli.options import json_option
from locavore.cli.route import config_option, home_flag

_SIGNS = {"ok": "[green]ok[/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]fail[/red]"}


@click.command(
    epilog="""\b
Examples:
  locavore doctor
  locavore doctor --probe          also make each local engine show what it can do (generates)
  locavore doctor --json
Exit code 0: nothing failed; 1: something did.
"""
)
@click.option("--probe", is_flag=True, help="Ask local engines to generate; may load a model.")
@config_option
@home_flag
@json_option
def command(probe: bool, config: Path | None, home: str | None, as_json: bool) -> None:
    """Look at configuration, home, engines, keys, weights and ledger. Nothing leaves loopback."""
    from locavore.compose.diagnosis import diagnose

    console = Console(stderr=True)
    with console.status("looking ...") if console.is_terminal and not as_json else _Quiet():
        findings = asyncio.run(diagnose(config, dict(os.environ), home=home, probe=probe))
    if as_json:
        click.echo(msgspec.json.encode(findings))
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for finding in findings:
            text = finding.what + (f"\n→ {finding.do}" if finding.do else "")
            table.add_row(_SIGNS[finding.level], finding.where, text)
        Console().print(table, highlight=False)
    if any(finding.level == "fail" for finding in findings):
        sys.exit(1)


class _Quiet:
    """No spinner: output goes to a file or another program."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
