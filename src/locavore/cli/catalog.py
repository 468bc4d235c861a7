"""`locavore catalog`: what is known, from where, as of when."""

import datetime
from collections.abc import Callable, Sequence
from typing import Any

import click
import msgspec
from rich.console import Console

from locavore.catalog.check import check as findings
from locavore.catalog.load import Catalog, load
from locavore.catalog.schema import Figure
from locavore.cli.options import home_option, json_option
from locavore.cli.tables import table as make_table
from locavore.core.errors import ConfigError
from locavore.planner import licenses, tensors, units

Rows = tuple[tuple[str, ...], Sequence[tuple[str, ...]]]


@click.group()
def command() -> None:
    """Models, hardware, engines, licenses and rates, each figure with source and date.

    Files in LOCAVORE_HOME/catalog/*.toml add to what is shipped and override it.

    \b
    Examples:
      locavore catalog list models
      locavore catalog list task_models --task classification
      locavore catalog show "RTX 4090"
      locavore catalog check
      locavore catalog add Qwen/Qwen3-8B
      locavore catalog license llama4:scout --use product --users 800M --distribute-weights
    """


def _models(catalog: Catalog) -> Rows:
    rows = []
    for model in catalog.models.values():
        shape = model.shape
        size = f"{tensors.parameters(shape) / 1e9:.2f}" if shape else "unknown"
        active = f"{tensors.active_parameters(shape) / 1e9:.2f}" if shape else ""
        context = f"{shape.context_tokens:,}" if shape else ""
        rows.append((model.name, model.maker, size, active, context, model.license))
    return ("model", "maker", "parameters (B)", "active (B)", "context", "license"), rows


def _hardware(catalog: Catalog) -> Rows:
    rows = [
        (d.name, d.kind, _figure(d.memory_gb), _figure(d.bandwidth_gbs), _figure(d.fp16_tflops),
         _figure(d.power.tdp_w or d.power.load_w), _figure(d.price_usd), _figure(d.rent_usd_hour))
        for d in catalog.hardware.values()
    ]  # fmt: skip
    return ("device", "kind", "GB", "GB/s", "TFLOP/s FP16", "W", "USD", "USD/h"), rows


def _figure(figure: Figure | None) -> str:
    return "unknown" if figure is None else f"{figure.value:,g}"


def _rates(catalog: Catalog) -> Rows:
    rows = [
        (r.key, f"{r.figure.value:g}", _span(r.figure), r.figure.unit, str(r.figure.as_of), r.text)
        for r in catalog.rates.values()
    ]
    return ("key", "value", "range", "unit", "as of", "what"), rows


def _span(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"{figure.low:g}-{figure.high:g}"


def _licenses(catalog: Catalog) -> Rows:
    rows = [
        (r.key, r.name, "yes" if r.commercial else "no", "yes" if r.osi_approved else "no",
         ", ".join(rule.code for rule in r.obligations))
        for r in catalog.licenses.values()
    ]  # fmt: skip
    return ("key", "license", "commercial", "OSI", "obligations"), rows


def _engines(catalog: Catalog) -> Rows:
    rows = [
        (r.key, ", ".join(r.formats), ", ".join(r.hardware), r.concurrency, r.use_when)
        for r in catalog.engines.values()
    ]
    return ("engine", "formats", "hardware", "users", "use when"), rows


def _task_models(catalog: Catalog) -> Rows:
    rows = []
    for row in catalog.task_models.values():
        ours, theirs = row.score, row.cloud_score
        ratio = ""
        if ours is not None and theirs is not None and row.higher_is_better:
            ratio = f"{ours.value / theirs.value:.1%}"
        elif row.stated_ratio is not None:
            ratio = f"{row.stated_ratio.value:g}% (stated)"
        rows.append(
            (row.task, row.name, row.benchmark, row.metric, _score(ours), row.cloud,
             _score(theirs), ratio, _figure(row.size_mb) if row.size_mb else "")
        )  # fmt: skip
    return (
        "task",
        "model",
        "benchmark",
        "metric",
        "score",
        "cloud",
        "its score",
        "ratio",
        "MB",
    ), rows


def _score(figure: Figure | None) -> str:
    return "not published" if figure is None else f"{figure.value:g}"


KINDS: dict[str, Callable[[Catalog], Rows]] = {
    "models": _models,
    "hardware": _hardware,
    "rates": _rates,
    "licenses": _licenses,
    "engines": _engines,
    "task_models": _task_models,
}


@command.command("list")
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.option("--task", help="Only task models of this task.")
@json_option
def list_(kind: str, task: str | None, as_json: bool) -> None:
    """All records of one kind.

    \b
    Examples:
      locavore catalog list hardware
      locavore catalog list task_models --task rerank --json
    """
    catalog = load()
    if task is not None:
        _task_known(catalog, kind, task)
    if as_json:
        records = getattr(catalog, kind).values()
        wanted = [row for row in records if task is None or getattr(row, "task", None) == task]
        click.echo(msgspec.json.encode(wanted))
        return
    columns, rows = KINDS[kind](catalog)
    table = make_table(columns, title=kind)
    for row in rows:
        if task is None or row[0] == task:
            table.add_row(*row)
    Console().print(table)


def _task_known(catalog: Catalog, kind: str, task: str) -> None:
    if kind != "task_models":
        raise ConfigError([f"--task is for task_models; {kind} have none"])
    known = sorted({row.task for row in catalog.task_models.values()})
    if task not in known:
        raise ConfigError([f"no task model is for {task!r}; tasks: {', '.join(known)}"])


@command.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """One record with every figure, its source and date.

    \b
    Examples:
      locavore catalog show qwen3:8b
      locavore catalog show "H100 SXM 80GB" --json
    """
    catalog = load()
    record = _found(catalog, name)
    facts = msgspec.to_builtins(record)
    scores = {
        benchmark: {"value": row.value, "source": catalog.cite(row.source), "as_of": str(row.as_of)}
        for benchmark, row in catalog.scores(getattr(record, "name", "")).items()
    }
    if scores:
        facts["scores"] = scores
    if as_json:
        click.echo(msgspec.json.encode(facts))
        return
    console = Console()
    for line in _lines(catalog, facts, ""):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _found(catalog: Catalog, name: str) -> Any:
    problems: list[str] = []
    looks = (catalog.model, catalog.device, catalog.engine, catalog.license, catalog.rate)
    for look in looks:
        try:
            return look(name)
        except ConfigError as error:
            problems += error.problems
    raise ConfigError(problems[:2])


def _lines(catalog: Catalog, facts: dict[str, Any], path: str) -> list[str]:
    lines = []
    for key, value in facts.items():
        at = f"{path}{key}"
        if isinstance(value, dict) and "value" in value and "source" in value:
            source = value["source"]
            cited = catalog.cite(source) if source in catalog.sources else source
            unit = value.get("unit", "")
            lines.append(f"{at} = {value['value']:g} {unit}  [{cited}, {value['as_of']}]")
        elif isinstance(value, dict):
            lines += _lines(catalog, value, f"{at}.")
        elif key == "source" and value in catalog.sources:
            lines.append(f"{at} = {catalog.cite(value)}")
        else:
            lines.append(f"{at} = {value}")
    return lines


@command.command()
@click.option("--today", help="Judge age on this date.")
@json_option
def check(today: str | None, as_json: bool) -> None:
    """What is stale, assumed without a published source, or missing.

    \b
    Examples:
      locavore catalog check
      locavore catalog check --today 2027-06-01 --json
    """
    day = _date(today) if today else datetime.datetime.now(datetime.UTC).date()
    found = findings(load(), today=day)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    table = make_table(("kind", "record", "field", "text"), title=f"Findings on {day}")
    for row in found:
        table.add_row(row.kind, row.record, row.field, row.text)
    Console().print(table)


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise ConfigError([f"--today is {text!r}; write a date such as 2027-06-01"]) from None


@command.command()
@click.argument("origin")
@click.option("--name", help="Name in the catalog; default: what the file says.")
@click.option("--license", "license_key", help="License key; default: what the file says.")
@json_option
@home_option
def add(origin: str, name: str | None, license_key: str | None, as_json: bool, home: Any) -> None:
    """Add a model from a GGUF file, a config.json or a hub repository.

    Nothing but the header is read; a repository is asked for config.json, or for the first bytes
    of a GGUF file.

    \b
    Examples:
      locavore catalog add ./model.gguf --license apache-2.0
      locavore catalog add Qwen/Qwen3-8B
    """
    from locavore.planner.adding import add as added

    model, path = added(origin, name=name, license=license_key, catalog=load(), to=home / "catalog")
    if as_json:
        click.echo(msgspec.json.encode({"model": model, "file": str(path)}))
    else:
        click.echo(f"added {model.name} to {path}")


@command.command("license")
@click.argument("model")
@click.option(
    "--use",
    type=click.Choice(["internal", "product"]),
    default="product",
    show_default=True,
    help="What you would do with it.",
)
@click.option("--users", help="Monthly active users: 800M.")
@click.option("--revenue", help="Monthly revenue in US dollars: 20M.")
@click.option("--distribute-weights", is_flag=True, help="Weights leave your house.")
@click.option("--derivative", is_flag=True, help="The weights are fine-tuned or changed.")
@click.option("--train-other", is_flag=True, help="Its output trains another model.")
@click.option("--region", help="Where the product is offered: EU, US, ...")
@json_option
def license_(
    model: str, use: str, users: str | None, revenue: str | None, as_json: bool, **flags: Any
) -> None:  # fmt: skip
    """A model's license against a use: what it asks, what it forbids. Exit 1: forbidden.

    \b
    Examples:
      locavore catalog license llama4:scout --use product --users 800M --distribute-weights
      locavore catalog license qwen3:8b --use internal
    """
    catalog = load()
    stated = licenses.Use(
        product=use == "product",
        users=units.amount(users, what="--users") if users else None,
        revenue_usd_month=units.amount(revenue, what="--revenue") if revenue else None,
        **flags,
    )
    found = licenses.check_model(catalog, catalog.model(model), stated)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        _show_license(found)
    if not found.allowed:
        raise SystemExit(1)


def _show_license(found: licenses.Verdict) -> None:
    console = Console()
    word = "allowed" if found.allowed else "not allowed as stated"
    openness = "open weights" if found.weights_open else "closed weights"
    osi = "an open-source license" if found.osi_approved else "not an open-source license"
    for line in (
        f"{found.name}: {word} ({openness}, {osi})",
        *(f"  forbids: {duty.text}" for duty in found.forbidden),
        *(f"  asks: {duty.text}" for duty in found.duties),
        *(f"  depends: {duty.open_question} {duty.text}" for duty in found.undecided),
        f"  source: {found.source}; the text decides, this is a summary",
    ):
        console.print(line, soft_wrap=True, highlight=False)
