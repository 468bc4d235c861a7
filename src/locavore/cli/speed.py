"""`locavore speed`: how fast a model runs on a machine, with an interval."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from locavore.cli.options import home_option, json_option
from locavore.core.errors import ConfigError

if TYPE_CHECKING:
    from locavore.catalog.load import Catalog
    from locavore.core.estimate import Estimate
    from locavore.planner.speed_report import SpeedReport


@click.command()
@click.argument("model")
@click.option("--on", "machine", default="this", show_default=True, help="Such as '2x H100'.")
@click.option("--quant", default="Q4_K_M", show_default=True, help="Q4_K_M, FP8, AWQ, ...")
@click.option(
    "--engine", default="llama.cpp", show_default=True, help="llama.cpp, ollama, vllm, mlx, ..."
)
@click.option("--context", default="4096", show_default=True, help="Mean context: 8192, 32K.")
@click.option("--prompt", default="512", show_default=True, help="Tokens of one prompt.")
@click.option("--generate", default="512", show_default=True, help="Tokens of one answer.")
@click.option("--batch", default=1, show_default=True, help="Streams at once.")
@click.option(
    "--kv", "kv_type", default="f16", show_default=True, help="Cache: f16, q8_0, fp8, ..."
)
@click.option("--memory", help="Memory of a machine that the catalog lacks, such as 24GB.")
@click.option("--bandwidth", type=float, help="Its memory bandwidth, GB/s.")
@click.option("--tflops", type=float, help="Its dense FP16 rate, TFLOPS.")
@click.option("--measure", is_flag=True, help="Run the embedded engine here for half a minute.")
@click.option("--keep", "keep_it", is_flag=True, help="With --measure: use it from now on.")
@click.option("--explain", "explain", is_flag=True, help="Formulas and assumptions.")
@home_option
@json_option
def command(
    model: str,
    machine: str,
    quant: str,
    engine: str,
    context: str,
    prompt: str,
    generate: str,
    batch: int,
    kv_type: str,
    memory: str | None,
    bandwidth: float | None,
    tflops: float | None,
    measure: bool,
    keep_it: bool,
    explain: bool,
    home: Path,
    as_json: bool,
) -> None:
    """Decode, prefill and load speeds from a physical model, each with an 80 % interval.

    \b
    Examples:
      locavore speed llama3.1:8b --on "RTX 4090"
      locavore speed llama3.3:70b --on "2x H100" --engine vllm --quant FP8 --batch 32
      locavore speed qwen3:8b --on "new card" --memory 20GB --bandwidth 800 --tflops 120
      locavore speed llama3.2:1b --measure     calibrate on this machine first
    """
    from locavore.catalog.load import load
    from locavore.core.errors import RequestError
    from locavore.planner import machines, speed_measure, units
    from locavore.planner.speed_report import Ask, report

    catalog = load()
    found = catalog.model(model)
    _known_engine(catalog, engine)
    target = machines.target(
        catalog, machine, memory=memory, bandwidth_gbs=bandwidth, fp16_tflops=tflops
    )
    if (measure or keep_it) and machine.lower() != "this":
        raise RequestError(f"--measure runs here; {machine!r} is another machine")
    if keep_it and not measure:
        raise RequestError("--keep keeps what --measure measures; give both")
    ask = Ask(
        quant=quant,
        engine=engine,
        context_tokens=units.tokens(context),
        prompt_tokens=units.tokens(prompt, what="prompt"),
        generate_tokens=units.tokens(generate, what="generate"),
        batch=batch,
        kv_type=kv_type,
    )
    anchor = None
    if measure:
        anchor = asyncio.run(speed_measure.measure(home, catalog))
        if keep_it:
            speed_measure.keep(home, anchor)
    result = report(catalog, found, target, ask, home=home, anchor=anchor)
    if as_json:
        click.echo(msgspec.json.encode(result))
    else:
        _print(result, explain)


def _known_engine(catalog: "Catalog", engine: str) -> None:
    """A version may follow the name. Raises ConfigError with the nearest names."""
    try:
        catalog.engine(engine)
    except ConfigError:
        catalog.engine(engine.split()[0] if engine.split() else engine)


def _print(result: "SpeedReport", explain: bool) -> None:
    click.echo(
        f"{result.model} {result.quant} ({result.weights_gb:.1f} GB) on {result.machine}, "
        f"{result.engine}, {result.context_tokens:,} tokens of context"
    )
    lines = {
        "decode, one stream": result.decode,
        "prefill": result.prefill,
        f"decode, {result.batch} streams together": result.batched,
        "between tokens (TPOT)": result.tpot_ms,
        "first token (TTFT)": result.ttft_ms,
        "full load": result.full_load,
    }
    for name, estimate in lines.items():
        if estimate is not None:
            click.echo(f"  {name:30s} {_figure(estimate)}")
    click.echo(f"  basis: {result.decode.source}")
    for assumption in result.assumed:
        click.echo(f"  assumed: {assumption}")
    if explain:
        for name, formula in result.formulas.items():
            click.echo(f"  {name} = {formula}")


def _figure(estimate: "Estimate") -> str:
    low, mid, high = (f"{v:,.1f}" for v in (estimate.low, estimate.mean, estimate.high))
    return f"{mid:>9s} {estimate.unit:5s}  80 %: {low} to {high}"
