"""The half of a decision that holds for every call of a kind, so that it can be kept.

A kind is what the client named, what the answer needs, the format, the task and the rules that
apply; neither size nor time. Candidates are sorted into those excluded and those left, the latter
with their quality.
"""

from collections.abc import Sequence

import msgspec

from locavore.core.backend import Backend, Capability
from locavore.core.decision import Candidate, Considered, Promised
from locavore.core.estimate import Estimate
from locavore.core.policy import QUALITY_FLOOR, Policy, Require
from locavore.routing import limits as check
from locavore.routing.names import Resolved
from locavore.routing.quality import Quality

SUFFICES, BELOW_FLOOR, UNKNOWN = 0, 1, 2
"""Tiers of quality: a later one is taken only when no earlier one is left."""


LOOKED_AT = frozenset({"openai_chat", "openai_responses", "anthropic_messages"})
"""Formats whose answers a cascade can judge."""


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that no limit of the call's kind excludes."""

    id: str
    backend: Backend
    cloud: Backend | None = None
    """Where a cascade escalates to; None: direct."""
    place: str
    order: int
    """Position among the candidates."""
    tier: int
    quality: Estimate | None
    notes: tuple[str, ...]
    named: bool
    promise: Promised | None = None


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every call of one kind."""

    limits: Require
    excluded: tuple[Considered, ...]
    options: tuple[Option, ...]


def survey(
    candidates: Sequence[Candidate],
    *,
    resolved: Resolved,
    limits: Require,
    needs: frozenset[str],
    request_format: str,
    task: str,
    policy: Policy,
    quality: Quality,
) -> Survey:
    """Candidates sorted into those excluded by what the call is like and those left."""
    family = _family(candidates) if check.embeds(request_format) else None
    excluded, options = [], []
    for order, candidate in enumerate(candidates):
        backend = candidate.backend
        named = resolved.named and order == 0
        against, notes = check.excluded(
            backend, limits, needs=needs, request_format=request_format, named=named
        )
        if candidate.cloud is not None:
            against += _against_escalation(candidate.cloud, limits, needs, request_format)
        share = quality(backend, task)
        against += _against_choice(backend, family, alone=named or len(candidates) == 1)
        if against:
            excluded.append(_excluded(candidate, against, share))
            continue
        tier = _tier(share, policy)
        notes += _notes(backend, share, tier, order, resolved)
        options.append(
            Option(
                id=candidate.id,
                backend=backend,
                cloud=candidate.cloud,
                place=backend.place.label,
                order=order,
                tier=tier,
                quality=share,
                notes=tuple(notes),
                named=named,
            )
        )
    return Survey(limits=limits, excluded=tuple(excluded), options=tuple(options))


def family_of(backend: Backend) -> str:
    """Vectors of different families must never meet; undeclared, a backend is its own (C57)."""
    return backend.embedding_family or backend.id


def _family(candidates: Sequence[Candidate]) -> str | None:
    """The first embedder sets the family, whatever is available, so that it never changes."""
    able = (c.backend for c in candidates if c.backend.can(Capability.EMBEDDINGS))
    first = next(able, None)
    return None if first is None else family_of(first)


def _against_choice(backend: Backend, family: str | None, *, alone: bool) -> list[str]:
    against = []
    if family is not None and family_of(backend) != family:
        against.append(f"embedding_family: {family_of(backend)}, not {family}")
    if backend.is_test and not alone:
        against.append("test_model")
    return against


def _against_escalation(
    cloud: Backend, limits: Require, needs: frozenset[str], request_format: str
) -> list[str]:
    """Both models of a cascade may see the call, so both keep every limit."""
    against, _ = check.excluded(
        cloud, limits, needs=needs, request_format=request_format, named=False
    )
    if request_format not in LOOKED_AT:
        against.append(f"a {request_format} answer")
    return [f"escalation: {reason}" for reason in against]


def _excluded(candidate: Candidate, reasons: list[str], share: Estimate | None) -> Considered:
    return Considered(
        id=candidate.id,
        place=candidate.backend.place.label,
        verdict="excluded",
        reasons=tuple(reasons),
        quality=share,
    )


def _tier(share: Estimate | None, policy: Policy) -> int:
    if policy.posture == "local_only":
        return SUFFICES
    if share is None:
        return UNKNOWN
    return SUFFICES if share.low >= QUALITY_FLOOR[policy.posture] else BELOW_FLOOR


def _notes(
    backend: Backend, share: Estimate | None, tier: int, order: int, resolved: Resolved
) -> list[str]:
    notes = []
    if resolved.named:
        notes.append("configured_fallback" if order else "named")
    elif share is None:
        notes.append("quality_unknown")
    elif tier == BELOW_FLOOR:
        notes.append(f"below_floor: {share.low:.2f}")
    if backend.is_test:
        notes.append("test_model_only")
    return notes
