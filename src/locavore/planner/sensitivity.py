"""Which assumption turns the answer: the saving recomputed at both ends of each range."""

from collections.abc import Callable

import msgspec

from locavore.catalog.load import Catalog
from locavore.planner.apis import Api
from locavore.planner.breakeven import api_horizon, fall_of, own_horizon
from locavore.planner.cost import Rates
from locavore.planner.search import Option, rebilled
from locavore.planner.workload import Workload

GROWTHS = (0.0, 1.0)
VOLUMES = (0.5, 2.0)


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """What one assumption moves: the monthly saving over the horizon at its two ends."""

    factor: str
    low: float
    high: float
    unit: str
    saving_low_usd_month: float
    """Mean monthly saving of self-hosting with the factor at `low`; negative: it costs more."""
    saving_high_usd_month: float

    @property
    def turns(self) -> bool:
        """Whether the answer changes between the two ends."""
        return (self.saving_low_usd_month > 0) != (self.saving_high_usd_month > 0)


def sensitivity(
    catalog: Catalog, rates: Rates, option: Option, api: Api, workload: Workload
) -> tuple[Sensitivity, ...]:
    """Each factor alone, the others at their central figures; the strongest first."""
    fall = fall_of(rates)
    power = rates.electricity_usd_kwh(workload)
    found = [
        _factor("fall of API prices a year", fall.low, fall.high, "share",
                lambda x: saving(option, api, workload, x)),
        _factor("growth of the volume a year", *GROWTHS, "share",
                lambda x: saving(option, api, _with(workload, growth_year=x), fall.mean)),
        _factor("volume over the stated volume", *VOLUMES, "ratio",
                lambda x: saving(_busier(option, x), api, _scaled(workload, x), fall.mean)),
    ]  # fmt: skip
    if workload.output_share > 0:
        ends = workload.output_share / 2, min(1.0, workload.output_share * 2)
        found.append(_factor("share of output tokens", *ends, "share",
                             lambda x: _mixed(option, api, workload, x, fall.mean)))  # fmt: skip
    for key, name in (
        ("resale_share", "resale value"), ("engineering_usd_hour", "engineering hour"),
        (_hours_key(option), "engineering hours a month"),
        ("amortisation_months", "amortization"),
    ):  # fmt: skip
        span = rates(key)
        unit = catalog.rate(key).figure.unit
        priced = [_repriced(catalog, rates, option, api, workload, {key: x})
                for x in (span.low, span.high)]  # fmt: skip
        if priced[0] is not None and priced[1] is not None:
            found.append(_made(name, span.low, span.high, unit, priced[0], priced[1]))
    dear = [
        _repriced(catalog, rates, option, api, _with(workload, electricity_usd_kwh=x), {})
        for x in (power.low, power.high * 2)
    ]
    if dear[0] is not None and dear[1] is not None:
        found.append(_made("electricity", power.low, power.high * 2, "USD/kWh", dear[0], dear[1]))
    found.sort(key=lambda row: -abs(row.saving_high_usd_month - row.saving_low_usd_month))
    return tuple(found)


def _hours_key(option: Option) -> str:
    bill, _ = option.installation
    served = any(part.name == "infrastructure" for part in bill.components)
    return "engineering_hours_month." + ("small" if served else "workstation")


def saving(option: Option, api: Api, workload: Workload, fall: float) -> float:
    """Mean US dollars a month that the option saves against the API over the horizon."""
    return api.usd_month(workload) * api_horizon(workload, fall) - own_horizon(option, workload)


def _factor(
    name: str, low: float, high: float, unit: str, at: Callable[[float], float]
) -> Sensitivity:
    return _made(name, low, high, unit, at(low), at(high))


def _made(
    name: str, low: float, high: float, unit: str, at_low: float, at_high: float
) -> Sensitivity:
    return Sensitivity(
        factor=name,
        low=low,
        high=high,
        unit=unit,
        saving_low_usd_month=at_low,
        saving_high_usd_month=at_high,
    )


def _with(workload: Workload, **changes: float) -> Workload:
    return msgspec.structs.replace(workload, **changes)


def _scaled(workload: Workload, factor: float) -> Workload:
    return _with(
        workload,
        input_tokens_day=workload.input_tokens_day * factor,
        output_tokens_day=workload.output_tokens_day * factor,
    )


def _busier(option: Option, factor: float) -> Option:
    _, capacity = option.installation
    busier = msgspec.structs.replace(capacity, utilization=capacity.utilization * factor)
    return msgspec.structs.replace(option, capacity=busier)


def _mixed(option: Option, api: Api, workload: Workload, share: float, fall: float) -> float:
    """The same tokens with another share of output, which is what keeps a machine busy."""
    total = workload.tokens_day
    mixed = _with(workload, input_tokens_day=total * (1 - share), output_tokens_day=total * share)
    return saving(_busier(option, share / workload.output_share), api, mixed, fall)


def _repriced(
    catalog: Catalog,
    rates: Rates,
    option: Option,
    api: Api,
    workload: Workload,
    overrides: dict[str, float],
) -> float | None:
    other = rebilled(catalog, rates.also(overrides), option, workload)
    if other is None:
        return None
    return saving(other, api, workload, fall_of(rates).mean)
