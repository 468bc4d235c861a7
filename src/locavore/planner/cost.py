"""What a machine costs per month, part by part: each with its range, formula and source."""

import math

import msgspec

from locavore.catalog.load import Catalog
from locavore.catalog.schema import Figure, Hardware
from locavore.planner import units
from locavore.planner.workload import Workload

DESKTOP = ("consumer_gpu", "workstation_gpu", "apple", "apu", "cpu")
"""Kinds whose host is a desktop; the others stand in a server."""
SLOTS_DESKTOP = 4
SLOTS_SERVER = 8
MOST_AT_A_DESK = 10
"""Concurrent calls up to which one desktop needs no operations of its own."""


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a monthly bill, in US dollars."""

    name: str
    low: float
    mean: float
    high: float
    formula: str
    source: str


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """A monthly bill at the planned volume."""

    components: tuple[Component, ...]
    upfront_usd: float = 0.0
    """Paid at the start (already spread in the components)."""
    usd_mtok_variable: float = 0.0
    """What one more million tokens costs on the same machines: load over idle power."""
    missing: tuple[str, ...] = ()
    """Figures nobody has: left out, not zero."""

    @property
    def mean(self) -> float:
        return sum(part.mean for part in self.components)

    @property
    def low(self) -> float:
        return sum(part.low for part in self.components)

    @property
    def high(self) -> float:
        return sum(part.high for part in self.components)


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """A figure with its range and where it is from."""

    low: float
    mean: float
    high: float
    source: str


def ranged(catalog: Catalog, figure: Figure, *, spread: float = 0.0) -> Range:
    """The figure's own range; without one, plus and minus `spread`."""
    low = figure.low if figure.low is not None else figure.value * (1 - spread)
    high = figure.high if figure.high is not None else figure.value * (1 + spread)
    source = f"{catalog.sources[figure.source].title}, {figure.as_of}"
    return Range(low=low, mean=figure.value, high=high, source=source)


class Rates:
    """The catalog's rates as ranges, with the operator's overrides on top."""

    def __init__(self, catalog: Catalog, overrides: dict[str, float] | None = None) -> None:
        self.catalog = catalog
        self._overrides = overrides or {}
        for key in self._overrides:
            catalog.rate(key)  # ConfigError with the nearest names

    def __call__(self, key: str) -> Range:
        if key in self._overrides:
            value = self._overrides[key]
            return Range(low=value, mean=value, high=value, source="given on the command line")
        return ranged(self.catalog, self.catalog.rate(key).figure)

    def overridden(self, key: str) -> bool:
        return key in self._overrides

    def also(self, overrides: dict[str, float]) -> "Rates":
        """The same rates with more overrides."""
        return Rates(self.catalog, {**self._overrides, **overrides})

    def electricity_usd_kwh(self, workload: Workload) -> Range:
        if workload.electricity_usd_kwh is not None:
            value = workload.electricity_usd_kwh
            return Range(low=value, mean=value, high=value, source="given")
        euro = self(f"electricity.{workload.region}")
        rate = self("exchange.EUR_USD")
        return Range(
            low=euro.low * rate.low,
            mean=euro.mean * rate.mean,
            high=euro.high * rate.high,
            source=f"{euro.source}; {rate.source}",
        )


def power_w(catalog: Catalog, rates: Rates, device: Hardware, devices: int) -> tuple[Range, Range]:
    """(idle, load) watts of a whole machine with `devices` of them."""
    known = device.power.load_w
    host = rates("host_power_w.desktop" if device.kind in DESKTOP else "host_power_w.server")
    if known is not None:
        one = ranged(catalog, known, spread=0.1)
        extra = max(0.0, one.mean - host.mean) * (devices - 1)
        load = _shifted(one, extra)
    elif device.power.tdp_w is not None:
        share = rates("gpu_load_share_of_tdp")
        tdp = device.power.tdp_w.value
        load = Range(
            low=devices * tdp * share.low + host.low,
            mean=devices * tdp * share.mean + host.mean,
            high=devices * tdp * share.high + host.high,
            source=f"{share.source}; {host.source}",
        )
    elif device.kind == "cpu":
        load = host
    else:
        return _zero(), _zero()
    if device.power.idle_w is not None:
        return ranged(catalog, device.power.idle_w, spread=0.1), load
    part = rates("idle_share_of_load")
    idle = Range(
        low=load.low * part.low, mean=load.mean * part.mean, high=load.high * part.high,
        source=part.source,
    )  # fmt: skip
    return idle, load


def _shifted(one: Range, extra: float) -> Range:
    factor = (one.mean + extra) / one.mean
    return Range(
        low=one.low * factor, mean=one.mean * factor, high=one.high * factor, source=one.source
    )


def _zero() -> Range:
    return Range(low=0, mean=0, high=0, source="")


def hosts(device: Hardware, devices: int, replicas: int) -> int:
    """Machines around `devices` in `replicas`: small replicas share one."""
    if device.whole_machine:
        return replicas
    return math.ceil(devices / (SLOTS_DESKTOP if device.kind in DESKTOP else SLOTS_SERVER))


def owned(
    catalog: Catalog,
    rates: Rates,
    device: Hardware,
    *,
    devices: int,
    machines: int,
    workload: Workload,
    utilization: float,
    already_owned: bool = False,
) -> Bill | None:
    """Buying `devices` devices in `machines` machines; None: no price is known."""
    if device.price_usd is None and not already_owned:
        return None
    parts: list[Component] = []
    upfront = 0.0
    if not already_owned and device.price_usd is not None:
        price = ranged(catalog, device.price_usd, spread=0.1)
        amortization, upfront = _amortization(price, rates, device, devices, machines)
        parts.append(amortization)
    missing: list[str] = []
    energy = _electricity(catalog, rates, device, devices, machines, workload, utilization)
    variable = 0.0
    if energy is None:
        missing.append(f"power of {device.name}")
    else:
        parts.append(energy)
        still = _electricity(catalog, rates, device, devices, machines, workload, 0.0)
        if still is not None:
            variable = (energy.mean - still.mean) / (workload.tokens_month / 1e6)
    desk = device.kind in DESKTOP and machines == 1 and workload.concurrency <= MOST_AT_A_DESK
    parts += operations(rates, devices, machines, desk=desk)
    return Bill(
        components=tuple(parts),
        upfront_usd=upfront,
        usd_mtok_variable=variable,
        missing=tuple(missing),
    )


def _amortization(
    price: Range, rates: Rates, device: Hardware, devices: int, machines: int
) -> tuple[Component, float]:
    months, resale = rates("amortisation_months"), _resale(rates, device)
    host = _zero()
    if not device.whole_machine:
        host = rates(
            "host_price_usd.desktop" if device.kind in DESKTOP else "host_price_usd.server"
        )
    count = devices
    total = Range(
        low=count * price.low + machines * host.low,
        mean=count * price.mean + machines * host.mean,
        high=count * price.high + machines * host.high,
        source=price.source,
    )
    part = Component(
        name="hardware",
        low=total.low * (1 - resale.high) / months.high,
        mean=total.mean * (1 - resale.mean) / months.mean,
        high=total.high * (1 - resale.low) / months.low,
        formula=(
            f"({count} x {price.mean:,.0f} + {machines} x {host.mean:,.0f} host)"
            f" x (1 - {resale.mean:g} resale) / {months.mean:g} months"
        ),
        source=f"{price.source}; {resale.source}",
    )
    return part, total.mean


def _resale(rates: Rates, device: Hardware) -> Range:
    """The device's own published resale value; without one, or when overridden, the rate."""
    if device.resale_share_3y is None or rates.overridden("resale_share"):
        return rates("resale_share")
    return ranged(rates.catalog, device.resale_share_3y, spread=0.3)


def _electricity(
    catalog: Catalog,
    rates: Rates,
    device: Hardware,
    devices: int,
    machines: int,
    workload: Workload,
    utilization: float,
) -> Component | None:
    idle, load = power_w(catalog, rates, device, max(1, round(devices / machines)))
    if load.mean == 0:
        return None
    price = rates.electricity_usd_kwh(workload)
    pue = rates("pue")
    busy = min(1.0, utilization) * workload.hours_day / 24
    hours = units.HOURS_PER_MONTH * machines / 1000

    def month(i: float, w: float, kwh: float, room: float) -> float:
        return hours * (busy * w + (1 - busy) * i) * kwh * room

    return Component(
        name="electricity",
        low=month(idle.low, load.low, price.low, pue.low),
        mean=month(idle.mean, load.mean, price.mean, pue.mean),
        high=month(idle.high, load.high, price.high, pue.high),
        formula=(
            f"730 h x {machines} x ({busy:.2f} x {load.mean:,.0f} W + {1 - busy:.2f} x"
            f" {idle.mean:,.0f} W) x {price.mean:.3f} USD/kWh x {pue.mean:g}"
        ),
        source=f"{load.source}; {price.source}",
    )


def rented(
    catalog: Catalog, rates: Rates, device: Hardware, *, devices: int, machines: int
) -> Bill | None:
    """Renting `devices` devices around the clock; None: no rent is known."""
    if device.rent_usd_hour is None:
        return None
    hourly = ranged(catalog, device.rent_usd_hour, spread=0.15)
    hours = units.HOURS_PER_MONTH * devices
    rent = Component(
        name="rent",
        low=hourly.low * hours,
        mean=hourly.mean * hours,
        high=hourly.high * hours,
        formula=f"{devices} x {hourly.mean:g} USD/h x 730 h",
        source=hourly.source,
    )
    return Bill(components=(rent, *operations(rates, devices, machines, desk=False)))


def operations(rates: Rates, devices: int, machines: int, *, desk: bool) -> tuple[Component, ...]:
    """People and upkeep: engineering, on-call, updates, evaluation, infrastructure.

    `desk`: one machine that serves a handful of people, kept up by somebody who has it anyway.
    """
    hour = rates("engineering_usd_hour")
    if desk:
        hours = rates("engineering_hours_month.workstation")
        parts = [_product("engineering", hours, hour, "h/month x USD/h")]
        parts.append(_one("evaluation", rates("evaluation_usd_month.small")))
        return tuple(part for part in parts if part.high > 0)
    base, more = rates("engineering_hours_month.small"), rates("engineering_hours_month.per_gpu")
    hours = _plus(base, more, devices - 1)
    infrastructure = _plus(
        rates("infrastructure_usd_month.base"), rates("infrastructure_usd_month.per_gpu"),
        devices - 1,
    )  # fmt: skip
    update, yearly = rates("update_hours"), rates("updates_per_year")
    on_call = rates("on_call_usd_month.per_server")
    return (
        _product("engineering", hours, hour, "h/month x USD/h"),
        _one("infrastructure", infrastructure),
        _product("on-call", on_call, _times(machines), "USD/month x machines"),
        Component(
            name="model updates",
            low=update.low * yearly.low * hour.low / 12,
            mean=update.mean * yearly.mean * hour.mean / 12,
            high=update.high * yearly.high * hour.high / 12,
            formula=f"{update.mean:g} h x {yearly.mean:g}/year x {hour.mean:g} USD/h / 12",
            source=f"{update.source}; {yearly.source}",
        ),
        _one("evaluation", rates("evaluation_usd_month")),
    )


def _plus(base: Range, more: Range, times: int) -> Range:
    return Range(
        low=base.low + times * more.low,
        mean=base.mean + times * more.mean,
        high=base.high + times * more.high,
        source=base.source,
    )


def _times(count: int) -> Range:
    return Range(low=count, mean=count, high=count, source="number of machines")


def _product(name: str, left: Range, right: Range, unit: str) -> Component:
    return Component(
        name=name,
        low=left.low * right.low,
        mean=left.mean * right.mean,
        high=left.high * right.high,
        formula=f"{left.mean:g} x {right.mean:g} ({unit})",
        source=f"{left.source}; {right.source}",
    )


def _one(name: str, figure: Range) -> Component:
    return Component(
        name=name,
        low=figure.low,
        mean=figure.mean,
        high=figure.high,
        formula=f"{figure.mean:,.0f} USD/month",
        source=figure.source,
    )
