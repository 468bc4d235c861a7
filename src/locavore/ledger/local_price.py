"""What a call on our own machine really costs: energy × tariff by the hour, and the machine.

    cost of an interval = joules / 3.6e6 × tariff(hour) + seconds × (price - residual) / lifetime

An interval's cost is borne by the calls that ran in it, by the seconds each was in it. Intervals
without a call are idle: their cost is borne once, by all calls of the window, by their seconds.
So the shares add up to the whole, and a machine that is used little makes dear calls.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import msgspec

from locavore.ledger.database import Database
from locavore.ledger.energy import Interval
from locavore.ledger.periods import zone_of

JOULES_PER_KWH = 3_600_000
YEAR_S = 31_557_600
"""365.25 days."""
PICO = 10**12


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    price_usd: Decimal
    lifetime_years: Decimal
    residual_usd: Decimal = Decimal(0)

    @property
    def usd_per_s(self) -> Fraction:
        return Fraction(self.price_usd - self.residual_usd) / (
            Fraction(self.lifetime_years) * YEAR_S
        )


class Tariff(msgspec.Struct, frozen=True, kw_only=True):
    usd_per_kwh: tuple[Decimal, ...]
    """One figure, or 24: by the hour of the day in `zone`."""
    zone: str = "UTC"

    def at(self, unix_s: float) -> Fraction:
        if len(self.usd_per_kwh) == 1:
            return Fraction(self.usd_per_kwh[0])
        return Fraction(self.usd_per_kwh[datetime.fromtimestamp(unix_s, zone_of(self.zone)).hour])


class Work(NamedTuple):
    """One attempt on the machine."""

    start_s: float
    end_s: float
    prefill_s: float
    """Until its first token; the rest is decoding."""
    input_tokens: int
    output_tokens: int


class LocalCost(msgspec.Struct, frozen=True, kw_only=True):
    """Whole pico-dollars, so that the parts add up exactly."""

    energy_pico: int
    machine_pico: int
    idle_pico: int
    """Part of the two above that no call was running for."""
    shares_pico: tuple[int, ...]
    """Of each call, in the order given; empty when there was none to bear anything."""
    busy_s: float
    window_s: float
    joules: float

    @property
    def total_pico(self) -> int:
        return self.energy_pico + self.machine_pico


def local_cost(
    intervals: Sequence[Interval], works: Sequence[Work], machine: Machine, tariff: Tariff
) -> LocalCost:
    """Attribute the cost of all intervals (in order, not overlapping) to the calls, once."""
    order = sorted(range(len(works)), key=lambda n: works[n].start_s)
    shares = [Fraction(0)] * len(works)
    energy = fixed = idle = Fraction(0)
    busy_s, first, running = 0.0, 0, list[int]()
    for interval in intervals:
        length_s = Fraction(interval.end_s - interval.start_s)
        joule_usd = Fraction(interval.joules) / JOULES_PER_KWH * tariff.at(interval.start_s)
        owned_usd = length_s * machine.usd_per_s
        energy, fixed = energy + joule_usd, fixed + owned_usd
        while first < len(order) and works[order[first]].start_s < interval.end_s:
            running.append(order[first])
            first += 1
        running = [n for n in running if works[n].end_s > interval.start_s]
        inside = [(n, _overlap(works[n], interval)) for n in running]
        total = sum((seconds for _, seconds in inside), Fraction(0))
        if not total:
            idle += joule_usd + owned_usd
            continue
        busy_s += interval.end_s - interval.start_s
        for n, seconds in inside:
            shares[n] += (joule_usd + owned_usd) * seconds / total
    lengths = [Fraction(work.end_s - work.start_s) for work in works]
    if any(lengths):
        per_second = idle / sum(lengths)
        shares = [
            share + seconds * per_second for share, seconds in zip(shares, lengths, strict=True)
        ]
    energy_pico, machine_pico = round(energy * PICO), round(fixed * PICO)
    return LocalCost(
        energy_pico=energy_pico,
        machine_pico=machine_pico,
        idle_pico=round(idle * PICO),
        shares_pico=_whole(shares, energy_pico + machine_pico) if any(lengths) else (),
        busy_s=busy_s,
        window_s=sum(i.end_s - i.start_s for i in intervals),
        joules=sum(i.joules for i in intervals),
    )


def _overlap(work: Work, interval: Interval) -> Fraction:
    begin, end = max(work.start_s, interval.start_s), min(work.end_s, interval.end_s)
    return Fraction(max(0.0, end - begin))


def _whole(shares: Sequence[Fraction], total: int) -> tuple[int, ...]:
    """Rounded down, and what is missing to `total` given to the largest remainders."""
    scaled = [share * PICO for share in shares]
    floors = [int(value) for value in scaled]
    by_rest = sorted(range(len(floors)), key=lambda n: floors[n] - scaled[n])
    for n in by_rest[: total - sum(floors)]:
        floors[n] += 1
    return tuple(floors)


def modelled(
    works: Iterable[Work],
    *,
    since_s: float,
    until_s: float,
    idle_w: float,
    busy_w: float,
    step_s: float = 60.0,
) -> list[Interval]:
    """Intervals where nothing was measured: `busy_w` while a call runs, `idle_w` otherwise."""
    busy = _union(works, since_s, until_s)
    intervals, at, first = [], since_s, 0
    while at < until_s:
        end = min(at + step_s, until_s)
        active, n = 0.0, first
        while n < len(busy) and busy[n][0] < end:
            active += max(0.0, min(busy[n][1], end) - max(busy[n][0], at))
            n += 1
        while first < len(busy) and busy[first][1] <= end:
            first += 1
        intervals.append(Interval(at, end, active * busy_w + (end - at - active) * idle_w))
        at = end
    return intervals


def _union(works: Iterable[Work], since_s: float, until_s: float) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for work in sorted(works):
        begin, end = max(work.start_s, since_s), min(work.end_s, until_s)
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        elif end > begin:
            merged.append((begin, end))
    return merged


class LocalPrice(msgspec.Struct, frozen=True, kw_only=True):
    """Comparable with a cloud's price list; None where there were no such tokens."""

    input_mtok: Decimal | None
    output_mtok: Decimal | None
    per_call_usd: Decimal | None


def price_of(cost: LocalCost, works: Sequence[Work]) -> LocalPrice:
    """Each call's share is split over input and output by its prefill and decoding seconds."""
    given = out = Fraction(0)
    for share, work in zip(cost.shares_pico, works, strict=False):
        length_s = work.end_s - work.start_s
        part = Fraction(work.prefill_s) / Fraction(length_s) if length_s else Fraction(1)
        given, out = given + share * part, out + share * (1 - part)
    calls = len(cost.shares_pico)
    return LocalPrice(
        input_mtok=_per(given, sum(w.input_tokens for w in works)),
        output_mtok=_per(out, sum(w.output_tokens for w in works)),
        per_call_usd=_per(given + out, calls * 10**6) if calls else None,
    )


def _per(pico: Fraction, tokens: int) -> Decimal | None:
    """US dollars per million, to six decimals."""
    if not tokens:
        return None
    return (Decimal(round(pico * 10**6 / tokens)) / 10**6 / 10**6).quantize(Decimal("0.000001"))


def works_of(db: Database, backend: str, *, since_s: float, until_s: float) -> list[Work]:
    """The attempts of one backend in a window, from the ledger."""
    rows = db.execute(
        "SELECT started_ms, duration_ms, coalesce(ttft_ms, 0), coalesce(input_tokens, 0),"
        " coalesce(output_tokens, 0) FROM attempts"
        " WHERE backend = ? AND started_ms >= ? AND started_ms < ? AND duration_ms > 0",
        (backend, int(since_s * 1000), int(until_s * 1000)),
    )
    return [
        Work(start / 1000, (start + length) / 1000, min(ttft, length) / 1000, given, out)
        for start, length, ttft, given, out in rows.fetchall()
    ]
