"""`locavore replay`: what another policy would have done with recorded calls."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from locavore.cli.options import json_option, ledger_url_option
from locavore.cli.route import config_option, home_flag, snapshot_of
from locavore.core.errors import ConfigError
from locavore.core.outcome import CallRecord
from locavore.evidence.replay import (
    Flow,
    Move,
    Recorded,
    Replay,
    Sums,
    of_ledger,
    read_calls,
    replay,
)
from locavore.ledger.query import open_current
from locavore.routing.router import Router
from locavore.serving.snapshot import Snapshot


@click.command(
    epilog="""\b
CALLS holds one JSON object per line: the body of a chat call, or an object with the body under
"body" or "request" and, if known, its "usage". Without CALLS, the own ledger is replayed; it keeps
no prompts, so task and size are those that were measured then, and promises are not asked.
\b
Examples:
  locavore replay calls.jsonl --policy other.toml
  locavore replay --policy other.toml --json
"""
)
@click.argument("calls", type=click.File("rb"), required=False)
@click.option(
    "--policy",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="The other configuration.",
)
@click.option(
    "--moves",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Moved calls to list.",
)
@config_option
@home_flag
@ledger_url_option
@json_option
def command(
    calls: Iterable[bytes] | None,
    policy: Path,
    moves: int,
    config: Path | None,
    home: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Decide recorded CALLS again under another policy: cost, quality, latency, place, moves."""
    name = getattr(calls, "name", "the ledger")
    try:
        recorded = list(_own(home, url) if calls is None else read_calls(calls, str(name)))
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    now, other = _router(snapshot_of(config, home)), _router(snapshot_of(policy, home))
    if calls is None and (now.judge or other.judge):
        click.echo(
            "The ledger keeps no prompts, so promises are not asked: both columns show what would "
            "happen without them. Replay CALLS to have them asked.",
            err=True,
        )
    found = replay(recorded, now, other)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        show(found, moves, Console())


def _router(snapshot: Snapshot) -> Router:
    return Router(
        snapshot.policy,
        snapshot.backends,
        wildcards={w.prefix: w.template for w in snapshot.wildcards},
        only_named=snapshot.named,
        promises=snapshot.promised(),
    )


def _own(home: str | None, url: str | None) -> Iterable[Recorded]:
    folder = Path(home or "~/.locavore").expanduser()
    with closing(open_current(folder, url)) as db:
        rows = db.execute("SELECT body FROM records ORDER BY seq").fetchall()
    return of_ledger(msgspec.msgpack.decode(body, type=CallRecord) for (body,) in rows)


def show(found: Replay, moves: int, console: Console) -> None:
    """Both policies side by side, then what moves."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("now", "other"):
        table.add_column(name, justify="right")
    for name, one, other in zip(_NAMES, _cells(found.before), _cells(found.after), strict=True):
        table.add_row(name, one, other)
    console.print(table)
    console.print(f"\n{len(found.moves)} of {found.before.calls} calls move", highlight=False)
    for flow in found.flows:
        console.print(f"  {_flowing(flow)}", highlight=False, markup=False, soft_wrap=True)
    for move in found.moves[:moves]:
        console.print(f"  {_moved(move)}", highlight=False, markup=False, soft_wrap=True)


_NAMES = ("calls", "refused", "cost $", "cost unknown", "quality", "1st token s", "place")


def _cells(sums: Sums) -> list[str]:
    quality = sums.quality
    return [
        str(sums.calls),
        str(sums.refused),
        f"{sums.cost_usd:.6f}",
        str(sums.cost_unknown),
        "?"
        if quality is None
        else f"{quality.mean:.3f} ({quality.low:.3f}-{quality.high:.3f}) of {quality.n}",
        "?" if sums.ttft_s is None else f"{sums.ttft_s:.2f}",
        ", ".join(f"{place} {count}" for place, count in sums.places.items()) or "-",
    ]


def _flowing(flow: Flow) -> str:
    unknown = f", {flow.unknown:,} at an unknown cost" if flow.unknown else ""
    amount = f"${abs(flow.saved_usd):.6f} {'less' if flow.saved_usd >= 0 else 'MORE'}"
    way = f"{flow.before or 'refused'} -> {flow.after or 'refused'}"
    return f"{flow.calls:,} calls {way}: {amount}{unknown}"


def _moved(move: Move) -> str:
    one, other = move.before, move.after
    return (
        f"{move.id} ({move.task}): {one.chosen or one.refused} -> {other.chosen or other.refused}"
    )
