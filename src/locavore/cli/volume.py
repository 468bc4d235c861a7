"""`locavore volume`: token volumes from how a product is used."""

import click
import msgspec
from rich.console import Console

from locavore.cli.options import json_option
from locavore.cli.tables import table as make_table
from locavore.core.errors import ConfigError
from locavore.planner import units
from locavore.planner.volume import USES, Volume, volume


@click.command()
@click.argument("use", required=False, metavar="[" + "|".join(USES) + "]")
@click.argument("count", required=False)
@click.option("--set", "pairs", multiple=True, help="parameter=value; repeatable.")
@json_option
def command(use: str | None, count: str | None, pairs: tuple[str, ...], as_json: bool) -> None:
    """Tokens a day and a month, what is usually forgotten, and by what factor.

    COUNT is users, documents, developers, items, recordings or queries a day. Without USE: all
    uses with their parameters.

    \b
    Examples:
      locavore volume chat 1000
      locavore volume chat 1000 --set messages=20 --set turns=10
      locavore volume batch 100K --set item_tokens=100 --json
      locavore volume
    """
    if use is None:
        _list(as_json)
        return
    if count is None:
        counted = USES[use][1] if use in USES else "things"
        raise ConfigError([f"how many {counted}? Such as: locavore volume {use} 1000"])
    found = volume(use, units.amount(count, what="count"), _pairs(pairs))
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        _show(found)


def _pairs(pairs: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError([f"--set is {pair!r}; write parameter=value"])
        found[name.strip()] = units.amount(value, what=name.strip(), zero=True)
    return found


def _list(as_json: bool) -> None:
    if as_json:
        facts = {name: {"counts": row[1], "parameters": row[2]} for name, row in USES.items()}
        click.echo(msgspec.json.encode(facts))
        return
    names = ("use", "counts", "parameter", "default", "meaning")
    table = make_table(names, title="Uses", right=("default",))
    for use, (_, counted, parameters) in USES.items():
        for name, row in parameters.items():
            table.add_row(use, counted, name, f"{row.value:g}", row.text)
            use = counted = ""
    Console().print(table)


def _show(found: Volume) -> None:
    console = Console()
    figures = ("tokens/day", "tokens/month")
    table = make_table(("", *figures), title=f"Volume of {found.use}", right=figures)
    rows = {
        "first guess: what people write and read": found.first_guess_tokens_day,
        "input, with everything sent along": found.input_tokens_day,
        "output": found.output_tokens_day,
        "counted": found.input_tokens_day + found.output_tokens_day,
        f"first guess x {found.underestimation_factor:g}": found.high_tokens_day,
    }
    for name, value in rows.items():
        table.add_row(name, f"{value:,.0f}", f"{value * units.DAYS_PER_MONTH:,.0f}")
    console.print(table)
    if found.service_usd_month is not None:
        cost = units.money(found.service_usd_month)
        line = f"the cloud service beside it: {cost} a month ({found.service})"
        console.print(line, soft_wrap=True, highlight=False)
    for line in (
        f"counted over first guess: {found.hidden_factor:.1f}",
        f"formula: {found.formula}",
        *found.sources,
        *(f"assumed: {text}" for text in found.assumed),
        f"plan it: locavore plan --input {found.input_tokens_day:.0f}/day"
        f" --output {found.output_tokens_day:.0f}/day",
    ):
        console.print(line, soft_wrap=True, highlight=False)
