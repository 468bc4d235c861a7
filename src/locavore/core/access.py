"""Who may do what: what a client key grants, and how much of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from locavore.core.backend import Backend, Place
from locavore.core.policy import Require, Rule, When

Scope = Literal["all", "tenant", "team", "key", "user"]
Unit = Literal["usd", "requests", "tokens", "concurrent"]
Period = Literal["minute", "hour", "day", "week", "month", "total"]


class Quota(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An amount that may be used up within a period: a budget in dollars or a rate limit."""

    scope: Scope
    name: str = "*"
    """Which tenant, team, key or user; `*`: each one has this much of its own."""
    unit: Unit
    limit: Decimal
    """US dollars, requests, tokens, or calls at a time (whose period is `total`)."""
    period: Period = "month"
    zone: str = "UTC"
    """IANA name: where days, weeks and months begin."""
    hard: bool = True
    """False: a call over it is served and flagged `over_budget`."""

    @property
    def id(self) -> str:
        """Stable over reloads: what makes it another quota is in it, its limit is not."""
        return f"{self.scope}:{self.name}:{self.unit}:{self.period}:{self.zone}"


class Grant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one client key allows. An empty list of models and an absent limit mean: anything."""

    name: str
    tenant: str = ""
    team: str = ""
    admin: bool = False
    """For the admin API only. Such a key serves no model calls, and a data key administers
    nothing."""
    models: tuple[str, ...] = ()
    """Backend ids or patterns with `*`."""
    farthest: Place | None = None
    labels: frozenset[str] = frozenset()
    """Set on each call made with the key."""
    expires_s: float | None = None
    """Unix time."""
    quotas: tuple[Quota, ...] = ()
    """Of this key, and of the keys it was minted with: what it spends, they spend."""

    def expired(self, now_s: float) -> bool:
        return self.expires_s is not None and now_s >= self.expires_s

    def allows(self, backend_id: str) -> bool:
        return not self.models or any(fnmatchcase(backend_id, model) for model in self.models)


def fingerprint(key: str) -> str:
    """What is kept and compared instead of a key: BLAKE2b, 128 bits, hex.

    Keys are random, so an unsalted hash cannot be searched, and looking a hash up in a table
    tells a caller nothing about how much of a guess was right (C102).
    """
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def rule_of(grant: Grant, backends: Iterable[Backend]) -> Rule | None:
    """The grant as a rule of the policy, so that deciding enforces and explains it.

    None: it narrows nothing.
    """
    allowed = None
    if grant.models:
        allowed = frozenset(b.id for b in backends if grant.allows(b.id))
    if allowed is None and grant.farthest is None and not grant.labels:
        return None
    return Rule(
        name=f"key {grant.name}",
        when=When(key=grant.name),
        require=Require(backends=allowed, farthest=grant.farthest),
        set_labels=grant.labels,
    )


def widened(child: Grant, parent: Grant) -> list[str]:
    """In which respects `child` allows more than `parent`; empty: a key may mint it (C103).

    Quotas are not compared: a minted key inherits its parent's.
    """
    found = []
    if child.admin and not parent.admin:
        found.append("admin")
    if parent.tenant and child.tenant != parent.tenant:
        found.append(f"tenant {child.tenant!r} is not {parent.tenant!r}")
    if parent.team and child.team != parent.team:
        found.append(f"team {child.team!r} is not {parent.team!r}")
    if parent.models and not (child.models and all(_covered(m, parent) for m in child.models)):
        found.append(f"models {list(child.models) or 'any'} are not within {list(parent.models)}")
    if parent.farthest is not None and (child.farthest is None or child.farthest > parent.farthest):
        found.append(f"places beyond {parent.farthest.label}")
    if missing := parent.labels - child.labels:
        found.append(f"label {', '.join(sorted(missing))} left out")
    if parent.expires_s is not None and (
        child.expires_s is None or child.expires_s > parent.expires_s
    ):
        found.append("a later expiry")
    return found


def _covered(pattern: str, parent: Grant) -> bool:
    """Whether all that `pattern` names is allowed. A pattern is covered by itself or a prefix."""
    if "*" not in pattern:
        return parent.allows(pattern)
    return any(
        pattern == own
        or (own.endswith("*") and "*" not in own[:-1] and pattern.startswith(own[:-1]))
        for own in parent.models
    )
