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
    """`first`, `retry` or `fallback`; later also judges, shadows and classifiers."""
    started_s: float
    """Unix time."""
    ttft_s: float | None = None
    """Until the first content byte."""
    duration_s: float = 0.0
    status: int | None = None
    """HTTP status of the upstream; None: none came."""
    fault: str | None = None
    """`core.errors.Fault`; None: served."""
    message: str | None = None
    """The upstream's own words, redacted and cut."""
    usage: Usage | None = None
    cost: Cost | None = None
    weights_sha256: str | None = None
    engine_build: str | None = None


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
    flags: tuple[str, ...] = ()
    """e.g. `usage_estimated`, `json_repaired`, `test_model`."""
    baseline_cost: Cost | None = None
    """What the served tokens would have cost on the baseline."""
    extra: dict[str, Any] = {}
