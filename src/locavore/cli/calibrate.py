"""`locavore calibrate`: from the user's own prompts to a promise of quality."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import httpx2
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from locavore.cli.options import home_option, json_option
from locavore.core.errors import ConfigError
from locavore.evidence.calibration import Asked, Item, Outcome, outcome, read_items
from locavore.routing.estimators.promised import FOLDER, file_of, quality_of, save
from locavore.routing.estimators.trunk import load
from locavore.routing.promise import Promise, Target

Answers = dict[tuple[str, str, int], Asked]
_ESTIMATED = 50
"""Prompts whose cost is asked of the gateway; the rest is taken to be like them."""


@click.command(
    epilog="""\b
Each line of PROMPTS is a JSON object: "prompt" (or "messages"), and how an answer is judged:
  {"prompt": "Capital of Chile?", "expect": {"exact": "Santiago"}}
  {"prompt": "17 * 23?", "expect": {"number": 391}}
  {"prompt": "…", "expect": {"json": {"city": "Bonn"}}}     or "regex", or "python" (a test)
  {"prompt": "…", "verdicts": {"local": 0, "cloud": 1}}     somebody has judged already
\b
Examples:
  locavore calibrate prompts.jsonl --local vllm/qwen3-8b --cloud openai/gpt-5 --target 0.98
  locavore calibrate prompts.jsonl --local vllm/qwen3-8b --cloud openai/gpt-5 --yes --json
Run it again after an interruption: answers that are there are not asked again.
Exit code 0: something may stay local; 1: nothing may; 2: wrong use.
"""
)
@click.argument("prompts", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--local", required=True, help="Backend id of the local model.")
@click.option("--cloud", required=True, help="Backend id of the cloud model.")
@click.option("--target", type=float, default=0.98, show_default=True, help="Share of its quality.")
@click.option(
    "--confidence", type=float, default=0.95, show_default=True, help="Of the promise, 0 to 1."
)
@click.option(
    "--samples",
    type=click.IntRange(0, 8),
    default=2,
    show_default=True,
    help="Further local answers; their agreement is a signal.",
)
@click.option("--proven", is_flag=True, help="Rest on these labels alone, not on shipped evidence.")
@click.option(
    "--noise",
    type=float,
    default=0.0,
    show_default=True,
    help="Share of verdicts that may be wrong.",
)
@click.option("--run-code", is_flag=True, help='Run answers\' code for "python" comparators.')
@click.option(
    "--url", default="http://127.0.0.1:4000", show_default=True, help="The running gateway."
)
@click.option("--key", envvar="LOCAVORE_API_KEY", help="Client key [LOCAVORE_API_KEY].")
@click.option(
    "--at-once", type=click.IntRange(1, 64), default=4, show_default=True, help="Calls in flight."
)
@click.option("--yes", is_flag=True, help="Spend without asking.")
@json_option
@home_option
def command(
    prompts: Path,
    local: str,
    cloud: str,
    target: float,
    confidence: float,
    samples: int,
    proven: bool,
    noise: float,
    run_code: bool,
    url: str,
    key: str | None,
    at_once: int,
    yes: bool,
    as_json: bool,
    home: Path,
) -> None:
    """Ask both models your own PROMPTS, judge the answers, and set the promise."""
    console = Console(stderr=True)
    try:
        wanted = Target(quality=target, confidence=confidence)
        items = read_items(prompts.read_text("utf-8"), str(prompts))
    except (ValueError, ConfigError) as error:
        raise click.UsageError(str(error)) from None
    log = file_of(home / "calibrations", local, cloud).with_suffix(".jsonl")
    done = _progress(log)
    jobs = _jobs(items, done, local, cloud, samples)
    client = httpx2.Client(
        base_url=url,
        headers={"authorization": f"Bearer {key}"} if key else {},
        timeout=httpx2.Timeout(600.0, connect=5.0),
    )
    with client:
        if jobs:
            _consent(client, jobs, console, yes=yes)
            _ask_all(client, jobs, done, log, at_once, console)
            console.print(_spent(jobs, done), highlight=False)
        fingerprint = _fingerprint(client, local)
    try:
        found = outcome(
            items,
            done,
            local=local,
            cloud=cloud,
            target=wanted,
            trunk=load(),
            samples=samples,
            run_code=run_code,
            proven=proven,
            noise=noise,
        )
    except (ValueError, ConfigError) as error:
        raise click.UsageError(str(error)) from None
    path = None
    if found.entry is not None:
        entry = msgspec.structs.replace(found.entry, fingerprint=fingerprint)
        path = save(home / FOLDER, entry)
    if as_json:
        click.echo(msgspec.json.encode(_facts(found, path)))
    else:
        _show(found, path, Console())
    sys.exit(0 if found.entry is not None and _best(found).share > 0 else 1)


class Job(msgspec.Struct, frozen=True):
    item: Item
    model: str
    sample: int


def _jobs(items: list[Item], done: Answers, local: str, cloud: str, samples: int) -> list[Job]:
    """What is still to be asked. Items with verdicts need no answers."""
    wanted = [(local, 0), (cloud, 0), *((local, k) for k in range(1, samples + 1))]
    jobs = {
        (item.key, model, k): Job(item, model, k)
        for item in items
        if item.verdicts is None
        for model, k in wanted
    }
    return [job for where, job in jobs.items() if where not in done or done[where].failed]


def _progress(log: Path) -> Answers:
    """Answers of earlier runs; a line cut by an interruption is asked again."""
    found: Answers = {}
    if log.exists():
        for line in log.read_bytes().splitlines():
            try:
                asked = msgspec.json.decode(line, type=Asked)
            except msgspec.DecodeError:
                continue
            found[(asked.key, asked.model, asked.sample)] = asked
    return found


def _consent(client: httpx2.Client, jobs: list[Job], console: Console, *, yes: bool) -> None:
    cost = _forecast_usd(client, jobs)
    price = (
        "an unknown amount: a model has no price"
        if cost is None
        else f"about ${cost:.4f} if every answer is as long as `default_output_tokens`"
    )
    console.print(f"{len(jobs)} calls, {price}.", highlight=False)
    if not yes:
        click.confirm("Ask them now?", abort=True, err=True)


def _forecast_usd(client: httpx2.Client, jobs: list[Job]) -> Decimal | None:
    """By the gateway's own forecast (`POST /v1/route`), which calls nothing."""
    total, some = Decimal(0), jobs[:: max(1, len(jobs) // _ESTIMATED)]
    for job in some:
        answer = _reached(client, "/v1/route", job.item.body(job.model))
        if answer.status_code != 200:
            raise click.ClickException(_reason(answer))
        considered = answer.json().get("considered") or [{}]
        cost = considered[0].get("cost_usd")
        if cost is None:
            return None
        total += Decimal(str(cost))
    return total / len(some) * len(jobs)


def _reason(answer: httpx2.Response) -> str:
    """What the gateway said was wrong."""
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the gateway answered {answer.status_code}: {answer.text[:300]}"


def _fingerprint(client: httpx2.Client, local: str) -> str:
    """Of the local weights and engine, which void the promise when they change; empty when no
    gateway runs that could tell (all verdicts were given)."""
    try:
        answer = client.get(f"/v1/models/{local}")
    except httpx2.TransportError:
        return ""
    return str(answer.json().get("fingerprint", "")) if answer.is_success else ""


def _reached(client: httpx2.Client, path: str, body: bytes) -> httpx2.Response:
    try:
        return client.post(path, content=body, headers={"content-type": "application/json"})
    except httpx2.TransportError as error:
        raise click.ClickException(
            f"no gateway at {client.base_url}: {error}; start it with `locavore serve`"
        ) from None


def _ask_all(
    client: httpx2.Client, jobs: list[Job], done: Answers, log: Path, at_once: int, console: Console
) -> None:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with (
        os.fdopen(descriptor, "ab") as out,
        ThreadPoolExecutor(at_once) as pool,
        Progress(console=console) as bar,
    ):
        task = bar.add_task("asking", total=len(jobs))
        waiting = [pool.submit(_ask, client, job) for job in jobs]
        try:
            for answered in as_completed(waiting):
                asked = answered.result()
                out.write(msgspec.json.encode(asked) + b"\n")
                out.flush()
                done[(asked.key, asked.model, asked.sample)] = asked
                bar.advance(task)
        except BaseException as stopped:  # Ctrl-C must stop the spending, not only the telling
            pool.shutdown(cancel_futures=True)
            if isinstance(stopped, KeyboardInterrupt):
                kept = sum((j.item.key, j.model, j.sample) in done for j in jobs)
                console.print(
                    f"stopped: {kept} of {len(jobs)} answers are kept; the same command goes on",
                    highlight=False,
                )
            raise


def _spent(jobs: list[Job], done: Answers) -> str:
    """What this run has cost, as the gateway told it."""
    asked = [done[(job.item.key, job.model, job.sample)] for job in jobs]
    known = [Decimal(a.cost_usd) for a in asked if a.cost_usd is not None]
    unknown = sum(a.cost_usd is None and not a.failed for a in asked)
    failed = sum(bool(a.failed) for a in asked)
    said = f"asked {len(asked)} calls for ${sum(known, Decimal(0)):.4f}"
    said += f", {unknown} at an unknown cost" if unknown else ""
    return said + (f", {failed} failed; run it again to ask those anew" if failed else "")


def _ask(client: httpx2.Client, job: Job) -> Asked:
    """One call; a failure is an answer that failed, and is asked again by the next run."""
    more: dict[str, object] = {"temperature": 0.8} if job.sample else {}
    where = {"key": job.item.key, "model": job.model, "sample": job.sample}
    try:
        answer = client.post(
            "/v1/chat/completions",
            content=job.item.body(job.model, **more),
            headers={"content-type": "application/json", "x-locavore-no-fallback": "true"},
        )
        if answer.status_code != 200:
            return Asked(**where, failed=f"{answer.status_code}: {answer.text[:300]}")  # type: ignore[arg-type]
        return _read(answer, where)
    except (httpx2.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
        return Asked(**where, failed=f"{type(error).__name__}: {error}")  # type: ignore[arg-type]


def _read(answer: httpx2.Response, where: dict[str, Any]) -> Asked:
    body = answer.json()
    choice = body["choices"][0]
    return Asked(
        **where,
        text=choice["message"].get("content") or "",
        output_tokens=int((body.get("usage") or {}).get("completion_tokens") or 0),
        mean_logprob=_mean_logprob(choice.get("logprobs")),
        cost_usd=answer.headers.get("x-locavore-cost-usd"),
    )


def _mean_logprob(logprobs: dict[str, Any] | None) -> float | None:
    tokens = (logprobs or {}).get("content") or []
    values = [t["logprob"] for t in tokens if isinstance(t.get("logprob"), int | float)]
    return sum(values) / len(values) if values else None


# What is told ------------------------------------------------------------------------------------


def _best(found: Outcome) -> Promise:
    """Of the two stages, the one that decides."""
    entry = found.entry
    assert entry is not None  # noqa: S101 - callers have looked
    return entry.post if entry.looks and entry.post is not None else entry.pre


def _facts(found: Outcome, path: Path | None) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(found)
    facts.pop("entry")
    if found.entry is not None:
        stages = {"pre": found.entry.pre, "post": found.entry.post}
        facts["promises"] = {n: _told(p) for n, p in stages.items() if p is not None}
    facts["file"] = str(path) if path else None
    return facts


def _told(promise: Promise) -> dict[str, Any]:
    return {
        "kept_local": promise.share,
        "quality": msgspec.to_builtins(quality_of(promise)),
        "target": promise.target.quality,
        "confidence": promise.target.confidence,
        "basis": promise.basis,
        "labels": promise.labels,
        "missing": promise.missing,
    }


def _show(found: Outcome, path: Path | None, console: Console) -> None:
    def say(text: str) -> None:
        console.print(escape(text), highlight=False, soft_wrap=True)

    say(f"{found.judged} judged, {found.unjudged} not judged, {found.failed} without both answers")
    if found.agreement is not None:
        say(f"the models agree on {found.agreement:.1%} of the answers; that is not quality")
    if found.entry is None:
        say('nothing is promised: give "expect" or "verdicts" with the prompts')
        return
    say(f"quality: local {found.local_quality:.3f}, cloud {found.cloud_quality:.3f}")
    for name, promise in (
        ("before answering", found.entry.pre),
        ("after looking at the answer", found.entry.post),
    ):
        if promise is not None:
            used = "" if promise is _best(found) else " (not used)"
            say(f"{name}{used}: {_sentence(promise)}")
    for line in _outlook(found):
        say(line)
    say(f"written to {path}; a running gateway takes it up within seconds")


FEW = 300
"""Fewer labels than this often keep far less local than there is to keep."""


def _outlook(found: Outcome) -> list[str]:
    """What more labels might bring."""
    best, said = _best(found), []
    gains = [more for more in found.more_labels if more.high > best.share + 0.02]
    for more in gains:
        span = f"{more.low:.0%}" if more.low == more.high else f"{more.low:.0%} to {more.high:.0%}"
        said.append(f"with {more.labels} labels drawn like these, {span} might stay local")
    if found.judged < FEW and not gains:
        said.append(
            f"{found.judged} labels are few: what they say of either model may be chance; "
            f"{FEW} and more make a promise surer and let it keep more"
        )
    return said


def _sentence(promise: Promise) -> str:
    if not promise.share:
        return f"nothing may stay local; missing: {promise.missing}"
    quality = quality_of(promise)
    return (
        f"{promise.share:.0%} may stay local; expected quality {quality.mean:.3f} of the cloud "
        f"model's, at least {quality.low:.3f} with {promise.target.confidence:.0%} confidence, "
        f"from {promise.labels} labels ({promise.basis})"
    )
