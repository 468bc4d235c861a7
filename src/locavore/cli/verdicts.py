"""`locavore verdicts`: how good answers were, told afterwards."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TextIO

import click
import msgspec

from locavore.cli.options import home_option, json_option, ledger_url_option
from locavore.core.errors import RequestError
from locavore.ledger import kept_answers
from locavore.ledger.query import open_current
from locavore.ledger.sqlite import store_path, translated
from locavore.ledger.verdicts import Explored, Verdict, VerdictStore, explored


@click.group()
def command() -> None:
    """Judge explored calls, so that a promise is measured while it is kept."""


@command.command(
    "pending",
    short_help="Explored calls that nobody has judged yet.",
    epilog="""\b
Examples:
  locavore verdicts pending
  locavore verdicts pending --json | jq -r .[].id
""",
)
@json_option
@ledger_url_option
@home_option
def pending(as_json: bool, url: str | None, home: Path) -> None:
    """Explored calls whose verdicts are missing, oldest first.

    `answer_kept`: GET /v1/decisions/{id}/shadow shows the other model's answer, to the key that
    made the call.
    """
    with closing(open_current(home, url)) as db, translated(store_path(home)):
        waiting = [call for call in explored(db) if call.waits]
    if as_json:
        click.echo(msgspec.json.encode([_facts(home, call) for call in waiting]))
        return
    for call in waiting:
        served, other = (call.local, call.cloud) if call.kept else (call.cloud, call.local)
        wanted = "served and shadow" if call.kept and call.served is None else "served"
        wanted = "shadow" if call.served is not None else wanted
        click.echo(f"{call.id}  {call.task}  served by {served}, also {other}: judge {wanted}")
    if not waiting:
        click.echo("Nothing waits for a verdict.")


def _facts(home: Path, call: Explored) -> dict[str, object]:
    return {
        "id": call.id,
        "task": call.task,
        "served_by": call.local if call.kept else call.cloud,
        "shadow_by": call.cloud if call.kept else call.local,
        "served": call.served,
        "shadow": call.shadow,
        "answer_kept": kept_answers.find(home, call.id) is not None,
    }


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of a file of verdicts."""

    id: str
    served: float | None = None
    shadow: float | None = None


@command.command(
    "import",
    short_help="Take verdicts from a file, one JSON object per line.",
    epilog="""\b
Each line: {"id": "<x-locavore-decision of the call>", "served": 1, "shadow": 0.5}
Scores go from 0 (useless) to 1; "shadow" is for the other model's answer to an explored call.
\b
Examples:
  locavore verdicts import judged.jsonl
  my-judge | locavore verdicts import -
A line that was taken before is taken again without effect. Exit code 1: some lines were refused.
""",
)
@click.argument("verdicts", type=click.File("r", encoding="utf-8"))
@json_option
@ledger_url_option
@home_option
def take(verdicts: TextIO, as_json: bool, url: str | None, home: Path) -> None:
    """Take VERDICTS; lines that cannot be taken are told, and the others are taken all the same."""
    taken, refused = 0, []
    with closing(VerdictStore(home, url=url)) as store:
        for number, text in enumerate(verdicts, 1):
            if not text.strip():
                continue
            try:
                line = msgspec.json.decode(text, type=Line)
                verdict = Verdict(id=line.id, served=line.served, shadow=line.shadow)
                said = store.give(verdict, any_key=True)
            except (msgspec.DecodeError, RequestError) as error:
                refused.append({"line": number, "why": getattr(error, "message", str(error))})
                continue
            taken += 1
            if said.shadow is not None:
                kept_answers.drop(home, [said.id])
    if as_json:
        click.echo(msgspec.json.encode({"taken": taken, "refused": refused}))
    else:
        for problem in refused:
            click.echo(f"line {problem['line']}: {problem['why']}", err=True)
        click.echo(f"{taken:,} verdicts taken, {len(refused):,} lines refused")
    if refused:
        sys.exit(1)
