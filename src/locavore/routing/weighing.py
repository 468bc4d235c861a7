"""What each option would cost this call and how long it would take, or why it may not serve it."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Protocol

import msgspec

from locavore.core.backend import Backend
from locavore.core.decision import Charges, Considered, Facts
from locavore.core.estimate import Estimate
from locavore.core.money import Usage
from locavore.core.policy import Policy, Require
from locavore.core.request import Request
from locavore.routing import limits as check
from locavore.routing.cost import (
    Prices,
    cascade_charges,
    direct_charges,
    largest_usage,
    total_usd,
)
from locavore.routing.rules import NO_LIMIT
from locavore.routing.survey import BELOW_FLOOR, Option

LEAST_CACHED_TOKENS = 1024
"""Shorter prompts are in no provider's cache (OpenAI's and Anthropic's documentation, 2026)."""
_NOTHING = Decimal(0)


class Latency(Protocol):
    """Forecast seconds to the first token; None: unknown."""

    def __call__(self, backend: Backend, facts: Facts) -> Estimate | None: ...


class Call(msgspec.Struct, frozen=True):
    """What the caller and the state of the gateway add to a request."""

    decision_id: str
    unavailable: Mapping[str, str] = {}
    """backend id -> why it cannot be reached now."""
    limits: Require = NO_LIMIT
    """The caller's own limits, which only narrow."""
    fallbacks: bool = True
    """False: the caller wants no other backend tried."""
    failure_rates: Mapping[str, float] = {}
    """backend id -> share of tries that failed lately; the policy tells those not named."""
    late_shares: Mapping[str, float] = {}
    """backend id -> share of answers that came too late to be looked at."""
    home: str | None = None
    """Backend id that served this conversation before."""
    cached_share: float = 0.0
    """Share of the prompt that its cache is taken to hold."""
    unjudged: str = ""
    """Why promises could not be judged."""


class Row(msgspec.Struct, eq=False, gc=False):
    """An option that this call may use, with what it would cost."""

    option: Option
    tier: int
    notes: tuple[str, ...]
    cost_usd: Decimal | None
    charges: Charges | None
    """None: the cost is one plain answer, or not known."""
    ttft_s: Estimate | None
    slow: bool
    home: bool = False
    """It served this conversation before."""
    leaves: bool = False
    """Taking it moves a conversation that may move for quality only."""
    hold_s: float = 0.0


class Weigher(msgspec.Struct, eq=False, gc=False):
    """One call against the options of its kind. A struct is made four times as fast as a class."""

    _request: Request
    _facts: Facts
    _call: Call
    _limits: Require
    _policy: Policy
    _latency: Latency
    _prices: Prices
    _usage: Usage
    """`cost.expected_usage` of the call."""
    _rows: dict[str, Row] = {}
    _against: dict[str, list[str]] = {}

    def direct(self, option: Option) -> Row | Considered:
        """An answer by one backend."""
        backend, call = option.backend, self._call
        ttft_s = self._latency(backend, self._facts)
        against = self._overruns(option, ttft_s)
        if against:
            self._against[backend.id] = against
            return _refused(option, against, ttft_s)
        cost_usd = self._prices(self._usage, backend.price).usd
        charges = None
        home = call.home is not None and call.home == backend.id
        cached_tokens = self.cached_tokens(backend) if home else 0
        failures = self._policy.routing.failure_rate
        if call.failure_rates:
            failures = call.failure_rates.get(backend.id, failures)
        if (failures or cached_tokens) and cost_usd:
            charges = direct_charges(
                cost_usd,
                self._usage,
                backend,
                self._prices,
                failures=failures,
                cached_tokens=cached_tokens,
            )
            cost_usd = total_usd(charges)
        if cached_tokens and ttft_s is not None:
            ttft_s = _shorter(ttft_s, call.cached_share)
        slow = ttft_s is not None and ttft_s.mean > self._policy.patience_s
        row = Row(option, option.tier, option.notes, cost_usd, charges, ttft_s, slow)
        if call.home is not None:
            self._place(row, home=home)
        self._rows[backend.id] = row
        return row

    def _place(self, row: Row, *, home: bool) -> None:
        row.home = home
        row.leaves = not home and self._policy.routing.switch == "quality"
        if home:
            row.notes = (*row.notes, "home")

    def cached_tokens(self, backend: Backend) -> int:
        """Prompt tokens that the cache of the conversation's home is taken to hold."""
        if backend.dialect == "anthropic" and b'"cache_control"' not in self._request.body:
            return 0  # it keeps only what it is told to
        tokens = int(self._facts.input_tokens.mean * self._call.cached_share)
        return tokens if tokens >= LEAST_CACHED_TOKENS else 0

    def cascade(self, option: Option) -> Row | Considered:
        """An answer here, a look at it, and one by the cloud when it does not hold."""
        cloud = option.cloud
        assert cloud is not None  # noqa: S101 - the caller has looked
        against = self._against_look(option, cloud)
        local_row, cloud_row = self._rows.get(option.backend.id), self._rows.get(cloud.id)
        if against or local_row is None or cloud_row is None:
            return _refused(option, against or ["no_look"], None)
        self._only_looked_at(local_row)
        hold_s, ttft_s, against = self._hold(option, local_row, cloud_row)
        against += self._against_trying(option, local_row, cloud_row) + self._below(option)
        if against:
            return _refused(option, against, ttft_s)
        charges = self._tried(option, local_row, cloud_row)
        cost_usd = total_usd(charges) if charges is not None else None
        slow = local_row.slow or cloud_row.slow
        row = Row(option, option.tier, option.notes, cost_usd, charges, ttft_s, slow)
        row.hold_s = hold_s
        if self._call.home is not None:
            self._place(row, home=local_row.home)
        return row

    def _tried(self, option: Option, local: Row, cloud: Row) -> Charges | None:
        if local.cost_usd is None or cloud.cost_usd is None:
            return None
        return cascade_charges(
            local.charges or Charges(answer_usd=local.cost_usd),
            cloud.cost_usd,
            self._stays(option),
            samples=_samples(option),
        )

    def _stays(self, option: Option) -> float:
        """P(the answer comes in time and stays): one that fails or is late is escalated too."""
        promise, call, local = option.promise, self._call, option.backend.id
        if promise is None or promise.stays is None:
            return 0.0
        fails = call.failure_rates.get(local, self._policy.routing.failure_rate)
        return promise.stays.mean * (1 - fails) * (1 - call.late_shares.get(local, 0.0))

    def _only_looked_at(self, local: Row) -> None:
        """Two promises over one workload do not add up to one: the one for answers speaks."""
        local.tier = BELOW_FLOOR
        local.notes = (*local.notes, "only_looked_at")

    def _against_look(self, option: Option, cloud: Backend) -> list[str]:
        """Why the answer cannot be looked at; none of it depends on what was promised."""
        if option.promise is None:
            return ["no_look: its promise could not be judged"]
        if not self._call.fallbacks:
            return ["no_look: no other backend is wanted"]
        if self._request.n > 1:
            return [f"no_look: {self._request.n} answers at once"]
        if self._request.stream and self._policy.routing.stream_hold_s <= 0:
            return ["no_look: streams are not held back"]
        against = list(self._against.get(option.backend.id, ()))
        against += [f"escalation: {reason}" for reason in self._against.get(cloud.id, ())]
        if not against and cloud.id not in self._rows:
            against.append("escalation: it is not among the candidates")
        tries = 1 + _samples(option)
        return against + self._over_cost(*(option.backend,) * tries, cloud)

    def _hold(
        self, option: Option, local: Row, cloud: Row
    ) -> tuple[float, Estimate | None, list[str]]:
        """(longest wait for answer and look, forecast until the first byte, reasons against).

        The attempt is cut off after the hold, so the wait is bounded even where its length is not
        known: hold and the cloud's own wait together keep `max_ttft_s`.
        """
        routing, most_s = self._policy.routing, self._limits.max_ttft_s
        hold_s = routing.stream_hold_s if self._request.stream else routing.hold_s
        after = cloud.ttft_s
        if most_s is not None:
            hold_s = min(hold_s, most_s - (after.high if after is not None else 0.0))
        attempt_s = local.ttft_s.mean if local.ttft_s is not None else 0.0
        if hold_s <= 0 or attempt_s > hold_s:
            return hold_s, None, [f"no_hold: {attempt_s:.1f} s forecast, {hold_s:.1f} s allowed"]
        if local.ttft_s is None:
            return hold_s, None, []
        leaves = 1 - self._stays(option)
        ttft_s = Estimate(
            mean=attempt_s + leaves * (after.mean if after is not None else 0.0),
            low=local.ttft_s.low,
            high=hold_s + (after.high if after is not None else 0.0),
            source="prefill speed and the hold",
            unit="s",
        )
        return hold_s, ttft_s, []

    def _against_trying(self, option: Option, local: Row, cloud: Row) -> list[str]:
        stays, least = self._stays(option), self._policy.routing.least_stay
        promise = option.promise
        if promise is None or promise.threshold is None or stays < least:
            return [f"unlikely: {stays:.2f}, {least:.2f} required"]
        charges = self._tried(option, local, cloud)
        if charges is None or cloud.cost_usd is None:
            return []
        tried_usd = total_usd(charges)
        if tried_usd < cloud.cost_usd or cloud.cost_usd == 0:
            return []
        return [f"no_saving: ${tried_usd:f} expected, ${cloud.cost_usd:f} without"]

    def _overruns(self, option: Option, ttft_s: Estimate | None) -> list[str]:
        """Reasons against an option that depend on this call's size and on what is reachable."""
        request, limits, call = self._request, self._limits, self._call
        backend, against = option.backend, []
        if call.unavailable and backend.id in call.unavailable:
            against.append(f"unavailable: {call.unavailable[backend.id]}")
        named = option.named
        window = check.over_window(request, self._facts, backend, named=named)
        if window is not None:
            against.append(window)
        if not named and request.max_output_tokens is not None:
            output = check.over_output(request, backend)
            if output is not None:
                against.append(output)
        most_s = limits.max_ttft_s
        if most_s is not None and ttft_s is not None and ttft_s.high > most_s:
            against.append(f"max_ttft: {ttft_s.high:.0f} s forecast, {most_s:g} s allowed")
        if limits.max_cost_usd is not None:
            against += self._over_cost(backend)
        if limits.min_quality is not None:
            against += self._below(option)
        return against

    def _below(self, option: Option) -> list[str]:
        """Against the quality that is required, by what is promised or else by the benchmark."""
        floor, share = self._limits.min_quality, option.quality
        if floor is None or (share is not None and share.low >= floor):
            return []
        known = "unknown" if share is None else f"{share.low:.2f}"
        return [f"min_quality: {known}, {floor:.2f} required"]

    def _over_cost(self, *backends: Backend) -> list[str]:
        """The worst case of every planned attempt, all full price, against the cost limit."""
        most_usd = self._limits.max_cost_usd
        if most_usd is None:
            return []
        usage = largest_usage(self._facts, self._request.n)
        total = _NOTHING
        for backend in backends:
            usd = self._prices(usage, backend.price).usd
            if usd is None:
                return [f"max_cost: up to unknown, ${most_usd} allowed"]
            total += usd
        return [] if total <= most_usd else [f"max_cost: up to ${total:f}, ${most_usd} allowed"]


def _samples(option: Option) -> int:
    return option.promise.samples if option.promise is not None else 0


def _shorter(ttft_s: Estimate, cached_share: float) -> Estimate:
    """The cache may be gone, so the high end stays."""
    left = 1 - cached_share
    return msgspec.structs.replace(ttft_s, mean=ttft_s.mean * left, low=ttft_s.low * left)


def _refused(option: Option, reasons: list[str], ttft_s: Estimate | None) -> Considered:
    return Considered(
        id=option.id,
        place=option.place,
        verdict="excluded",
        reasons=tuple(reasons),
        quality=option.quality,
        ttft_s=ttft_s,
        promise=option.promise,
    )
