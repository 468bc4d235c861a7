"""`locavore route`: the decision for a prompt, with every candidate and its reasons."""

import asyncio
import json
import os
import sys
import textwrap
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from locavore.cli.options import json_option
from locavore.config import load
from locavore.core.backend import Capability
from locavore.core.decision import Considered, Decision
from locavore.core.estimate import Estimate
from locavore.core.policy import Require
from locavore.core.request import Request
from locavore.routing.conversation import Talk
from locavore.routing.decide import refusal
from locavore.routing.explaining import explain, lines
from locavore.routing.router import Router
from locavore.serving.snapshot import Snapshot
from locavore.wire.formats import FORMATS
from locavore.wire.labelling import split_labels

_STYLES = {"chosen": "bold green", "fallback": "cyan", "allowed": "", "excluded": "dim"}


def _usd(_context: click.Context, _option: click.Parameter, text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        raise click.BadParameter(f"{text!r} is no amount: try 0.01") from None


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file [LOCAVORE_CONFIG, <home>/config.toml].",
)
home_flag = click.option("--home", help="Folder for all state [LOCAVORE_HOME, ~/.locavore].")


@click.command(
    epilog="""\b
Examples:
  locavore route "translate to French: good morning"
  locavore route --model cloud --max-cost 0.01 "summarize this" --json
  locavore route --labels health "what does this letter say?"
  locavore route --body call.json        the body of a chat call, as POST /v1/route takes it
  locavore route --explain "fix this"    what it rests on and what would change it
Exit code 0: something may serve it; 1: nothing may.
"""
)
@click.argument("prompt", required=False)
@click.option("--model", default="auto", show_default=True, help="The model a client would name.")
@click.option("--labels", default="", help="Privacy labels, comma-separated.")
@click.option(
    "--needs",
    default="",
    help=f"What the answer cannot do without: {', '.join(c.value for c in Capability)}.",
)
@click.option("--output-tokens", type=click.IntRange(min=1), help="Output budget.")
@click.option("--max-cost", callback=_usd, metavar="USD", help="Highest forecast cost.")
@click.option("--max-ttft", type=float, metavar="SECONDS", help="Longest wait to the first token.")
@click.option("--key-name", help="Decide as for this client key.")
@click.option(
    "--body", type=click.File("rb"), help="A whole chat request as JSON; `-` reads it from stdin."
)
@click.option("--explain", "explained", is_flag=True, help="Say what would change the choice.")
@config_option
@home_flag
@json_option
def command(
    prompt: str | None,
    body: Any,
    labels: str,
    needs: str,
    max_cost: Decimal | None,
    max_ttft: float | None,
    key_name: str | None,
    config: Path | None,
    home: str | None,
    explained: bool,
    as_json: bool,
    **chat: Any,
) -> None:
    """Show which model would answer PROMPT, and why not the others. Calls nothing."""
    if (prompt is None) == (body is None):
        raise click.UsageError("give either a PROMPT or --body")
    data = body.read() if body is not None else chat_body(prompt or "", **chat)
    request = FORMATS["openai_chat"].request(data)
    request = msgspec.structs.replace(
        request,
        labels=request.labels | split_labels(labels),
        needs=request.needs | _needs(needs),
        key_name=key_name,
    )
    limits = Require(max_cost_usd=max_cost, max_ttft_s=max_ttft)
    decision = dry_run(snapshot_of(config, home), request, limits)
    if as_json and explained:
        click.echo(msgspec.json.encode({"decision": decision, "explanation": explain(decision)}))
    elif as_json:
        click.echo(msgspec.json.encode(decision))
    else:
        console = Console()
        show(decision, console)
        if explained:
            told(decision, console)
    if decision.chosen is None:
        sys.exit(1)


def chat_body(prompt: str, *, model: str, output_tokens: int | None) -> bytes:
    fields: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
    }
    if output_tokens is not None:
        fields["max_completion_tokens"] = output_tokens
    return json.dumps(fields).encode()


def _needs(text: str) -> frozenset[str]:
    wanted = split_labels(text)
    known = {c.value for c in Capability}
    for name in sorted(wanted - known):
        raise click.BadParameter(f"{name!r} is none of {', '.join(sorted(known))}")
    return wanted


def snapshot_of(config: Path | None, home: str | None) -> Snapshot:
    """What a gateway with this configuration would serve from. Loads no model."""
    from locavore.compose.inventory import Inventory

    env = dict(os.environ)
    found = load(config, env, {"home": home})

    async def look() -> Snapshot:
        inventory = Inventory(found, env, tell=lambda _: None, engines=False)
        try:
            await inventory.look(own_port=None)
            return inventory.compile()
        finally:
            await inventory.close()

    return asyncio.run(look())


def dry_run(snapshot: Snapshot, request: Request, limits: Require) -> Decision:
    """The decision the gateway would take, by the same code."""
    router = Router(
        snapshot.policy,
        snapshot.backends,
        wildcards={w.prefix: w.template for w in snapshot.wildcards},
        only_named=snapshot.named,
        promises=snapshot.promised(),
    )
    talk = Talk(request, FORMATS[request.format].turns)
    return router.decide(request, decision_id="dry-run", talk=talk, limits=limits)


def told(decision: Decision, console: Console) -> None:
    """What it rests on and what would change it."""
    console.print()
    for line in lines(explain(decision)):
        style = "" if line.startswith(" ") else "bold"
        wrapped = textwrap.wrap(line, console.width, subsequent_indent="    ") or [""]
        console.print(escape("\n".join(wrapped)), highlight=False, style=style, soft_wrap=True)


def show(decision: Decision, console: Console, *, past: bool = False) -> None:
    """The decision as a table: what was chosen, then each candidate in the order of the account."""
    facts = decision.facts
    console.print(headline(decision, past=past), highlight=False, soft_wrap=True)
    tokens = facts.input_tokens
    lines = [
        f"task {facts.task}, about {tokens.mean:.0f} prompt tokens ({tokens.low:.0f}-"
        f"{tokens.high:.0f}) and up to {facts.output_tokens} of answer",
        f"posture {decision.posture}, stage {decision.stage}, baseline {decision.baseline or '-'}",
    ]
    if facts.labels:
        lines.append(f"labels {', '.join(sorted(facts.labels))}")
    if facts.rules:
        lines.append(f"rules {', '.join(facts.rules)}")
    for line in lines:
        console.print(escape(line), highlight=False, style="dim", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("candidate and reasons", overflow="fold", ratio=1)
    for name in ("place", "verdict"):
        table.add_column(name, no_wrap=True)
    for name in ("cost $", "quality", "1st token"):
        table.add_column(name, justify="right", no_wrap=True)
    for considered in decision.considered:
        table.add_row(*_cells(considered), style=_STYLES[considered.verdict])
    console.print()
    console.print(table)


def headline(decision: Decision, *, past: bool = False) -> str:
    """One sentence."""
    if decision.chosen is None:
        return f"[red]{escape(refusal(decision).message)}[/red]"
    serves = "was chosen for" if past else "would serve"
    said = f"[bold]{escape(decision.chosen)}[/bold] {serves} {escape(repr(decision.requested))}"
    plan = decision.cascade
    if plan is not None:
        said += f", and {escape(plan.cloud)} where its answer does not hold"
    if decision.fallbacks:
        said += f", then {escape(', '.join(decision.fallbacks))}"
    if decision.would_choose not in (None, decision.chosen):
        said += f'; with stage = "route" it would be {escape(decision.would_choose or "")}'
    return said


def _cells(considered: Considered) -> list[str]:
    cost, quality, ttft = considered.cost_usd, considered.quality, considered.ttft_s
    reasons = [f"  {reason}" for reason in considered.reasons]
    return [
        escape("\n".join([considered.id, *reasons])),
        considered.place,
        considered.verdict,
        "?" if cost is None else f"{cost:.6f}".rstrip("0").rstrip("."),
        "?" if quality is None else _interval(quality),
        "" if ttft is None else f"{ttft.mean:.1f} s",
    ]


def _interval(estimate: Estimate) -> str:
    if estimate.low == estimate.high:
        return f"{estimate.mean:.2f}"
    return f"{estimate.mean:.2f} ({estimate.low:.2f}-{estimate.high:.2f})"
