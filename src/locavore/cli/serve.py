"""`locavore serve`: start the gateway and say what to paste next."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from locavore.config import Config, describe
from locavore.config import load as load_config
from locavore.serving.snapshot import Snapshot


@click.command(
    epilog="""\b
Examples:
  locavore serve                                 loopback, port 4000, no key needed
  locavore serve --port 8080 --no-env            ignore API keys in the environment
  LOCAVORE_KEY=secret locavore serve --host 0.0.0.0
  locavore serve --config team.toml --check      say whether the file is right, start nothing
"""
)
@click.option("--host", help="Address to listen on [LOCAVORE_HOST, 127.0.0.1].")
@click.option("--port", type=int, help="Port; 0 takes any free one [LOCAVORE_PORT, 4000].")
@click.option("--home", help="Folder for all state [LOCAVORE_HOME, ~/.locavore].")
@click.option("--config", help="Configuration file [LOCAVORE_CONFIG, <home>/config.toml].")
@click.option("--key", help="Key that clients must send [LOCAVORE_KEY]; prefer the variable.")
@click.option("--workers", type=int, help="Gateway processes [one per core].")
@click.option("--no-env", is_flag=True, help="Ignore API keys in the environment.")
@click.option("--check", is_flag=True, help="Check the configuration and exit.")
def command(check: bool, no_env: bool, **flags: Any) -> None:
    """Start the gateway. Nothing is contacted but loopback and what is configured."""
    given = {name: value for name, value in flags.items() if value is not None}
    if no_env:
        given["env"] = False
    path = Path(flags["config"]) if flags["config"] else None
    config = load_config(path, dict(os.environ), given)
    if check:
        for line in describe(config):
            click.echo(line)
        click.echo("configuration is valid")
        return
    _run(config)


def _run(config: Config) -> None:
    import uvloop

    from locavore.compose.supervisor import Supervisor

    async def gateway() -> None:
        supervisor = Supervisor(config, env=dict(os.environ), tell=_tell)
        try:
            snapshot = await supervisor.start()
        except BaseException:
            await supervisor.abandon()
            raise
        click.echo(banner(config, snapshot, supervisor.port, supervisor.inventory.found_lines()))
        sys.stdout.flush()
        await supervisor.run()

    try:
        uvloop.run(gateway())
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        raise SystemExit(130) from None


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal was closed: that must not stop a signal
        click.echo(line, err=True)


def banner(config: Config, snapshot: Snapshot, port: int, found: list[str]) -> str:
    """What was found, a call to paste, and how to point usual clients here."""
    host = config.server.host if config.server.host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 - compared, not bound
    url = f"http://{host}:{port}"
    variable = "$LOCAVORE_KEY" if config.server.key else "$KEY"
    key = variable if snapshot.grants else "none"
    auth = f' -H "authorization: Bearer {variable}"' if snapshot.grants else ""
    # Without a baseline, clouds are reached by name only, and `auto` by nobody.
    by_name = not snapshot.backends and snapshot.policy.baseline is None and snapshot.wildcards
    model = f"{snapshot.wildcards[0].prefix}/MODEL" if by_name else "auto"
    try_it = "Try it, with a client key as KEY:" if key == "$KEY" else "Try it:"
    lines = [
        "",
        f"Locavore serves on {url}",
        "",
        *(f"  {line}" for line in found),
        "",
        try_it,
        f"  curl {url}/v1/chat/completions -H 'content-type: application/json'{auth} \\",
        f'    -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}\'',
        "",
        "Point your tools at it:",
        f"  OpenAI SDKs   export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY={key}",
        f"  Claude Code   ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN={key} \\",
        f"                  ANTHROPIC_MODEL={model} ANTHROPIC_DEFAULT_HAIKU_MODEL={model} claude",
        f"  Codex         codex -c model_provider=locavore -c model={model} \\",
        '                  -c \'model_providers.locavore={name="Locavore", '
        f'base_url="{url}/v1", wire_api="responses"}}\'',
        f"  aider         aider --openai-api-base {url}/v1 --openai-api-key {key} "
        f"--model openai/{model}",
        "",
        f"Next: {_next_step(snapshot)}",
        "",
    ]
    return "\n".join(lines)


def _next_step(snapshot: Snapshot) -> str:
    backends = snapshot.backends
    if not backends and snapshot.wildcards:
        return (
            "models are served by name (provider/model); which ones is not known here. Name one as "
            "`baseline` in the configuration, and `auto` goes to it."
        )
    if all(b.is_test for b in backends):
        return (
            "only the built-in test model is here. `locavore pull qwen3-0.6b` fetches a real one "
            "(639 MB), or set OPENAI_API_KEY or ANTHROPIC_API_KEY and start again."
        )
    if snapshot.policy.stage == "observe":
        return (
            "calls to `auto` go to the baseline and are priced; `locavore report` shows what they "
            'cost, and stage = "route" in the configuration lets the decision act.'
        )
    return '`locavore route "your prompt"` shows which model would answer, and why.'
