"""The command line: one module per command, imported only when that command runs."""

import difflib
import importlib
import importlib.util

import click

from locavore import __version__

COMMANDS: dict[str, str] = {
    "serve": "start the gateway",
    "doctor": "say what is wrong, where, and what to do",
    "route": "show the decision for a prompt, with every candidate, calling nothing",
    "explain": "what a past decision rests on, and what would have changed it",
    "report": "calls, tokens, cost, and what the baseline would have cost",
    "usage": "tokens and cost by key, tenant or model; CSV in FOCUS columns",
    "models": "what this gateway can reach",
    "pull": "fetch, verify and pin model weights",
    "ledger": "check, query and correct the books",
    "keys": "create, list, rotate and revoke keys",
    "calibrate": "set the quality promise from your own prompts",
    "verdicts": "judge explored calls, so that a promise is measured while it is kept",
    "replay": "what another policy would have done with recorded calls",
    "fit": "does a model fit a machine, and with how much context",
    "speed": "how fast a model runs on a machine, with an interval",
    "plan": "which model, quantization, engine and machine carry a workload, at what cost",
    "volume": "estimate token volumes from how a product is used",
    "audit": "recompute published claims",
    "catalog": "models, hardware, prices and licenses with their sources",
}
"""Command name -> first line of its help; the module `locavore.cli.<name>` holds `command`."""


class LazyGroup(click.Group):
    """Lists commands from the table and imports a command's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [name for name in COMMANDS if _exists(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS or not _exists(cmd_name):
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest name for one that is not there."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, COMMANDS[name]) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _exists(name: str) -> bool:
    return importlib.util.find_spec(f"{__name__}.{name}") is not None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="locavore %(version)s")
def main() -> None:
    """Serve each AI call from a model you host when that is good enough; show why, and the cost.

    \b
    Examples:
      locavore serve                      start the gateway on 127.0.0.1:4000
      locavore route "translate: hello"   which model would answer, and why
      locavore doctor                     what is wrong and what to do
    """
