"""Where self-hosting starts to win, and how likely it does, from the intervals of both sides.

Volume V* = fixed cost / (API price per token - own variable cost per token). Months = money paid
up front / (API bill - own running cost). Probabilities: draws from every interval, seed fixed.
"""

import math
import random
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from locavore.planner.cost import Bill, Range, Rates
from locavore.planner.search import Option
from locavore.planner.workload import Workload

DRAWS = 2000
_SEED = 20261121
MILLION = 1_000_000
_RISES_WITH_VOLUME = ("hardware", "electricity", "rent")


class BreakEven(msgspec.Struct, frozen=True, kw_only=True):
    """One self-hosted option against one alternative."""

    option: str
    against: str
    kind: str
    """`closed_api`, `open_api` or `rent`."""
    usd_month: float
    usd_month_against: float
    volume_tokens_month: float | None = None
    """Above it self-hosting is cheaper; None: never with these machines, see `reason`."""
    utilization: float | None = None
    """Share of the machines' capacity in use at that volume."""
    months: float | None = None
    """Until the money paid up front is back; None: it never is, or nothing was paid."""
    probability_now: float = 0.0
    """That self-hosting is cheaper in the first month."""
    probability_horizon: float = 0.0
    """That it is cheaper over the horizon, with API prices falling and the volume growing."""
    formula: str = ""
    reason: str | None = None


class Draws(msgspec.Struct, frozen=True):
    """Sampled monthly cost of one option."""

    month: tuple[float, ...]
    """First month."""
    horizon: tuple[float, ...]
    """Mean month over the horizon, machines added as the volume grows."""


def median_draw(rng: random.Random, low: float, middle: float, high: float) -> float:
    """A draw whose median is `middle` and that thins out toward both ends."""
    u = rng.random()
    if u < 0.5:
        return low + (middle - low) * math.sqrt(2 * u)
    return high - (high - middle) * math.sqrt(2 * (1 - u))


def capacity_tokens_month(option: Option, workload: Workload) -> float:
    """Tokens a month that the option's machines carry with its hours and peak factor."""
    _, capacity = option.installation
    return workload.tokens_month / (capacity.utilization * workload.peak_factor)


def own_draws(option: Option, workload: Workload) -> Draws:
    """Every part of the bill and the speed drawn from its interval."""
    bill, capacity = option.installation
    rng = random.Random(_SEED)  # noqa: S311 - not for secrets
    speed, replicas = capacity.output_tokens_s, capacity.replicas
    peak = capacity.utilization * workload.peak_factor * replicas
    steps = growth_steps(workload)
    month, horizon = [], []
    for _ in range(DRAWS):
        slower = speed.mean / median_draw(rng, speed.low, speed.mean, speed.high)
        rising = fixed = 0.0
        for part in bill.components:
            drawn = median_draw(rng, part.low, part.mean, part.high)
            if part.name in _RISES_WITH_VOLUME:
                rising += drawn
            else:
                fixed += drawn
        month.append(fixed + rising * _scale(peak * slower, replicas))
        horizon.append(
            sum(
                share * (fixed + rising * _scale(peak * slower * growth, replicas))
                for share, growth in steps
            )
        )
    return Draws(month=tuple(month), horizon=tuple(horizon))


def _scale(peak: float, replicas: int) -> float:
    """Machines over planned machines when the peak needs `peak` replicas."""
    return max(replicas, math.ceil(peak - 0.05)) / replicas


def growth_steps(workload: Workload) -> list[tuple[float, float]]:
    """(share of the horizon, volume over today's) year by year, mid-year volumes."""
    years = workload.horizon_months / 12
    bounds = [float(year) for year in range(math.ceil(years))] + [years]
    return [
        ((end - start) / years, (1 + workload.growth_year) ** ((start + end) / 2))
        for start, end in pairwise(bounds)
        if end > start
    ]


def api_horizon(workload: Workload, fall: float) -> float:
    """Mean monthly bill over the horizon, over the first month's: growth and falling prices."""
    monthly: float = ((1 + workload.growth_year) * (1 - fall)) ** (1 / 12)
    months = workload.horizon_months
    if abs(monthly - 1) < 1e-9:
        return 1.0
    return (1 - monthly**months) / (1 - monthly) / months


def against_api(
    option: Option, api: Option, workload: Workload, draws: Draws, fall: Range
) -> BreakEven:
    """An own or rented installation against a priced API."""
    bill, _ = option.installation
    fixed, variable = fixed_and_variable(bill, workload)
    volume, utilization, reason = _volume(option, api, workload, fixed, variable)
    rng = random.Random(_SEED + 1)  # noqa: S311
    falls = [median_draw(rng, fall.low, fall.mean, fall.high) for _ in range(DRAWS)]
    later = [api.usd_month * api_horizon(workload, drawn) for drawn in falls]
    months = _months(bill, api.usd_month)
    return BreakEven(
        option=option.name,
        against=api.name,
        kind=api.kind,
        usd_month=option.usd_month,
        usd_month_against=api.usd_month,
        volume_tokens_month=volume,
        utilization=utilization,
        months=months,
        probability_now=_wins(draws.month, [api.usd_month] * DRAWS),
        probability_horizon=_wins(draws.horizon, later),
        formula=(
            f"{fixed:,.0f} USD/month / ({api.usd_mtok:.3f} - {variable:.3f} USD per million tokens)"
        ),
        reason=reason,
    )


def _wins(own: Sequence[float], other: Sequence[float]) -> float:
    return sum(a < b for a, b in zip(own, other, strict=True)) / len(own)


def fixed_and_variable(bill: Bill, workload: Workload) -> tuple[float, float]:
    """(USD a month whatever the volume, USD per million tokens)."""
    variable = bill.usd_mtok_variable
    return bill.mean - variable * workload.tokens_month / MILLION, variable


def _volume(
    option: Option, api: Option, workload: Workload, fixed: float, variable: float
) -> tuple[float | None, float | None, str | None]:
    gain = api.usd_mtok - variable
    if gain <= 0:
        return None, None, "the API costs less per token than the electricity"
    volume = fixed / gain * MILLION
    room = capacity_tokens_month(option, workload)
    if volume > room:
        times = volume / room
        reason = (
            f"only at {volume / 1e6:,.0f}M tokens a month, {times:.1f} times what these"
            f" machines carry ({room / 1e6:,.0f}M): more machines raise the cost again"
        )
        return None, None, reason
    return volume, volume / room, None


def _months(bill: Bill, other_usd_month: float) -> float | None:
    """Until the money paid up front is back; None: nothing was paid or it never is."""
    running = bill.mean - sum(part.mean for part in bill.components if part.name == "hardware")
    saved = other_usd_month - running
    if bill.upfront_usd <= 0 or saved <= 0:
        return None
    return bill.upfront_usd / saved


def against_rent(option: Option, rent: Option, draws: Draws, rent_draws: Draws) -> BreakEven:
    """Buying against renting the same machines around the clock."""
    bill, _ = option.installation
    months = _months(bill, rent.usd_month)
    reason = None if months is not None else "running the bought machines costs as much as rent"
    return BreakEven(
        option=option.name,
        against=rent.name,
        kind="rent",
        usd_month=option.usd_month,
        usd_month_against=rent.usd_month,
        months=months,
        probability_now=_wins(draws.month, rent_draws.month),
        probability_horizon=_wins(draws.horizon, rent_draws.horizon),
        formula=f"{bill.upfront_usd:,.0f} USD up front / (rent - running cost)",
        reason=reason,
    )


class Point(msgspec.Struct, frozen=True):
    """One volume of the break-even curve, US dollars a month."""

    tokens_month: float
    low: float
    mean: float
    high: float
    apis: tuple[float, ...]
    """In the order of the curve's `apis`."""


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """Monthly cost over volume: the installation with its band, and each API."""

    option: str
    apis: tuple[str, ...]
    points: tuple[Point, ...]
    planned_tokens_month: float


def curve(option: Option, apis: Sequence[Option], workload: Workload) -> Curve:
    """From a hundredth to a hundred times the planned volume; machines are added when full."""
    bill, _ = option.installation
    room = capacity_tokens_month(option, workload)
    points = []
    for step in range(-16, 17):
        volume = workload.tokens_month * 10 ** (step / 8)
        scale = max(1, math.ceil(volume / room - 0.05)) if volume > room else 1
        more = bill.usd_mtok_variable * (volume - workload.tokens_month) / MILLION
        low, mean, high = (
            sum(
                getattr(part, which) * (scale if part.name in _RISES_WITH_VOLUME else 1)
                for part in bill.components
            )
            + (more if scale == 1 else 0.0)
            for which in ("low", "mean", "high")
        )
        prices = tuple(api.usd_mtok * volume / MILLION for api in apis)
        points.append(Point(volume, max(0.0, low), max(0.0, mean), max(0.0, high), prices))
    return Curve(
        option=option.name,
        apis=tuple(api.name for api in apis),
        points=tuple(points),
        planned_tokens_month=workload.tokens_month,
    )


def own_horizon(option: Option, workload: Workload) -> float:
    """Mean monthly cost over the horizon at the central figures, machines added with growth."""
    bill, capacity = option.installation
    replicas = capacity.replicas
    peak = capacity.utilization * workload.peak_factor * replicas
    rising = sum(p.mean for p in bill.components if p.name in _RISES_WITH_VOLUME)
    fixed = bill.mean - rising
    return fixed + sum(
        share * rising * _scale(peak * growth, replicas) for share, growth in growth_steps(workload)
    )


def fall_of(rates: Rates) -> Range:
    """Fall of API prices a year."""
    return rates("api_price_fall_per_year")
