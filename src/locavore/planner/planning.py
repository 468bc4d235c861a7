"""From a workload to ranked ways to carry it, and whether self-hosting is one to take."""

from collections.abc import Collection

import msgspec

from locavore.catalog.load import Catalog, load
from locavore.core.errors import ConfigError
from locavore.core.money import Price
from locavore.planner import apis, candidates
from locavore.planner.advice import Recommendation, recommend
from locavore.planner.breakeven import (
    BreakEven,
    Curve,
    Draws,
    against_api,
    against_rent,
    curve,
    fall_of,
    own_draws,
)
from locavore.planner.cost import Rates
from locavore.planner.hybrid import Hybrid, split
from locavore.planner.licenses import Verdict
from locavore.planner.machines import Target, target
from locavore.planner.search import Option, Refused, default_targets, pareto, self_hosted
from locavore.planner.sensitivity import Sensitivity, sensitivity
from locavore.planner.workload import Workload, assumed, validated

SHOWN_REFUSED = 12


class TaskModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A small model made for the task, as its source states it."""

    name: str
    benchmark: str
    score: float | None
    cloud: str
    cloud_score: float | None
    cloud_price: str | None
    """List price of the cloud service, with its unit."""
    size_mb: float | None
    source: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a plan says; what was assumed and what is missing are part of it."""

    workload: Workload
    pareto: tuple[Option, ...]
    options: tuple[Option, ...]
    """Every option that meets the limits, cheapest first."""
    recommendation: Recommendation
    break_evens: tuple[BreakEven, ...]
    sensitivity: tuple[Sensitivity, ...]
    hybrid: Hybrid | None
    curve: Curve | None
    task_models: tuple[TaskModelRow, ...]
    licenses: tuple[Verdict, ...]
    refused: tuple[Refused, ...]
    """Combinations that cannot be, with the limit that binds."""
    missing: tuple[str, ...]
    """APIs without a known price."""
    assumptions: tuple[str, ...]
    price_list: str


def plan(
    workload: Workload,
    *,
    catalog: Catalog | None = None,
    rates: dict[str, float] | None = None,
    overlay: dict[str, Price] | None = None,
    given: Collection[str] = (),
) -> Plan:
    """Search, compare, advise. `rates` override catalog rates, `overlay` prices `provider/model`.

    given: names of the workload's fields that somebody set; the others are listed as assumed.
    ConfigError: a value that cannot be, or a name that is not known.
    """
    validated(workload)
    known = catalog or load()
    book = Rates(known, rates)
    closed, missing = candidates.closed_apis(known, workload, overlay)
    floor = candidates.floor_of(workload, closed)
    wanted, refused, verdicts = candidates.models(known, workload, floor)
    local, impossible = self_hosted(known, book, workload, wanted, _targets(known, workload))
    hosts = candidates.open_apis(known, workload, wanted)
    remote, turned_away = _allowed(known, workload, floor, closed + hosts)
    options = tuple(sorted(local + remote, key=lambda option: option.usd_month))
    best, rival = _finalists(local, remote)
    chosen = [v for m, v in zip(wanted, verdicts, strict=True) if best and m.name == best.model]
    draws = {option.name: own_draws(option, workload) for option in _compared(best, local)}
    evens = _break_evens(workload, book, best, local, remote, draws)
    return Plan(
        workload=workload,
        pareto=tuple(pareto(options)),
        options=options,
        recommendation=recommend(known, workload, best, rival, evens, chosen, refused),
        break_evens=tuple(evens),
        sensitivity=(
            sensitivity(known, book, best, rival.api, workload)
            if best is not None and rival is not None and rival.api is not None
            else ()
        ),
        hybrid=split(known, workload, best, _strongest(remote) or rival)
        if best is not None and rival is not None
        else None,
        curve=curve(best, _drawn(remote, rival), workload) if best is not None else None,
        task_models=_task_models(known, workload.task),
        licenses=tuple(_distinct(verdicts)),
        refused=tuple((refused + turned_away + impossible)[:SHOWN_REFUSED]),
        missing=tuple(missing),
        assumptions=tuple(_assumptions(workload, given, floor)),
        price_list=apis.version(),
    )


def _targets(catalog: Catalog, workload: Workload) -> list[tuple[Target, bool]]:
    """Machines to buy or rent, and those that stand there already."""
    found = [(target(catalog, name), False) for name in workload.machines]
    found += [(_measured(target(catalog, name)), True) for name in workload.owned]
    return found or default_targets(catalog)


def _measured(place: Target) -> Target:
    """This machine's memory bandwidth by a short copy, where no data sheet gives it."""
    if place.bandwidth_gbs is not None or place.kind != "cpu" or place.record is not None:
        return place
    from locavore.engines.machine import describe, engine_threads
    from locavore.planner.speed_measure import copy_bandwidth_gbs

    measured = copy_bandwidth_gbs(engine_threads(describe()))
    return msgspec.structs.replace(place, bandwidth_gbs=measured)


def _allowed(
    catalog: Catalog, workload: Workload, floor: candidates.Floor, remote: list[Option]
) -> tuple[list[Option], list[Refused]]:
    """APIs that privacy and quality permit."""
    if workload.privacy != "any":
        reason = f"privacy {workload.privacy}: data may not go to an API"
        return [], [Refused(name="every API", reason=reason)] if remote else []
    kept, refused = [], []
    for option in remote:
        below = floor.refuses(catalog, option.model, option.quality)
        if below:
            refused.append(Refused(name=option.name, reason=below))
        else:
            kept.append(option)
    return kept, refused


def _finalists(local: list[Option], remote: list[Option]) -> tuple[Option | None, Option | None]:
    """The cheapest installation and the cheapest API that is no worse."""
    best = min(local, key=lambda option: option.usd_month, default=None)
    if best is None:
        return None, min(remote, key=lambda option: option.usd_month, default=None)
    alike = [option for option in remote if _alike(option, best)]
    return best, min(alike or remote, key=lambda option: option.usd_month, default=None)


def _alike(option: Option, best: Option) -> bool:
    if option.model == best.model:
        return True
    if option.quality is None or best.quality is None:
        return False
    return option.quality >= best.quality - 0.05


def _strongest(remote: list[Option]) -> Option | None:
    scored = [option for option in remote if option.quality is not None]
    return max(scored, key=lambda option: option.quality or 0.0, default=None)


def _compared(best: Option | None, local: list[Option]) -> list[Option]:
    """The installation to advise on, and the cheapest rented machine beside it."""
    if best is None:
        return []
    rent = _rent_beside(best, local)
    return [best] if rent is None else [best, rent]


def _rent_beside(best: Option, local: list[Option]) -> Option | None:
    if best.kind != "buy":
        return None
    rents = [option for option in local if option.kind == "rent"]
    return min(rents, key=lambda option: option.usd_month, default=None)


def _break_evens(
    workload: Workload,
    rates: Rates,
    best: Option | None,
    local: list[Option],
    remote: list[Option],
    draws: dict[str, Draws],
) -> list[BreakEven]:
    if best is None:
        return []
    fall = fall_of(rates)
    evens = [against_api(best, api, workload, draws[best.name], fall) for api in remote]
    rent = _rent_beside(best, local)
    if rent is not None:
        evens.append(against_rent(best, rent, draws[best.name], draws[rent.name]))
    return evens


def _drawn(remote: list[Option], rival: Option | None) -> list[Option]:
    """APIs on the curve: the rival first, then the dearest of each kind."""
    found = [rival] if rival is not None else []
    for kind in ("closed_api", "open_api"):
        row = max(
            (option for option in remote if option.kind == kind),
            key=lambda option: option.usd_month,
            default=None,
        )
        if row is not None and row not in found:
            found.append(row)
    return found


def _distinct(verdicts: list[Verdict]) -> list[Verdict]:
    return list({verdict.license: verdict for verdict in verdicts}.values())


_TASK_NAMES = {
    "classify": "classification", "extract": "extraction", "qa": "question answering",
    "summarize": "summarization", "translate": "translation",
}  # fmt: skip


def _task_models(catalog: Catalog, task: str) -> tuple[TaskModelRow, ...]:
    wanted = _TASK_NAMES.get(task, task)
    return tuple(
        TaskModelRow(
            name=row.name,
            benchmark=row.benchmark,
            score=row.score.value if row.score else None,
            cloud=row.cloud,
            cloud_score=row.cloud_score.value if row.cloud_score else None,
            cloud_price=_unit_price(catalog, row.cloud_price),
            size_mb=row.size_mb.value if row.size_mb else None,
            source=catalog.cite(row.score.source) if row.score else "",
        )
        for row in catalog.task_models.values()
        if row.task == wanted
    )


def _unit_price(catalog: Catalog, key: str | None) -> str | None:
    if key is None:
        return None
    figure = catalog.rate(key).figure
    return f"{figure.value:g} {figure.unit}, {figure.as_of}"


def _assumptions(workload: Workload, given: Collection[str], floor: candidates.Floor) -> list[str]:
    notes = assumed(workload, set(given))
    if floor.assumed:
        notes.append(floor.assumed)
    if not workload.machines and not workload.owned:
        notes.append("machines: the usual ones with a price or rent in the catalog")
    notes.append("API prices without volume discounts or batch rebates")
    return notes


def impossible(found: Plan) -> ConfigError | None:
    """The error to show when nothing carries the workload; None: something does."""
    if found.options:
        return None
    reasons = [f"{row.name}: {row.reason}" for row in found.refused[:5]]
    return ConfigError(["nothing carries this workload", *reasons])
