"""A license against a stated use: what it asks, what forbids, what must be known first."""

import msgspec

from locavore.catalog.load import Catalog
from locavore.catalog.schema import License, Model, Obligation
from locavore.planner.workload import Workload


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody means to do with a model."""

    product: bool = True
    """False: internal use, nobody outside is served."""
    users: float | None = None
    """Monthly active users; None: not said."""
    revenue_usd_month: float | None = None
    distribute_weights: bool = False
    derivative: bool = False
    """Fine-tuned or otherwise changed weights."""
    train_other: bool = False
    """Its output trains another model."""
    region: str | None = None
    """Where the user or product is, ISO code or `EU`."""


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """One obligation that applies, or may apply once an open question is answered."""

    code: str
    text: str
    open_question: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a license says to a use. A summary for planning; the license text decides."""

    license: str
    name: str
    allowed: bool
    """False: some part of the use needs another agreement."""
    osi_approved: bool
    weights_open: bool
    duties: tuple[Duty, ...]
    forbidden: tuple[Duty, ...]
    undecided: tuple[Duty, ...]
    """Would forbid or oblige, depending on something that was not stated."""
    source: str


def use_of(workload: Workload) -> Use:
    """The use a plan states."""
    return Use(
        product=workload.use == "product",
        users=workload.users,
        distribute_weights=workload.distribute_weights,
        region="EU" if workload.region.split(".")[0] in _EU else None,
    )


_EU = frozenset({"EU", "DE", "FR", "IT", "ES", "NL", "PL", "SE", "BE", "AT", "IE", "DK", "FI"})


def check_model(catalog: Catalog, model: Model, use: Use) -> Verdict:
    """The verdict for a model's license."""
    return check(catalog, catalog.license(model.license), use)


def check(catalog: Catalog, license: License, use: Use) -> Verdict:  # noqa: A002
    """Each obligation of `license` that `use` meets."""
    duties: list[Duty] = []
    forbidden: list[Duty] = []
    undecided: list[Duty] = []
    for rule in license.obligations:
        if not _meets(rule, use):
            continue
        question = _question(rule, use)
        duty = Duty(code=rule.code, text=rule.text, open_question=question)
        if question:
            undecided.append(duty)
        elif rule.forbids:
            forbidden.append(duty)
        else:
            duties.append(duty)
    if use.product and not license.commercial and not forbidden:
        forbidden.append(Duty(code="commercial", text="no commercial use"))
    return Verdict(
        license=license.key,
        name=license.name,
        allowed=not forbidden,
        osi_approved=license.osi_approved,
        weights_open=license.weights_open,
        duties=tuple(duties),
        forbidden=tuple(forbidden),
        undecided=tuple(undecided),
        source=f"{catalog.cite(license.source)}, {license.as_of}",
    )


def _meets(rule: Obligation, use: Use) -> bool:
    stated = {
        "always": True,
        "product": use.product,
        "distribute_weights": use.distribute_weights,
        "derivative": use.derivative,
        "train_other": use.train_other,
    }
    if not any(stated[when] for when in rule.when):
        return False
    if rule.outside and (use.region is None or use.region not in rule.outside):
        return False
    if rule.users_above is not None and use.users is not None:
        return use.users > rule.users_above
    if rule.revenue_usd_month_above is not None and use.revenue_usd_month is not None:
        return use.revenue_usd_month > rule.revenue_usd_month_above
    return True


def _question(rule: Obligation, use: Use) -> str | None:
    """What must be known before this rule can be decided."""
    if rule.users_above is not None and use.users is None:
        return f"more than {rule.users_above:,} monthly active users?"
    if rule.revenue_usd_month_above is not None and use.revenue_usd_month is None:
        return f"more than {rule.revenue_usd_month_above:,} USD monthly revenue?"
    return None
