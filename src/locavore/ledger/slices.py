"""What a worker holds of each account, and how a call counts against it."""

import math
from decimal import Decimal

from locavore.core.access import Grant, Quota
from locavore.ledger.leases import Account
from locavore.ledger.periods import FOREVER_S

NANO = Decimal(10) ** 9
MOST_USD = 9_000_000
"""Nano-dollars, rounded up per call, are counted in 53 bits: a Lua script can do that too."""


class Slice:
    """What this worker holds of one account."""

    __slots__ = (
        "account", "end_s", "held", "left", "limit", "mark", "quota", "reserved", "slot", "spent",
        "tight",
    )  # fmt: skip

    def __init__(self, account: Account, quota: Quota, limit: int, end_s: int, slot: int) -> None:
        self.account = account
        self.quota = quota
        self.limit = limit
        self.end_s = end_s
        self.slot = slot
        self.held = self.spent = self.reserved = 0
        self.left = limit
        """What nobody held when the store was asked last."""
        self.tight = False
        """The last slice was one call's worth: give back at once what that call did not use."""
        self.mark = 0
        """`spent` at the last tick."""

    @property
    def free(self) -> int:
        return self.held - self.spent - self.reserved


class Line:
    """One quota as it binds one subject, over the periods."""

    __slots__ = ("empty_until_s", "known_left", "limit", "quota", "slice", "start_s", "subject")

    def __init__(self, quota: Quota, subject: str) -> None:
        self.quota = quota
        self.subject = subject
        self.limit = limit_of(quota)
        self.slice: Slice | None = None
        self.start_s = FOREVER_S
        self.empty_until_s = 0.0
        self.known_left = 0


def limit_of(quota: Quota) -> int:
    """The limit in the unit that is counted. Raises ValueError for one that cannot be."""
    if quota.limit < 0 or (quota.unit == "usd" and quota.limit > MOST_USD):
        raise ValueError(f"limit {quota.limit!r}: between 0 and {MOST_USD} US dollars")
    if quota.unit == "concurrent" and quota.period != "total":
        raise ValueError(f"period {quota.period!r}: calls at a time have none; write 'total'")
    return int(quota.limit * NANO) if quota.unit == "usd" else int(quota.limit)


def is_quiet(part: Slice, now_s: float) -> bool:
    """Nothing in flight, and unused since the last tick or of a period that is over."""
    over = not part.account.start_s <= now_s < part.end_s
    return not part.reserved and (over or part.spent == part.mark)


def worst_of(unit: str, usd: Decimal | None, tokens: int) -> int | None:
    if unit == "usd":
        return None if usd is None else math.ceil(usd * NANO)
    return tokens if unit == "tokens" else 1


def used_of(unit: str, usd: Decimal | None, tokens: int | None, worst: int) -> int:
    if unit == "usd":
        return worst if usd is None else math.ceil(usd * NANO)
    if unit == "tokens":
        return worst if tokens is None else tokens
    return 1 if unit == "requests" else 0


def subject_of(quota: Quota, grant: Grant | None, user: str | None) -> str | None:
    """Whose account it is; None: the quota does not bind this caller."""
    own = {
        "all": "",
        "tenant": grant.tenant if grant else "",
        "team": _team(grant),
        "key": grant.name if grant else "",
        "user": user or "",
    }[quota.scope]
    if quota.scope == "all":
        return ""
    if grant is not None and quota in grant.quotas:
        return quota.name  # also of the key that minted this one
    return own if own and quota.name in ("*", own) else None


def _team(grant: Grant | None) -> str:
    """Teams of two tenants may have the same name."""
    if grant is None or not grant.team:
        return ""
    return f"{grant.tenant}/{grant.team}" if grant.tenant else grant.team
