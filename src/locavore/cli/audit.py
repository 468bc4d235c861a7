"""`locavore audit`: recompute published claims from first principles."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from locavore.cli.options import json_option
from locavore.core.errors import ConfigError

if TYPE_CHECKING:
    from locavore.planner.audit import Verdict


@click.command(
    epilog="""\b
Examples:
  locavore audit claims.toml                every figure with formula and corrected value
  locavore audit --documents --only wrong   what the five documents get wrong
Exit code 0; with --strict 1 when a claim is wrong. docs/explain/audit.md shows a claims file.
"""
)
@click.argument("claims_file", type=click.Path(path_type=Path), required=False)
@click.option("--documents", is_flag=True, help="Audit the five documents shipped as data.")
@click.option("--only", help="Show one verdict: holds, approximate, wrong, doubtful or note.")
@click.option("--strict", is_flag=True, help="Exit with 1 when a claim is wrong.")
@json_option
def command(
    claims_file: Path | None, documents: bool, only: str | None, strict: bool, as_json: bool
) -> None:
    """Recompute claims: arithmetic, units and periods, bandwidth, compute and memory roofs."""
    from locavore.planner import audit, claims

    if (claims_file is None) == (not documents):
        raise ConfigError(["give either a claims file or --documents"])
    loaded = claims.documents() if claims_file is None else claims.load(claims_file)
    verdicts = audit.audit(loaded)
    counts = audit.tally(verdicts)
    if only is not None and only not in audit.VERDICTS:
        raise ConfigError([f"--only is {only!r}; known: {', '.join(audit.VERDICTS)}"])
    shown = [v for v in verdicts if only in (None, v.verdict)]
    if as_json:
        click.echo(msgspec.json.encode(shown))
    else:
        _print(shown, counts)
    if strict and counts.get("wrong"):
        sys.exit(1)


_COLORS = {"holds": "green", "approximate": "yellow", "wrong": "red", "doubtful": "magenta"}


def _print(shown: "list[Verdict]", counts: dict[str, int]) -> None:
    for v in shown:
        name = click.style(f"{v.verdict:12s}", fg=_COLORS.get(v.verdict))
        where = f"{v.seed} {v.table}: " if v.seed else ""
        click.echo(f"{name} {where}{v.claim}")
        click.echo(f"{'':12s} {v.formula} = {v.recomputed}")
        if v.comment:
            click.echo(f"{'':12s} {v.comment}")
    click.echo(", ".join(f"{count} {name}" for name, count in counts.items()))
