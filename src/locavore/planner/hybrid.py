"""Which slices of the work a local model does well enough, and what the rest costs in the cloud."""

import msgspec

from locavore.catalog.load import Catalog, task_benchmarks
from locavore.planner.search import Option, kept_quality
from locavore.planner.workload import Slice, Workload


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """One slice and where it goes."""

    task: str
    share: float | None
    """Of the tokens; None: nobody said how much of this task there is."""
    where: str
    """`local`, `cloud`, or `unknown` when a score is missing on either side."""
    local_score: float | None
    cloud_score: float | None
    reason: str


class Hybrid(msgspec.Struct, frozen=True, kw_only=True):
    """A split between one installation and one API."""

    option: str
    api: str
    slices: tuple[Placed, ...]
    local_share: float | None = None
    usd_month: float | None = None
    """The installation, and the API for what stays in the cloud; None: shares were not given."""
    usd_month_cloud_only: float | None = None


def split(catalog: Catalog, workload: Workload, option: Option, api: Option) -> Hybrid:
    """Slices of the workload, or every task class when it names none."""
    parts = workload.slices or tuple(Slice(task=task, share=0.0) for task in task_benchmarks())
    placed = tuple(
        _place(catalog, part, option, api, known_share=bool(workload.slices)) for part in parts
    )
    if not workload.slices:
        return Hybrid(option=option.name, api=api.name, slices=placed)
    local = sum(part.share or 0.0 for part in placed if part.where == "local")
    return Hybrid(
        option=option.name,
        api=api.name,
        slices=placed,
        local_share=local,
        usd_month=(option.usd_month if local > 0 else 0.0) + (1 - local) * api.usd_month,
        usd_month_cloud_only=api.usd_month,
    )


def _place(
    catalog: Catalog, part: Slice, option: Option, api: Option, *, known_share: bool
) -> Placed:
    benchmark = task_benchmarks().get(part.task)
    ours = catalog.scores(option.model).get(benchmark or "")
    theirs = catalog.scores(api.model).get(benchmark or "")
    local = ours.value / 100 * kept_quality(catalog, option.quantization) if ours else None
    cloud = theirs.value / 100 if theirs else None
    where, reason = _decide(benchmark, local, cloud, part.min_quality)
    return Placed(
        task=part.task,
        share=part.share if known_share else None,
        where=where,
        local_score=local,
        cloud_score=cloud,
        reason=reason,
    )


def _decide(
    benchmark: str | None, local: float | None, cloud: float | None, floor: float
) -> tuple[str, str]:
    if benchmark is None:
        return "unknown", "no benchmark stands for this task"
    if local is None or cloud is None:
        side = "the local model" if local is None else "the API"
        return "unknown", f"{side} has no published score on {benchmark}; stays in the cloud"
    kept = local / cloud
    if kept >= floor:
        return "local", f"{kept:.0%} of the API's {benchmark}, {floor:.0%} asked"
    return "cloud", f"{kept:.0%} of the API's {benchmark}, {floor:.0%} asked"
