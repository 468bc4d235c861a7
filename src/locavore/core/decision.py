"""What was chosen, and why each other candidate was not."""

from decimal import Decimal

import msgspec

from locavore.core.backend import Backend
from locavore.core.estimate import Estimate
from locavore.core.policy import Require


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
    """`direct`, or `cascade`: answer here, look at the answer, escalate when it does not hold."""
    cloud: Backend | None = None
    """Where a cascade escalates to."""

    @property
    def id(self) -> str:
        if self.strategy == "direct":
            return self.backend.id
        return f"{self.strategy}:{self.backend.id}"


class Promised(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a promise says of one call on one pair of models."""

    cloud: str
    """Backend id that quality is measured against."""
    stage: str
    """`pre`: by the request alone; `post`: once the local answer has been looked at."""
    keeps: bool | None
    """Whether the call may stay local; None: only the answer can tell."""
    gain: Estimate | None = None
    """Expected score of the local answer minus the cloud's, in [-1, 1], before any answer."""
    threshold: float | None = None
    """Gains from here on stay local; None: none does."""
    stays: Estimate | None = None
    """P(the answer stays local) of a cascade, before it is tried."""
    basis: str
    """`labels`: with confidence, whatever the workload; `evidence`: with confidence over workloads
    like those that were shipped; `none`: nothing is promised."""
    labels: int
    """Labelled calls it rests on."""
    samples: int = 0
    """Further local answers that a look may need."""
    target: float
    """Promised share of the cloud model's quality."""
    confidence: float
    missing: str = ""
    """What would be needed to promise more."""


class Charges(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What an expected cost is made of, in US dollars: the sum is `Considered.cost_usd`."""

    answer_usd: Decimal
    """One answer by this backend, nothing of the prompt cached."""
    retries_usd: Decimal = Decimal(0)
    escalation_usd: Decimal = Decimal(0)
    """A cascade's: P(escalation) × the cloud's expected cost."""
    cached_usd: Decimal = Decimal(0)
    """Negative: discount for the prompt that this backend's cache still holds."""


def backend_of(candidate_id: str) -> str:
    """The backend that a candidate asks first. Backend ids may hold a colon, so only what names a
    strategy is taken off."""
    return candidate_id.removeprefix("cascade:")


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
    """Until the first byte of the answer that is served; a cascade's includes the attempt."""
    charges: Charges | None = None
    """None: the cost is one plain answer."""
    promise: Promised | None = None


class CascadePlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How `chosen = "cascade:<local>"` is served."""

    local: str
    """Backend id that answers first."""
    cloud: str
    """Backend id that answers when the local answer does not hold."""
    hold_s: float
    """Longest the client may be kept waiting for the local answer and the look at it."""
    samples: int = 0
    """Further local answers asked for when the first one alone does not settle it."""


class Given(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """State beyond request and policy that a decision used; with it a replay decides the same."""

    limits: Require | None = None
    """The caller's own limits, and what was left of a budget."""
    fallbacks: bool = True
    unavailable: dict[str, str] = {}
    """backend id -> why it could not be reached."""
    failure_rates: dict[str, float] = {}
    """backend id -> share of tries that failed lately."""
    late_shares: dict[str, float] = {}
    """backend id -> share of answers that lately came too late to be looked at."""
    home: str | None = None
    """Backend id that served this conversation before."""
    cached_share: float = 0.0
    """Share of the prompt that its cache is taken to hold."""
    unjudged: str = ""
    """Why promises could not be judged."""


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
    """Candidate id: a backend's, or `cascade:` and a backend's; None: nothing is allowed."""
    fallbacks: tuple[str, ...] = ()
    """Backend ids tried in turn when what was chosen fails; of a cascade, after both its models."""
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
    cascade: CascadePlan | None = None
    """Set exactly when `chosen` is a cascade."""
    given: Given | None = None
    """None: nothing but request and policy was used."""
