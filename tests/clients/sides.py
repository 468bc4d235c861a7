"""The differential rule: one script, once straight to the upstream and once through the gateway.

What the client made of the answer must be equal, and what the upstream saw must differ only in what
the gateway is for (the model's configured name, usage on streams).
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from locavore.testing import Reply, ScriptedUpstream
from locavore.testing.gateway import RunningGateway
from locavore.testing.upstream import Received, Responder

T = TypeVar("T")

CAPABILITIES = [
    *("chat", "completions", "responses", "embeddings", "tools", "tool_choice", "json_object"),
    *("json_schema", "logprobs", "vision", "documents", "audio", "reasoning", "choices", "seed"),
]

CONFIG = """
[retry]
attempts = 1
[[backend]]
id = "home/m"
url = "{url}"
capabilities = {capabilities}
[[backend]]
id = "plain/m"
url = "{url}"
capabilities = ["chat", "tools", "tool_choice", "json_schema", "reasoning", "vision"]
[[backend]]
id = "claude/m"
url = "{origin}"
dialect = "anthropic"
capabilities = {capabilities}
[[backend]]
id = "counting/m"
url = "{origin}"
dialect = "anthropic"
capabilities = ["count_tokens"]
[[backend]]
id = "vectors/m"
url = "{url}"
capabilities = ["embeddings"]
"""


@dataclass(frozen=True)
class Outcome:
    """What each side saw."""

    client: Any
    direct: list[Received]
    through: list[Received]


@dataclass(frozen=True)
class Side:
    """Where a client is pointed."""

    origin: str
    model: str
    closing: ExitStack
    """Ends what the script opened."""

    @property
    def url(self) -> str:
        return f"{self.origin}/v1"


@dataclass(frozen=True)
class Sides:
    """A scripted upstream and a gateway before it.

    Backends: `home/m` speaks OpenAI's formats, `plain/m` only chat, `claude/m` Anthropic's.
    """

    upstream: ScriptedUpstream
    gateway: RunningGateway

    def both(
        self, script: Callable[[Side], T], *replies: Reply | Responder, model: str = "home/m"
    ) -> Outcome:
        """Run `script` on both sides and assert that it returns equal values."""
        direct, seen_direct = self._run(script, self.upstream.origin, "m", replies)
        through, seen_through = self._run(script, self.gateway.origin, model, replies)
        assert through == direct
        return Outcome(through, seen_direct, seen_through)

    def through(
        self, script: Callable[[Side], T], *replies: Reply | Responder, model: str
    ) -> Outcome:
        """Run `script` through the gateway only."""
        result, seen = self._run(script, self.gateway.origin, model, replies)
        return Outcome(result, [], seen)

    def _run(
        self,
        script: Callable[[Side], T],
        origin: str,
        model: str,
        replies: tuple[Reply | Responder, ...],
    ) -> tuple[T, list[Received]]:
        self.upstream.clear()
        self.upstream.script(*replies)
        with ExitStack() as closing:
            return script(Side(origin, model, closing)), list(self.upstream.requests)


def sent(received: Received) -> dict[str, Any]:
    """The body without what the gateway rightly changes."""
    body: dict[str, Any] = received.json
    return {k: v for k, v in body.items() if k not in ("model", "stream_options")}
