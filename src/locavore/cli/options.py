"""Options that several commands share."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="LOCAVORE_HOME",
    default=Path("~/.locavore"),
    show_default=True,
    show_envvar=True,
    callback=lambda _context, _option, home: home.expanduser(),
    help="Where all state lives.",
)
ledger_url_option = click.option(
    "--ledger-url",
    "url",
    envvar="LOCAVORE_LEDGER_URL",
    show_envvar=True,
    help="postgresql://...; default: the SQLite file under home.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def moment(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """Callback of a time option: `36h`, `7d`, `2w` ago, or a UTC date or time -> Unix seconds."""
    if text is None:
        return None
    if text[-1:] in _UNITS and text[:-1].isdigit():
        return (datetime.now(UTC) - int(text[:-1]) * _UNITS[text[-1]]).timestamp()
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time: try 36h, 7d, 2w or 2026-01-31") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
