"""Budgets and rate limits: authorize before the call, settle to the truth after it.

One mechanism for dollars, requests, tokens and calls at a time: a quota is an amount per period,
of a tenant, team, key or user. `reserve` sets the worst case of a call aside in every quota that
binds it, in the memory of this worker; `settle` replaces it by what was really used. A worker
decides within the slices it has leased (`ledger.leases`), so most calls cost a few microseconds
and the limit holds exactly over all processes, whatever dies.

    reserved + spent <= leased by this worker,   sum of all leases + all spending <= limit
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec

from locavore.core.access import Grant, Quota, Unit
from locavore.core.errors import OverLimit, StoreError
from locavore.core.money import Price, Usage, cost_of
from locavore.ledger.leases import Account, Gift, LeaseStore, LeaseTable, Short, Want
from locavore.ledger.periods import bounds
from locavore.ledger.slices import (
    NANO,
    Line,
    Slice,
    is_quiet,
    limit_of,
    subject_of,
    used_of,
    worst_of,
)

RETRY_S = 0.1
"""For so long a worker believes that an account it found empty still is."""
TICK_S = 1.0
"""How often `tick` wants to be called."""
LINES = 10_000
"""Callers whose quotas a worker remembers."""
log = logging.getLogger(__name__)


def leases_dir(home: Path) -> Path:
    return home / "run" / "leases"


def worst_case_usd(price: Price | None, *, input_tokens: int, output_tokens: int) -> Decimal | None:
    """The most that one attempt can cost: no cache hit, or all of it written; None: unknown."""
    plain = cost_of(Usage(input_tokens=input_tokens, output_tokens=output_tokens), price).usd
    if plain is None or price is None or price.rate.cache_write_mtok is None:
        return plain
    written = Usage(
        input_tokens=input_tokens, output_tokens=output_tokens, cache_write_tokens=input_tokens
    )
    dearer = cost_of(written, price).usd
    return plain if dearer is None else max(plain, dearer)


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call may not be made now."""

    quota: Quota
    subject: str
    message: str
    left: Decimal
    """What the quota still holds, in its unit: a cheaper candidate may fit."""
    code: str
    """`insufficient_quota` (as OpenAI calls it), `rate_limit_exceeded`, `unknown_price` or
    `limits_unavailable`."""
    status: int = 429
    retry_after_s: float | None = None

    def error(self) -> OverLimit:
        """As the client is told."""
        return OverLimit(
            self.message, status=self.status, code=self.code, retry_after_s=self.retry_after_s
        )


class Reservation:
    """The worst case of one call, set aside. Settle or release it exactly once."""

    __slots__ = ("flags", "parts")

    def __init__(self, parts: list[tuple[Slice, int]], flags: tuple[str, ...] = ()) -> None:
        self.parts = parts
        self.flags = flags
        """`over_budget`: a soft quota is used up."""


class Authorizer:
    """One per worker, used by its event loop's thread only."""

    def __init__(
        self,
        quotas: Iterable[Quota],
        leases: LeaseStore,
        table: LeaseTable,
        *,
        fail_open: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`quotas`: those of the configuration; a key's own come with its grant.

        `fail_open`: serve when the lease store does not answer, and book afterwards.
        """
        self._quotas = tuple(quotas)
        for quota in self._quotas:
            limit_of(quota)
        self._leases = leases
        self._table = table
        self._cells = table.cells
        self._fail_open = fail_open
        self._clock = clock
        self._of_caller: dict[tuple[str | None, str | None], tuple[Line, ...]] = {}
        self._lines: dict[tuple[str, str], Line] = {}
        self._slices: dict[Account, Slice] = {}
        self._debts: set[Slice] = set()
        self._no_takes: StoreError | None = None
        self._no_gifts = False
        """The store failed since the last tick: one call a second waits for it, not all of them."""

    def load(self, quotas: Iterable[Quota]) -> None:
        """New limits or new grants after a reload; what is spent and reserved stays."""
        self._quotas = tuple(quotas)
        self._of_caller.clear()

    # -- the call -----------------------------------------------------------------------------

    def reserve(
        self,
        grant: Grant | None,
        user: str | None,
        usd: Decimal | None,
        tokens: int,
        *,
        only: Unit | None = None,
    ) -> Reservation | Refusal:
        """Set the worst case of a call aside, in all quotas or in none.

        `usd`: over every planned attempt; None: unknown, which a hard budget refuses. `only`: the
        quotas in this unit. Raises StoreError when this worker holds more accounts than it can.
        """
        lines = self._of_caller.get((grant.name if grant else None, user))
        if lines is None:
            lines = self._find(grant, user)
        now_s = self._clock()
        parts, short = [], []
        for line in lines:
            if only is not None and line.quota.unit != only:
                continue
            need = worst_of(line.quota.unit, usd, tokens)
            if need is None:
                if line.quota.hard:
                    return _unpriced(line)
                need = 0
            part = line.slice
            if part is None or not part.account.start_s <= now_s < part.end_s:
                part = self._current(line, now_s)
            if part.free < need:
                if line.empty_until_s > now_s and line.quota.hard and need > line.known_left:
                    return _refusal(line, part, now_s)
                short.append((line, part, need))
            parts.append((part, need))
        flags: tuple[str, ...] = ()
        if short:
            taken = self._take(short, now_s)
            if isinstance(taken, Refusal):
                return taken
            flags = taken
        cells = self._cells
        for part, need in parts:
            part.reserved += need
            cells[part.slot] = part.spent + part.reserved
        return Reservation(parts, flags)

    def settle(self, reservation: Reservation, usd: Decimal | None, tokens: int | None) -> None:
        """Replace the worst case by what was used. None: unknown, so the worst case it is."""
        for part, worst in reservation.parts:
            used = used_of(part.quota.unit, usd, tokens, worst)
            part.spent += used
            self._free(part, worst)
        reservation.parts = []

    def release(self, reservation: Reservation) -> None:
        """Nothing was sent, so nothing was used."""
        for part, worst in reservation.parts:
            self._free(part, worst)
        reservation.parts = []

    def _free(self, part: Slice, worst: int) -> None:
        part.reserved -= worst
        self._cells[part.slot] = part.spent + part.reserved
        free = part.free
        if free < 0 or (free and part.tight):
            self._debts.add(part)
            self._give([part])
            line = self._lines.get((part.account.quota, part.account.subject))
            if line is not None:  # what we gave back ourselves may be asked for at once
                line.empty_until_s = 0.0

    # -- the quotas of a caller ---------------------------------------------------------------

    def _find(self, grant: Grant | None, user: str | None) -> tuple[Line, ...]:
        if len(self._of_caller) >= LINES:
            self._of_caller.clear()
            self._lines = {key: line for key, line in self._lines.items() if line.slice}
        found = []
        for quota in (*self._quotas, *(grant.quotas if grant else ())):
            subject = subject_of(quota, grant, user)
            if subject is not None:
                key = (quota.id, subject)
                line = self._lines.get(key)
                if line is None:
                    line = self._lines[key] = Line(quota, subject)
                elif line.quota != quota:
                    self._change(line, quota)
                found.append(line)
        self._of_caller[grant.name if grant else None, user] = lines = tuple(dict.fromkeys(found))
        return lines

    def _change(self, line: Line, quota: Quota) -> None:
        line.quota, line.limit, line.empty_until_s = quota, limit_of(quota), 0.0
        if line.slice is not None:
            line.slice.quota, line.slice.limit = quota, line.limit

    def _current(self, line: Line, now_s: float) -> Slice:
        """The slice of the period that `now_s` lies in; the old one is given back by `tick`."""
        quota = line.quota
        start_s, end_s = bounds(quota.period, quota.zone, now_s)
        account = Account(quota.id, line.subject, start_s)
        found = self._slices.get(account)
        if found is None:
            found = Slice(account, quota, line.limit, end_s, self._table.slot())
            self._slices[account] = found
        line.slice = found
        line.empty_until_s = 0.0
        return found

    # -- the shared store ---------------------------------------------------------------------

    def _take(
        self, short: list[tuple[Line, Slice, int]], now_s: float
    ) -> tuple[str, ...] | Refusal:
        """Lease what is missing, in one step for all quotas; flags of the soft ones."""
        wants = [
            Want(part.account, part.slot, part.limit, need - part.free, line.quota.hard, part.end_s)
            for line, part, need in short
        ]
        if self._no_takes is not None:
            return self._unavailable(short[0], self._no_takes)
        try:
            answer = self._leases.take(self._table.holder, wants)
        except StoreError as error:
            self._no_takes = error
            return self._unavailable(short[0], error)
        if isinstance(answer, Short):
            line, part, _ = next(row for row in short if row[1].account == answer.account)
            part.left = answer.left
            line.known_left = answer.left + part.free
            line.empty_until_s = now_s + RETRY_S
            return _refusal(line, part, now_s)
        flags: tuple[str, ...] = ()
        for (_, part, _), want, got in zip(short, wants, answer, strict=True):
            part.held += got.amount
            part.left = got.left
            part.tight = got.amount == want.need
            if got.left < 0:
                flags = ("over_budget",)
        return flags

    def _unavailable(
        self, first: tuple[Line, Slice, int], error: StoreError
    ) -> tuple[str, ...] | Refusal:
        if self._fail_open:
            self._debts.update(part for part in self._slices.values())
            return ("limits_unavailable",)
        line, _, _ = first
        return Refusal(
            quota=line.quota,
            subject=line.subject,
            message=error.message,
            left=Decimal(0),
            code="limits_unavailable",
            status=503,
            retry_after_s=1.0,
        )

    def _give(self, parts: Sequence[Slice], *, last: int = 0) -> bool:
        """Return what is free, or commit what is overdrawn; done with the first `last` of them."""
        if self._no_gifts:
            return False
        gifts = [
            Gift(part.account, part.free, n < last, part.end_s) for n, part in enumerate(parts)
        ]
        try:
            self._leases.give(self._table.holder, gifts)
        except StoreError as error:
            self._no_gifts = True
            log.warning("limits: %s; tried again later", error.message)
            return False
        for part, gift in zip(parts, gifts, strict=True):
            part.held -= gift.amount
            part.left += gift.amount
            self._debts.discard(part)
        return True

    def tick(self) -> None:
        """Give back what is not needed and post debts. Call it every `TICK_S`."""
        self._no_takes, self._no_gifts = None, False
        now_s = self._clock()
        done = [part for part in self._slices.values() if is_quiet(part, now_s)]
        owing = [part for part in self._debts if part not in done]
        if done or owing:
            if self._give([*done, *owing], last=len(done)):
                for part in done:
                    self._drop(part)
        elif self._slices:
            self._beat()
        for part in self._slices.values():
            part.mark = part.spent

    def _beat(self) -> None:
        try:
            self._leases.beat(self._table.holder)
        except StoreError as error:
            log.warning("limits: %s", error.message)

    def _drop(self, part: Slice) -> None:
        del self._slices[part.account]
        self._table.free(part.slot)
        line = self._lines.get((part.account.quota, part.account.subject))
        if line is not None and line.slice is part:
            line.slice = None

    def close(self) -> None:
        """Give everything back; calls in flight must have ended."""
        self._no_gifts = False
        parts = list(self._slices.values())
        if not parts or self._give(parts, last=len(parts)):
            self._table.close()
        self._leases.close()

    # -- what a caller is told ----------------------------------------------------------------

    def headers(self, reservation: Reservation) -> list[tuple[bytes, bytes]]:
        """`x-ratelimit-*` of the tightest request and token limit, as this worker knows them."""
        now_s = self._clock()
        found: dict[str, tuple[int, int, float]] = {}
        for part, _ in reservation.parts:
            unit = part.quota.unit
            if unit in ("requests", "tokens"):
                remaining = max(0, part.left + part.free)
                if unit not in found or remaining < found[unit][1]:
                    found[unit] = (part.limit, remaining, max(0.0, part.end_s - now_s))
        return [
            (f"x-ratelimit-{what}-{unit}".encode(), value.encode())
            for unit, (limit, remaining, reset_s) in found.items()
            for what, value in (
                ("limit", str(limit)),
                ("remaining", str(remaining)),
                ("reset", f"{math.ceil(reset_s)}s"),
            )
        ]


def _refusal(line: Line, part: Slice, now_s: float) -> Refusal:
    quota = line.quota
    left = Decimal(max(0, line.known_left))
    if quota.unit == "usd":
        left /= NANO
    # A slot may be free again at any moment; a period that never ends brings nothing back.
    waits_s = RETRY_S if quota.unit == "concurrent" else part.end_s - now_s
    whose = f"{quota.scope} {line.subject!r}" if line.subject else "this gateway"
    per = "at a time" if quota.unit == "concurrent" else f"per {quota.period}"
    return Refusal(
        quota=quota,
        subject=line.subject,
        message=_said(whose, f"{quota.limit} {quota.unit} {per}", left, quota.unit),
        left=left,
        code="insufficient_quota" if quota.unit == "usd" else "rate_limit_exceeded",
        retry_after_s=max(1.0, waits_s),
    )


def _said(whose: str, limit: str, left: Decimal, unit: Unit) -> str:
    if not left:
        return f"the limit of {whose} is used up: {limit}"
    smaller = "; a smaller max_tokens asks for less" if unit in ("usd", "tokens") else ""
    return (
        f"this call could exceed the limit of {whose}: {limit}, {left.normalize():f} left{smaller}"
    )


def _unpriced(line: Line) -> Refusal:
    return Refusal(
        quota=line.quota,
        subject=line.subject,
        message=(
            f"{line.quota.scope} {line.subject!r} has a budget in dollars and this model has no "
            "known price: set `price` on its backend"
        ),
        left=Decimal(0),
        code="unknown_price",
        status=403,
    )
