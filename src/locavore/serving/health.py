"""Breakers per target and error class, and the budget that bounds retry storms.

Only clock readings that are passed in are used: everything here is decided on values.
"""

import math

from locavore.core.errors import Fault
from locavore.serving.snapshot import BreakerPolicy

# One credential is at fault, not the host; a local engine is never left alone for it (C53).
CREDENTIAL = frozenset({Fault.AUTH, Fault.BILLING})
# What says nothing about the target's health: the request was at fault.
INNOCENT = frozenset(
    {Fault.BAD_REQUEST, Fault.CONTEXT_OVERFLOW, Fault.PROMPT_TRUNCATED, Fault.NOT_FOUND}
)

_WEIGHT = 0.02
"""Of one try in a target's failure rate: about the last hundred tries count."""
_LATE_WEIGHT = 0.2
"""Of one answer in the share that came too late: each late one kept a client waiting."""
_LATE_HALF_LIFE_S = 300.0
"""What is not tried any more is not seen to be quick again, so it is forgotten."""


class _Breaker:
    """One target, one class of fault."""

    __slots__ = ("failures", "open_until_s", "opened", "probing")

    def __init__(self) -> None:
        self.failures = 0
        self.opened = 0
        """Times opened in a row; each doubles the pause."""
        self.open_until_s = 0.0
        self.probing = False


class Breakers:
    """Closed, open, or half-open with exactly one probe (C54). State is per target and class."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self._by_target: dict[str, dict[Fault, _Breaker]] = {}
        self.rates: dict[str, float] = {}
        """target -> share of tries that failed lately, of those that did (a moving average)."""
        self.lates: dict[str, tuple[float, float]] = {}
        """target -> (share of answers that did not come within the hold, when that was so)."""

    @property
    def any_open(self) -> bool:
        """Whether any target has failed lately; False is the cheap and usual answer."""
        return bool(self._by_target)

    def blocked(self, target: str, now_s: float) -> str | None:
        """Why this target must be left alone now; None: it may be tried."""
        classes = self._by_target.get(target)
        if not classes:
            return None
        for fault, breaker in classes.items():
            if breaker.opened and (now_s < breaker.open_until_s or breaker.probing):
                wait_s = max(0.0, breaker.open_until_s - now_s)
                return f"breaker_open: {fault.value}, next try in {wait_s:.0f} s"
        return None

    def retry_after_s(self, target: str, now_s: float) -> float | None:
        """Seconds until the next probe is allowed; None: not blocked."""
        classes = self._by_target.get(target, {})
        waits = [b.open_until_s - now_s for b in classes.values() if b.opened]
        return max(0.0, *waits, 0.0) if waits else None

    def start(self, target: str) -> None:
        """An attempt begins: in half-open state it is the one probe."""
        if not self._by_target:
            return
        for breaker in self._by_target.get(target, {}).values():
            if breaker.opened:
                breaker.probing = True

    def success(self, target: str) -> None:
        self._by_target.pop(target, None)
        if self.rates and (rate := self.rates.pop(target, 0.0) * (1 - _WEIGHT)) > _WEIGHT / 4:
            self.rates[target] = rate
        if self.lates and (late := self.lates.pop(target, None)) is not None:
            share, at_s = late
            if share > _LATE_WEIGHT / 10:
                self.lates[target] = (share * (1 - _LATE_WEIGHT), at_s)

    def late(self, target: str, now_s: float) -> None:
        """An answer did not come within the hold. No fault: a breaker does not count it."""
        share = self.late_share(target, now_s)
        self.lates[target] = (share + _LATE_WEIGHT * (1 - share), now_s)

    def late_share(self, target: str, now_s: float) -> float:
        share, at_s = self.lates.get(target, (0.0, now_s))
        return share * math.pow(0.5, max(0.0, now_s - at_s) / _LATE_HALF_LIFE_S)

    def abandoned(self, target: str) -> None:
        """An attempt was given up by us, which proves nothing: another one may be the probe."""
        for breaker in self._by_target.get(target, {}).values():
            breaker.probing = False

    def failure(
        self, target: str, fault: Fault, now_s: float, *, local: bool, retry_after_s: float | None
    ) -> None:
        classes = self._by_target.get(target)
        if classes:
            for breaker in classes.values():
                breaker.probing = False
        if fault in INNOCENT or (local and fault in CREDENTIAL):
            return
        rate = self.rates.get(target, 0.0)
        self.rates[target] = rate + _WEIGHT * (1 - rate)
        breaker = self._by_target.setdefault(target, {}).setdefault(fault, _Breaker())
        breaker.failures += 1
        at_once = fault in CREDENTIAL or breaker.opened
        if not at_once and breaker.failures < self.policy.failures:
            return
        pause_s = self.policy.open_s * 2**breaker.opened
        if retry_after_s is not None:
            pause_s = max(pause_s, retry_after_s)
        breaker.opened += 1
        breaker.open_until_s = now_s + min(pause_s, self.policy.max_open_s)

    def states(self, now_s: float) -> dict[str, dict[str, str]]:
        """target -> class -> `open`, `half_open` or `counting`, for metrics and doctor."""
        return {
            target: {f.value: _state(b, now_s) for f, b in classes.items()}
            for target, classes in self._by_target.items()
        }


def _state(breaker: _Breaker, now_s: float) -> str:
    if not breaker.opened:
        return "counting"
    return "open" if now_s < breaker.open_until_s else "half_open"


class RetryBudget:
    """N clients × M attempts stay bounded: extra attempts are a share of first ones (C52)."""

    def __init__(self, *, ratio: float, cap: float) -> None:
        self.ratio = ratio
        """Extra attempts that each first attempt earns."""
        self.cap = cap
        """Extra attempts that can be saved up."""
        self._tokens = cap

    def first(self) -> None:
        if self._tokens < self.cap:
            self._tokens = min(self.cap, self._tokens + self.ratio)

    def spend(self) -> bool:
        """Whether one more attempt is allowed; takes it if so."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
