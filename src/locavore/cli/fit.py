"""`locavore fit`: does a model fit a machine, and with how much context."""

import click
import msgspec
from rich.console import Console

from locavore.catalog.load import load
from locavore.cli.options import json_option
from locavore.cli.tables import table as make_table
from locavore.planner import units
from locavore.planner.fitting import Fit, Suggestion, fit, suggest
from locavore.planner.machines import target


@click.command()
@click.argument("model", required=False)
@click.option("--on", "machine", default="this", show_default=True, help="Such as '2x H100'.")
@click.option("--quant", help="Q4_K_M, FP8, AWQ, ...; default: the heaviest that fits.")
@click.option(
    "--kv", "kv_type", default="f16", show_default=True, help="Cache: f16, q8_0, fp8, ..."
)
@click.option("--context", help="Tokens per sequence: 8192, 32K.")
@click.option("--parallel", default=1, show_default=True, help="Sequences with a full context.")
@click.option("--engine", help="embedded, vllm, mlx; default: llama.cpp on the machine's backend.")
@click.option("--split", type=click.Choice(["layer", "tensor"]), help="How devices share a model.")
@click.option("--file-size", help="Known size of the weights file, such as 17.7GB.")
@click.option("--host-memory", help="System memory for layers that do not fit, such as 64GB.")
@click.option("--memory", help="Memory of a machine that the catalog lacks, such as 24GB.")
@click.option("--bandwidth", type=float, help="Its memory bandwidth, GB/s.")
@click.option("--explain", "show_explain", is_flag=True, help="Formula, inputs and sources.")
@json_option
def command(
    model: str | None,
    machine: str,
    quant: str | None,
    kv_type: str,
    context: str | None,
    parallel: int,
    engine: str | None,
    split: str | None,
    file_size: str | None,
    host_memory: str | None,
    memory: str | None,
    bandwidth: float | None,
    show_explain: bool,
    as_json: bool,
) -> None:
    """Weights, cache and buffers against the memory of a machine.

    Without MODEL: the best models for each task that the machine holds.

    \b
    Examples:
      locavore fit llama3.3:70b --on "2x RTX 4090" --context 16K
      locavore fit gemma-4-31B --on "RTX 4090" --kv q8_0 --explain
      locavore fit --on "Strix Halo"
      locavore fit qwen3:8b --on "new card" --memory 20GB
    """
    catalog = load()
    place = target(
        catalog, machine, memory=memory, bandwidth_gbs=bandwidth, host_memory=host_memory
    )
    tokens = units.tokens(context) if context else None
    if model is None:
        rows = suggest(
            catalog,
            place,
            context_tokens=tokens or 8192,
            parallel=parallel,
            kv_type=kv_type,
            engine=engine,
        )
        _print(rows, as_json) if as_json else _show_suggestions(rows, place.label)
        return
    found = fit(
        catalog,
        catalog.model(model),
        place,
        quant=quant,
        kv_type=kv_type,
        context_tokens=tokens,
        parallel=parallel,
        engine=engine,
        split=split,
        file_bytes=int(units.bytes_of(file_size, what="file size")) if file_size else None,
    )
    _print(found, as_json) if as_json else _show(found, show_explain)
    if not found.fits:
        raise SystemExit(1)


def _print(found: object, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(found))


def _show(found: Fit, show_explain: bool) -> None:
    console = Console()
    part = found.footprint
    title = f"{found.model} {found.quantization} on {found.machine}"
    table = make_table(("part", "memory"), title=title, right=("memory",))
    rows = {
        "weights": part.weights_bytes,
        f"cache, {found.parallel} x {found.context_tokens:,} tokens, {found.kv_type}": (
            part.cache_bytes
        ),
        "compute buffers": part.compute_bytes,
        "workspace": part.workspace_bytes,
        f"runtime ({found.engine})": part.runtime_bytes,
        "repacked copy": part.repack_bytes,
    }
    for name, size in rows.items():
        if size:
            table.add_row(name, units.gib(size))
    table.add_section()
    table.add_row("needed on the fullest device", units.gib(found.needed_bytes))
    table.add_row("available there", units.gib(found.available_bytes))
    if part.host_bytes:
        table.add_row("in system memory", units.gib(part.host_bytes))
    console.print(table)
    verdict = "fits" if found.fits else "does not fit"
    if found.offloaded_layers is not None and found.fits:
        verdict += f" with {found.offloaded_layers} layers on the device, the rest in memory"
    console.print(f"{verdict}; {found.binds or 'the whole trained context is possible'}")
    console.print(
        f"largest context {found.largest_context_tokens:,} tokens per sequence; "
        f"best quantization at this context: {found.best_quantization or 'none of the usual'}"
    )
    for line in found.assumptions:
        console.print(f"assumed: {line}")
    for line in found.explain if show_explain else ():
        console.print(f"  {line}", soft_wrap=True, highlight=False)


def _show_suggestions(rows: list[Suggestion], machine: str) -> None:
    names = ("task", "model", "file", "score", "benchmark", "memory")
    title = f"Best models by task on {machine}, by published scores"
    table = make_table(names, title=title, right=("score", "memory"), whole=("model", "memory"))
    for row in rows:
        size = units.gib(row.needed_bytes)
        score = f"{row.score:.1%}"
        table.add_row(row.task, row.model, row.quantization, score, row.benchmark, size)
    Console().print(table)
