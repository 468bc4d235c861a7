"""The recommendation, with reasons for and against self-hosting, each with its figure."""

from collections.abc import Sequence

import msgspec

from locavore.catalog.load import Catalog
from locavore.planner.breakeven import BreakEven
from locavore.planner.cost import DESKTOP
from locavore.planner.licenses import Verdict
from locavore.planner.search import Option, Refused
from locavore.planner.units import money
from locavore.planner.workload import Workload

LOW_UTILIZATION = 0.3
SURE = 0.8
LIKELY = 0.5


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, and why."""

    choice: str
    """Name of the option; `none` when nothing meets the limits."""
    self_host: bool
    summary: str
    reasons_for: tuple[str, ...] = ()
    """Reasons for self-hosting."""
    reasons_against: tuple[str, ...] = ()


def recommend(
    catalog: Catalog,
    workload: Workload,
    best: Option | None,
    rival: Option | None,
    evens: Sequence[BreakEven],
    verdicts: Sequence[Verdict],
    refused: Sequence[Refused],
) -> Recommendation:
    """Self-host when it probably is cheaper and can be run; or when nothing else is allowed."""
    even = next((row for row in evens if rival is not None and row.against == rival.name), None)
    pro = _for(workload, best, rival, even)
    contra = _against(catalog, workload, best, rival, even, verdicts, refused)
    if best is None and rival is None:
        return Recommendation(
            choice="none",
            self_host=False,
            summary="Nothing meets these limits; the list of refusals says which limit binds.",
            reasons_against=tuple(contra),
        )
    own = best is not None and (rival is None or _worth_it(catalog, workload, best, even))
    chosen = best if own else rival
    name = chosen.name if chosen else "none"
    return Recommendation(
        choice=name,
        self_host=own,
        summary=_summary(own, best, rival, even),
        reasons_for=tuple(pro),
        reasons_against=tuple(contra),
    )


def _worth_it(catalog: Catalog, workload: Workload, best: Option, even: BreakEven | None) -> bool:
    if even is None or workload.stage == "prototype":
        return False
    needed = LIKELY if workload.engineers or at_a_desk(catalog, best) else SURE
    return min(even.probability_now, even.probability_horizon) >= needed


def at_a_desk(catalog: Catalog, option: Option) -> bool:
    """One desktop machine: nobody has to be hired for it."""
    device = catalog.hardware.get(option.machine or "")
    bill, _ = option.installation
    served = any(part.name == "infrastructure" for part in bill.components)
    return device is not None and device.kind in DESKTOP and not served


def _summary(own: bool, best: Option | None, rival: Option | None, even: BreakEven | None) -> str:
    if best is None and rival is not None:
        return f"Use {rival.name}: no installation meets these limits."
    if best is not None and rival is None:
        cost = f"{money(best.usd_month)} a month"
        return f"Self-host: {best.name}, {cost}; no API is allowed or good enough."
    if best is None or rival is None or even is None:
        return "No comparison is possible."
    chance = f"self-hosting is cheaper with probability {even.probability_horizon:.0%}"
    costs = f"{money(best.usd_month)} against {money(rival.usd_month)} a month"
    if own:
        return f"Self-host: {best.name}. Against {rival.name}: {costs}; {chance} over the horizon."
    return f"Use {rival.name}. Against {best.name}: {costs}; {chance} over the horizon."


def _for(
    workload: Workload, best: Option | None, rival: Option | None, even: BreakEven | None
) -> list[str]:
    found = []
    if workload.privacy != "any":
        where = "your own machines" if workload.privacy == "on_prem" else "machines you control"
        found.append(f"privacy: data stays on {where}; no API is allowed")
    if best is not None and rival is not None and best.usd_month < rival.usd_month:
        saved = rival.usd_month - best.usd_month
        found.append(f"cost: {money(saved)} a month less than {rival.name}")
    if best is not None and best.capacity is not None:
        use = best.capacity.utilization
        if use >= LOW_UTILIZATION:
            found.append(f"utilization: {use:.0%} of the machines' capacity in the used hours")
    if even is not None and even.months is not None and even.months <= workload.horizon_months:
        found.append(f"money paid up front is back after {even.months:.1f} months")
    if best is not None and best.kind == "own":
        cash = _cash(best)
        power = "its power is not in the catalog, so electricity is not counted"
        if cash is not None:
            power = f"electricity is {money(cash)} a month"
        found.append(f"the machine already stands there: {power}")
    return found


def _against(
    catalog: Catalog,
    workload: Workload,
    best: Option | None,
    rival: Option | None,
    even: BreakEven | None,
    verdicts: Sequence[Verdict],
    refused: Sequence[Refused],
) -> list[str]:
    found = []
    if best is not None and rival is not None and best.usd_month >= rival.usd_month:
        more = best.usd_month - rival.usd_month
        found.append(f"cost: {money(more)} a month more than {rival.name}")
    if best is not None and best.capacity is not None:
        use = best.capacity.utilization
        if use < LOW_UTILIZATION:
            found.append(f"utilization: the machines idle {1 - use:.0%} of the used hours")
    effective = _effective_context(catalog, best)
    if effective is not None and effective < workload.context_tokens:
        found.append(
            f"context: quality holds to {effective:,} tokens as published,"
            f" {workload.context_tokens - effective:,} fewer than asked"
        )
    if even is not None and even.reason:
        found.append(f"break-even: {even.reason}")
    if not workload.engineers and best is not None and not at_a_desk(catalog, best):
        hours = _engineering(best)
        found.append(f"engineering: nobody is there to run it, and {hours} are needed")
    if workload.stage == "prototype":
        found.append("stage: a prototype's volume is a guess; an API costs nothing while it waits")
    if workload.growth_year > 0.5 and best is not None:
        found.append(f"growth of {workload.growth_year:.0%} a year: machines bought now get small")
    found += [
        f"license {verdict.name}: {duty.open_question} then {duty.text}"
        for verdict in verdicts
        for duty in verdict.undecided
    ]
    found += [f"{row.name}: {row.reason}" for row in refused if row.reason.startswith("license")]
    return found


def _effective_context(catalog: Catalog, best: Option | None) -> int | None:
    model = catalog.models.get(best.model) if best is not None else None
    figure = model.shape.effective_context if model and model.shape else None
    return int(figure.value) if figure else None


def _cash(best: Option) -> float | None:
    bill, _ = best.installation
    parts = [part.mean for part in bill.components if part.name == "electricity"]
    return sum(parts) if parts else None


def _engineering(best: Option) -> str:
    bill, _ = best.installation
    part = next((part for part in bill.components if part.name == "engineering"), None)
    return part.formula.split(" x ")[0] + " hours a month" if part else "some hours"
