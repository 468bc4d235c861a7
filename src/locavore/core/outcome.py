"""What happened: attempts, and the record that the journal keeps of a call."""

from typing import Any

import msgspec

from locavore.core.decision import Decision
from locavore.core.money import Cost, Usage


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One try at one backend."""

    id: str
    backend: str
    provider: str
    model: str
    place: str
    kind: str = "first"
    """`first`, `retry` or `fallback`; of a cascade `sample` and `escalation` too."""
    started_s: float
    """Unix time."""
    ttft_s: float | None = None
    """Until the first content byte."""
    duration_s: float = 0.0
    status: int | None = None
    """HTTP status of the upstream; None: none came."""
    fault: str | None = None
    """`core.errors.Fault`, or `late`: given up because the client had waited long enough."""
    message: str | None = None
    """The upstream's own words, redacted and cut."""
    usage: Usage | None = None
    cost: Cost | None = None
    weights_sha256: str | None = None
    engine_build: str | None = None


class Cascaded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a cascade saw of the local answer and what it did: evidence, and no text."""

    local: str
    """Backend ids."""
    cloud: str
    escalated: bool
    reason: str
    """`kept`, `cloud_failed` (the local answer was served all the same), `doubtful`, `unjudged`
    (the look itself failed), or what was wrong with the local answer, e.g. `late`, `refused`,
    `not_json`; several are comma-separated."""
    margin: float | None = None
    """Expected gain of the local answer over the cloud's, less what the promise asks for: from 0
    on it stays. None: a fault left nothing to judge, or nothing could judge it."""
    agreement: float | None = None
    """Share of the samples that said the same."""
    samples: int = 0
    """Further local answers that came in time."""
    mean_logprob: float | None = None
    output_tokens: int = 0
    """Of the local answer."""
    no_answer: bool = False
    """The local answer had a fault."""
    agrees: bool | None = None
    """Whether the cloud then said the same, which is not quality; None: not escalated, or one of
    the two said nothing."""
    held_s: float = 0.0
    """How long the look kept the client waiting, the local answer included."""


class CallRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One finished call, as appended to the journal before its last byte leaves."""

    id: str
    """The decision id."""
    format: str
    stream: bool = False
    started_s: float
    duration_s: float
    outcome: str
    """`served`, `failed`, `refused` or `cancelled` (the client left)."""
    status: int
    """What the client was told."""
    decision: Decision
    attempts: tuple[Attempt, ...] = ()
    key_name: str | None = None
    tenant: str | None = None
    team: str | None = None
    parent_id: str | None = None
    """The call that caused this one: a judge's, a shadow's, a classifier's."""
    session: str | None = None
    user: str | None = None
    trace: str | None = None
    """The client's `traceparent`, if it sent one."""
    flags: tuple[str, ...] = ()
    """e.g. `usage_estimated`, `json_repaired`, `test_model`."""
    baseline_cost: Cost | None = None
    """What the served tokens would have cost on the baseline."""
    cascade: Cascaded | None = None
    extra: dict[str, Any] = {}
