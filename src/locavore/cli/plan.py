"""`locavore plan`: which way to carry a workload, at what cost, and whether to self-host it."""

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from locavore.catalog.load import load
from locavore.cli.options import home_option, json_option, moment
from locavore.cli.tables import table as make_table
from locavore.core.errors import ConfigError
from locavore.planner import report, units
from locavore.planner.planning import Plan, impossible, plan
from locavore.planner.workload import Workload, from_file, known_task

_NUMBERS = ("context_tokens", "horizon_months")


class _WithTraining(click.Group):
    """`plan finetune` beside `plan [FILE]`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["--workload", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_WithTraining, invoke_without_command=True, subcommand_metavar="[FILE | finetune]")
@click.option("--workload", "file", type=click.Path(path_type=Path), help="A workload.toml.")
@click.option("--from-ledger", is_flag=True, help="The volume this gateway had.")
@click.option("--since", callback=moment, help="With --from-ledger: 7d, 4w or a UTC date.")
@click.option("--input", "input_day", help="Input tokens: 10M/day, 5B/month, 200/s.")
@click.option("--output", "output_day", help="Output tokens, likewise.")
@click.option("--task", help="chat, qa, classify, extract, summarize, translate, code, ...")
@click.option("--model", "models", multiple=True, help="Open models to consider; repeatable.")
@click.option("--machine", "machines", multiple=True, help="To buy or rent, such as '2x H100'.")
@click.option("--own", "owned", multiple=True, help="Already there, such as 'M4 Max' or 'this'.")
@click.option("--api", "apis", multiple=True, help="provider/model to compare with; repeatable.")
@click.option("--users-at-once", "peak_concurrency", type=float, help="Calls at the busiest time.")
@click.option("--call", "call", help="Tokens of a call in and out, such as 1000:300.")
@click.option("--cached", "cached_share", help="Share of input a prompt cache would serve: 30%.")
@click.option("--context", help="Tokens of context per call: 8192, 32K.")
@click.option("--speed", "min_tokens_s_user", type=float, help="Least tokens/s one user sees.")
@click.option("--first-token", "max_ttft_s", type=float, help="Most seconds to the first token.")
@click.option("--quality", "min_quality", help="Least score on the task's benchmark: 0.8, 80%.")
@click.option("--elo", "min_elo", type=float, help="Least Arena Elo.")
@click.option("--privacy", type=click.Choice(["any", "private_cloud", "on_prem"]))
@click.option("--use", type=click.Choice(["internal", "product"]), help="For licenses.")
@click.option("--users", help="Monthly active users, for licenses: 800M.")
@click.option("--hours", "hours_day", type=float, help="Hours a day with calls.")
@click.option("--growth", "growth_year", help="Growth of the volume a year: 50%.")
@click.option("--horizon", "horizon_months", type=int, help="Months compared.")
@click.option("--region", help="Electricity: EU.business, DE.household, US.business, ...")
@click.option("--electricity", "electricity_usd_kwh", type=float, help="USD per kWh.")
@click.option("--no-engineers", is_flag=True, help="Nobody can run inference servers.")
@click.option("--stage", type=click.Choice(["prototype", "growing", "steady"]))
@click.option("--rate", "rates", multiple=True, help="key=value over a catalog rate; repeatable.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a report to open offline.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option("--explain", "show_explain", is_flag=True, help="Formula and source of each figure.")
@json_option
@home_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    file: Path | None,
    from_ledger: bool,
    since: float | None,
    rates: tuple[str, ...],
    html: Path | None,
    markdown: bool,
    show_explain: bool,
    as_json: bool,
    home: Path,
    **flags: Any,
) -> None:
    """Rank models, machines and APIs for a workload; say whether to self-host.

    \b
    Examples:
      locavore plan --input 1M/day --output 300K/day --model llama3.3:70b --users-at-once 10
      locavore plan --input 75M/day --output 25M/day --task qa --html plan.html
      locavore plan --input 4B/month --output 1B/month --model llama3.3:70b
      locavore plan --task classify --input 1M/day --output 20K/day --call 500:10 --own "M4 Max"
      locavore plan workload.toml --explain
      locavore plan --from-ledger --since 4w
      locavore plan finetune qwen3:8b --on "RTX 4090" --inference 5M/day
    """
    if ctx.invoked_subcommand is not None:
        return
    facts = _facts(flags)
    if from_ledger:
        from locavore.planner.ledger_volume import from_ledger as read

        facts = {"name": "ledger", **read(home, since_s=since), **facts}
    work, given = _workload(file, facts)
    found = plan(work, rates=rate_overrides(rates), given=given)
    if html is not None:
        from locavore.planner.offline import html as rendered

        html.write_text(rendered(found), encoding="utf-8")
        click.echo(f"wrote {html}", err=True)
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif markdown:
        click.echo(report.markdown(found))
    elif html is None:
        _show(found, show_explain)
    problem = impossible(found)
    if problem is not None:
        raise problem


def _facts(flags: dict[str, Any]) -> dict[str, Any]:
    """Fields of a workload from the flags that were given, with their units read."""
    facts = {name: value for name, value in flags.items() if value not in (None, (), False)}
    for flag, field in (("input_day", "input_tokens_day"), ("output_day", "output_tokens_day")):
        if flag in facts:
            facts[field] = _zero_or(facts.pop(flag), what=f"--{flag.removesuffix('_day')}")
    if "task" in facts:
        known_task(facts["task"], what="--task")
    if "context" in facts:
        facts["context_tokens"] = units.tokens(facts.pop("context"))
    if "users" in facts:
        facts["users"] = units.amount(facts["users"], what="--users")
    for name in ("cached_share", "min_quality"):
        if name in facts:
            facts[name] = units.share(facts[name], what=name)
    if "growth_year" in facts:
        facts["growth_year"] = _growth(facts["growth_year"])
    if "call" in facts:
        prompt, answer = _call(facts.pop("call"))
        facts |= {"input_tokens_call": prompt, "output_tokens_call": answer}
        if "context_tokens" not in facts:
            facts["context_tokens"] = max(8192, 2 * int(prompt + answer))
    if facts.pop("no_engineers", False):
        facts["engineers"] = False
    return facts


def _growth(text: str) -> float:
    body = text.strip()
    scale = 100 if body.endswith("%") else 1
    return units.amount(body.rstrip("%"), what="--growth", most=1e4, zero=True) / scale


def _call(text: str) -> tuple[float, float]:
    prompt, colon, answer = text.partition(":")
    if not colon:
        raise ConfigError([f"--call is {text!r}; write input:output tokens, such as 1000:300"])
    return units.amount(prompt, what="--call input"), units.amount(answer, what="--call output")


def _workload(file: Path | None, facts: dict[str, Any]) -> tuple[Workload, set[str]]:
    """(workload, fields that somebody set): a file, flags over it."""
    if file is not None:
        found = from_file(file)
        kept = msgspec.structs.replace(found, **facts)
        defaults = Workload(input_tokens_day=0, output_tokens_day=0)
        names = {
            name
            for name in Workload.__struct_fields__
            if getattr(found, name) != getattr(defaults, name)
        }
        return kept, names | set(facts)
    missing = [n for n in ("input", "output") if f"{n}_tokens_day" not in facts]
    if len(missing) == 2:
        raise ConfigError(
            ["no volume: give --input and --output (10M/day), a workload.toml or --from-ledger"]
        )
    if missing:
        raise ConfigError([f"no --{missing[0]}: give both, --{missing[0]} 0 if there is none"])
    return msgspec.convert(facts, Workload, strict=False), set(facts)


def rate_overrides(pairs: tuple[str, ...]) -> dict[str, float]:
    """`key=value` options as numbers."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError([f"--rate is {pair!r}; write key=value, such as resale_share=0.2"])
        key = load().rate(key.strip()).key
        found[key] = units.amount(value, what=f"rate {key}", zero=True)
    return found


def _show(found: Plan, show_explain: bool) -> None:
    console = Console()
    advice = found.recommendation
    console.print(advice.summary, style="bold", soft_wrap=True, highlight=False)
    for sign, lines in (("+", advice.reasons_for), ("-", advice.reasons_against)):
        for line in lines:
            console.print(f"  {sign} {line}", soft_wrap=True, highlight=False)
    for grid in report.grids(found):
        shown = [number for number, name in enumerate(grid.columns) if name != "source"]
        table = make_table([grid.columns[number] for number in shown], title=grid.title)
        for row in grid.rows:
            table.add_row(*(row[number] for number in shown))
        console.print(table)
    for line in report.plot(found.curve) if found.curve is not None else ():
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    for line in report.explain(found) if show_explain else ():
        console.print(f"  {line}", soft_wrap=True, highlight=False)
    for line in report.notes(found):
        console.print(line, soft_wrap=True, highlight=False)


@command.command()
@click.argument("model")
@click.option("--on", "machine", required=True, help="Machine, such as 'RTX 4090' or '4x A100'.")
@click.option("--examples", default="1000", show_default=True, help="Training examples.")
@click.option("--tokens", "tokens_example", default=500.0, show_default=True, help="Per example.")
@click.option("--epochs", default=3.0, show_default=True, help="Passes over the examples.")
@click.option("--rank", default=16, show_default=True, help="Of the adapter.")
@click.option("--sequence", default="2048", show_default=True, help="Tokens trained at a time.")
@click.option("--batch", default=1, show_default=True, help="Sequences at a time.")
@click.option("--runs", "runs_year", default=4.0, show_default=True, help="Trainings a year.")
@click.option("--inference", default="0/day", show_default=True, help="Tokens served afterwards.")
@click.option("--knowledge-changes", is_flag=True, help="What it must know changes often.")
@click.option("--needs-reasoning", is_flag=True, help="The task needs reasoning.")
@click.option("--rate", "rates", multiple=True, help="key=value over a catalog rate; repeatable.")
@click.option("--explain", "show_explain", is_flag=True, help="Formulas and sources.")
@json_option
def finetune(
    model: str,
    machine: str,
    examples: str,
    sequence: str,
    inference: str,
    rates: tuple[str, ...],
    show_explain: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """An adapter of one's own against fine-tuning through an API.

    \b
    Examples:
      locavore plan finetune qwen3:8b --on "RTX 4090" --inference 5M/day
      locavore plan finetune llama3.3:70b --on "4x H100" --examples 20K --rank 64 --json
    """
    from locavore.planner.finetune import Job
    from locavore.planner.finetune import finetune as compare

    job = Job(
        examples=units.amount(examples, what="--examples"),
        sequence_tokens=units.tokens(sequence, what="--sequence"),
        inference_tokens_day=_zero_or(inference, what="--inference"),
        **flags,
    )
    found = compare(model, machine, job, rates=rate_overrides(rates))
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    console = Console()
    names = ("method", "memory per device", "fits", "hours", "USD per run", "trained weights")
    table = make_table(names, title=f"Fine-tuning {found.model} on {found.machine}")
    for row in found.methods:
        hours = f"{row.hours:.2f} ({row.hours_low:.2f}-{row.hours_high:.2f})" if row.hours else ""
        cost = f"{row.usd_run:,.2f}" if row.usd_run is not None else ""
        table.add_row(
            row.name, units.gib(row.memory_bytes), "yes" if row.fits else "no", hours, cost,
            f"{row.trained_parameters / 1e6:,.1f}M",
        )  # fmt: skip
    console.print(table)
    console.print(found.verdict, soft_wrap=True, highlight=False)
    console.print(
        f"engineering per run {units.money(found.engineering_usd_run)} either way; training"
        f" through an API {units.money(found.api_usd_run)} per run",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    if show_explain:
        for line in (*(f"{row.name} hours = {row.formula}" for row in found.methods),
                     *(f"source: {text}" for text in found.sources)):  # fmt: skip
            console.print(line, soft_wrap=True, highlight=False)
    for line in (*(f"not now: {x}" for x in found.not_when),
                 *(f"assumed: {x}" for x in found.assumptions)):  # fmt: skip
        console.print(line, soft_wrap=True, highlight=False)


def _zero_or(text: str, *, what: str) -> float:
    return 0.0 if text.split("/")[0].strip() == "0" else units.per_day(text, what=what)
