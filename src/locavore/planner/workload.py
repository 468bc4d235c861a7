"""What is asked of the models: volume, concurrency, latency, quality, limits, and for how long."""

import functools
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from locavore.catalog.load import load, task_benchmarks
from locavore.core.errors import ConfigError
from locavore.planner import units

Privacy = Literal["any", "private_cloud", "on_prem"]


class Slice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the calls with a task of its own."""

    task: str
    share: float
    min_quality: float = 0.9
    """Share of the best API's published score that a local model must reach."""


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One workload; every field that was not given has a default that is reported as assumed."""

    name: str = "workload"
    task: str = "chat"
    input_tokens_day: float
    output_tokens_day: float
    cached_share: float = 0.0
    """Share of input tokens a provider's prompt cache would serve."""
    input_tokens_call: float = 1000.0
    output_tokens_call: float = 300.0
    peak_concurrency: float | None = None
    """Calls in flight at the busiest moment; None: from volume and hours."""
    hours_day: float = 24.0
    """Hours a day in which the calls come."""
    peak_factor: float = 3.0
    """Busiest moment over the mean of the used hours."""
    context_tokens: int = 8192
    min_tokens_s_user: float = 10.0
    max_ttft_s: float | None = None
    min_quality: float | None = None
    """Share of the items of the task's benchmark a model must get right."""
    min_elo: float | None = None
    privacy: Privacy = "any"
    use: Literal["internal", "product"] = "product"
    users: float | None = None
    """Monthly active users, for licenses."""
    distribute_weights: bool = False
    growth_year: float = 0.0
    """Growth of the volume per year: 0.5 is 50 %."""
    horizon_months: int = 36
    region: str = "EU.business"
    """Key of an electricity rate."""
    electricity_usd_kwh: float | None = None
    """Overrides the region's rate."""
    engineers: bool = True
    """Somebody who can run inference servers is there."""
    stage: Literal["prototype", "growing", "steady"] = "steady"
    models: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    """Machines to buy or rent, such as `2x RTX 4090`; empty: the usual ones."""
    owned: tuple[str, ...] = ()
    """Machines that already stand there; `this` is the one this runs on."""
    apis: tuple[str, ...] = ()
    """`provider/model` of the APIs to compare; empty: the current ones."""
    slices: tuple[Slice, ...] = ()

    @property
    def tokens_day(self) -> float:
        return self.input_tokens_day + self.output_tokens_day

    @property
    def tokens_month(self) -> float:
        return self.tokens_day * units.DAYS_PER_MONTH

    @property
    def output_share(self) -> float:
        return self.output_tokens_day / self.tokens_day

    @property
    def mean_output_tokens_s(self) -> float:
        """Over the hours in use."""
        return self.output_tokens_day / (self.hours_day * 3600)

    @property
    def peak_output_tokens_s(self) -> float:
        return self.mean_output_tokens_s * self.peak_factor

    @property
    def concurrency(self) -> float:
        """Calls in flight at the peak: given, or enough to generate it at the asked speed."""
        if self.peak_concurrency is not None:
            return self.peak_concurrency
        return max(1.0, self.peak_output_tokens_s / self.min_tokens_s_user)


_POSITIVE = {
    "input_tokens_call": 1e8, "output_tokens_call": 1e7, "hours_day": 24.0, "peak_factor": 1000.0,
    "context_tokens": 2e9, "min_tokens_s_user": 1e5, "horizon_months": 240,
}  # fmt: skip
_FROM_ZERO = {
    "input_tokens_day": 1e15, "output_tokens_day": 1e15, "cached_share": 1.0, "min_quality": 1.0,
    "growth_year": 100.0, "electricity_usd_kwh": 10.0, "users": 1e11, "peak_concurrency": 1e7,
    "max_ttft_s": 3600.0,
}  # fmt: skip


def validated(workload: Workload) -> Workload:
    """The workload itself; ConfigError lists every value that cannot be."""
    problems: list[str] = []
    for limits, zero in ((_POSITIVE, False), (_FROM_ZERO, True)):
        for name, most in limits.items():
            value = getattr(workload, name)
            if value is not None:
                problems += _problem(value, name, most, zero)
    if workload.tokens_day <= 0 and not problems:
        problems.append("input_tokens_day and output_tokens_day are both 0; give a volume")
    if workload.cached_share == 1 and not workload.output_tokens_day and not problems:
        problems.append("cached_share is 1 and output_tokens_day 0; nothing is computed")
    total = sum(part.share for part in workload.slices)
    if workload.slices and abs(total - 1) > 0.01:
        problems.append(f"shares of slices add to {total:g}; they must add to 1")
    if workload.input_tokens_call + workload.output_tokens_call > workload.context_tokens:
        problems.append(
            f"a call of {workload.input_tokens_call:g} + {workload.output_tokens_call:g} tokens"
            f" does not fit context_tokens = {workload.context_tokens}"
        )
    if problems:
        raise ConfigError(problems)
    return workload


def known_task(task: str, *, what: str) -> str:
    """The task itself; ConfigError for one that no benchmark and no model stands for."""
    if task not in _known_tasks():
        raise ConfigError([f"{what} is {task!r}; known: {', '.join(_known_tasks())}"])
    return task


@functools.cache
def _known_tasks() -> tuple[str, ...]:
    """Task classes of the gateway, and the tasks that small models are made for."""
    named = {row.task for row in load().task_models.values()}
    classes = (*task_benchmarks(), "embed")
    return (*classes, *sorted(named - set(classes)))


def _problem(value: float, name: str, most: float, zero: bool) -> list[str]:
    try:
        units.checked(float(value), what=name, most=most, zero=zero)
    except ConfigError as error:
        return error.problems
    return []


def from_file(path: Path) -> Workload:
    """A `workload.toml`; volumes may be written as `"10M/day"` or `"5B/month"`."""
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"there is no file {str(path)!r}"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: {error}"]) from None
    for key in ("input_tokens_day", "output_tokens_day"):
        if isinstance(facts.get(key), str):
            facts[key] = units.per_day(facts[key], what=f"{path}: {key}")
    try:
        found = msgspec.convert(facts, Workload)
    except msgspec.ValidationError as error:
        raise ConfigError([f"{path}: {error}"]) from None
    for task in (found.task, *(part.task for part in found.slices)):
        known_task(task, what=f"{path}: task")
    return validated(found)


def assumed(workload: Workload, given: set[str]) -> list[str]:
    """What a result rests on that nobody said: every default in use."""
    notes = []
    for field in msgspec.structs.fields(Workload):
        if field.name in given or field.name in (
            "name",
            "models",
            "machines",
            "owned",
            "apis",
            "slices",
        ):
            continue
        value = getattr(workload, field.name)
        if value is not None and not field.required:
            notes.append(f"{field.name} = {value:g}" if isinstance(value, float) else
                         f"{field.name} = {value}")  # fmt: skip
    if workload.peak_concurrency is None:
        notes.append(f"peak concurrency {workload.concurrency:.0f}, from volume, hours and speed")
    return notes
