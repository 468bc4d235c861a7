"""`locavore pull`: fetch, verify and pin model weights."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from locavore.cli.options import home_option, json_option
from locavore.engines import hub, pull
from locavore.engines.machine import GIB


@click.command()
@click.argument("model", required=False)
@home_option
@json_option
@click.option("--name", help="Name to keep the model under. Default: from the model.")
@click.option("--force", is_flag=True, help="Pull what does not fit this machine.")
@click.option("--list", "listing", is_flag=True, help="Show the weights known by name.")
def command(
    model: str | None, home: Path, as_json: bool, name: str | None, force: bool, listing: bool
) -> None:
    """Fetch weights, verify their SHA-256 and pin them.

    MODEL is a name from --list, a hub repository, or a local .gguf file, which stays where it is.
    An interrupted download goes on where it stopped. HTTPS_PROXY, HF_ENDPOINT, HF_TOKEN and
    HF_HUB_OFFLINE are honored.

    \b
    Examples:
      locavore pull qwen3-0.6b
      locavore pull Qwen/Qwen3-1.7B-GGUF:Q8_0
      locavore pull ./my-model.gguf --name mine
    """
    if listing:
        return _list(as_json)
    if model is None:
        raise click.UsageError("name a model, for example: locavore pull qwen3-0.6b")
    spec = pull.read_spec(model, name=name)
    try:
        with _bar(spec.name) as progress:
            kept = pull.pull(spec, home, hub.Hub(os.environ), progress, force=force)
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
    if as_json:
        click.echo(msgspec.json.encode(kept, enc_hook=str))
    else:
        click.echo(f"{kept.name}: {kept.bytes / GIB:.2f} GiB, sha256 {kept.sha256}")
        click.echo(f"kept as {kept.path}")
        click.echo(f"use it: restart `locavore serve`, then model embedded/{kept.name}")
    return None


def _list(as_json: bool) -> None:
    rows = pull.catalog()
    if as_json:
        click.echo(msgspec.json.encode(rows))
        return
    for row in rows:
        size = f"{row.bytes / GIB:6.2f} GiB" if row.bytes else "  size at pull"
        click.echo(f"{row.name:14} {size}  {row.license:12} {row.source}")


@contextmanager
def _bar(name: str) -> Iterator[hub.Progress]:
    """A progress bar on a terminal, silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress("{task.description}", *columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
