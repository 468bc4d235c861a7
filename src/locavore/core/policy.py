"""Rules that only narrow, one dial, one stage."""

from decimal import Decimal
from typing import Literal

import msgspec

from locavore.core.backend import Place
from locavore.core.errors import RequestError

Posture = Literal["local_only", "local_first", "balanced", "quality_first"]
Stage = Literal["observe", "route"]

QUALITY_FLOOR: dict[str, float] = {
    "local_only": 0.0,
    "local_first": 0.80,
    "balanced": 0.90,
    "quality_first": 0.97,
}
"""Share of the baseline's score on the task's benchmark that a candidate must reach."""


class When(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All named conditions must hold; an empty condition matches every call."""

    label: str | None = None
    task: str | None = None
    model: str | None = None
    """The `model` the client named."""
    key: str | None = None


class Require(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits. Several matching rules are all applied: the narrowest wins in each respect."""

    farthest: Place | None = None
    jurisdictions: frozenset[str] | None = None
    backends: frozenset[str] | None = None
    capabilities: frozenset[str] = frozenset()
    max_cost_usd: Decimal | None = None
    max_ttft_s: float | None = None
    min_quality: float | None = None
    known_price: bool = False


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    when: When = When()
    require: Require = Require()
    set_labels: frozenset[str] = frozenset()


class Routing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the objective weighs what a choice really costs, and how promises are used."""

    cascade: bool = True
    """Look at a local answer before it is served, where a promise covers that."""
    hold_s: float = 30.0
    """Longest wait for a local answer and the look at it, when the client waits for a whole one."""
    stream_hold_s: float = 0.0
    """The same for a streaming client; 0: streams are never held back."""
    least_stay: float = 0.1
    """A cascade is not tried when its answer is less likely than this to stay local."""
    switch: Literal["saving", "quality"] = "saving"
    """When a conversation changes a model that still suffices: when that saves more than it loses,
    or only when it does not suffice any more."""
    cache_s: float = 300.0
    """For so long a provider is taken to keep a conversation's prompt in its cache."""
    failure_rate: float = 0.0
    """Share of tries that fail, of a backend that has not failed lately."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    posture: Posture = "local_first"
    stage: Stage = "observe"
    baseline: str | None = None
    rules: tuple[Rule, ...] = ()
    labels: frozenset[str] = frozenset()
    """Every label that exists; any other is a 400."""
    aliases: dict[str, str] = {}
    default_output_tokens: int = 1024
    """Output budget when the request names none."""
    limits: Require = Require()
    """Limits on every call."""
    max_fallbacks: int = 3
    fallbacks: dict[str, tuple[str, ...]] = {}
    """backend id -> ids tried after it when a client names it; without, a named id has none."""
    patience_s: float = 60.0
    """Virtual names prefer a backend whose forecast time to first token is within this."""
    explore_share: float = 0.02
    """Of the `auto` calls under a promise: how many the other model answers too, unseen."""
    routing: Routing = Routing()
    version: str = ""
    """Hash of the policy's content; goes into every decision."""


def check_labels(labels: frozenset[str], known: frozenset[str]) -> None:
    """Raises RequestError (400) for a label nobody declared.

    Serving as if an unknown label were not there could send data where it must not go.
    """
    unknown = labels - known
    if unknown:
        names = ", ".join(sorted(known)) if known else "none is configured"
        raise RequestError(
            f"unknown label {', '.join(map(repr, sorted(unknown)))}; known labels: {names}",
            code="unknown_label",
            param="metadata.labels",
        )
