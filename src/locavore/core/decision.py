"""What was chosen, and why each other candidate was not."""

from decimal import Decimal

import msgspec

from locavore.core.backend import Backend
from locavore.core.estimate import Estimate


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What was measured about a request, locally and without any model's help."""

    input_tokens: Estimate
    """Prompt tokens; `high` is the safe side for context and budget checks."""
    output_tokens: int
    """Output budget: what the request allows, or the default the limits use."""
    task: str = "chat"
    language: str | None = None
    labels: frozenset[str] = frozenset()
    """Labels of the request, of rules and of its session together."""
    rules: tuple[str, ...] = ()
    """Names of the rules that matched."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """Backend × strategy."""

    backend: Backend
    strategy: str = "direct"

    @property
    def id(self) -> str:
        if self.strategy == "direct":
            return self.backend.id
        return f"{self.strategy}:{self.backend.id}"


class Considered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One candidate's line in the account."""

    id: str
    place: str
    verdict: str
    """`chosen`, `fallback`, `allowed` (eligible, not needed) or `excluded`."""
    reasons: tuple[str, ...] = ()
    """Codes, `code` or `code: detail`; the codes are `locavore.routing.reasons`."""
    cost_usd: Decimal | None = None
    """Forecast for this request; None: unknown."""
    quality: Estimate | None = None
    """Relative to the baseline on the task class."""
    ttft_s: Estimate | None = None


class Explored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A call that the other model of a promised pair answers too, in the background.

    Whichever of the two served the client, the other one is asked (`serving.shadow`).
    """

    local: str
    """Backend id."""
    cloud: str
    promise: str
    """Which promise is watched: `routing.estimators.promised.Entry.id`."""


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A replayable choice: a pure function of request, facts, candidates and policy."""

    id: str
    requested: str
    """The `model` the client named."""
    resolved: str
    """How the name was read: `backend`, `alias`, `auto`, `local`, `cloud` or `bare`."""
    chosen: str | None
    """Candidate id; None: nothing is allowed."""
    fallbacks: tuple[str, ...] = ()
    considered: tuple[Considered, ...] = ()
    facts: Facts
    stage: str
    posture: str
    baseline: str | None = None
    would_choose: str | None = None
    """Under `stage = "observe"`: what routing would have chosen."""
    baseline_cost_usd: Decimal | None = None
    """What the forecast says the baseline would have cost."""
    policy_version: str = ""
    propensity: float = 1.0
    """Probability of what was decided: the explored share when `explored`, one less it when the
    draw said no, 1 where nothing was drawn."""
    explored: Explored | None = None
    certificates: tuple[str, ...] = ()
