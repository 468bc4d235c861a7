"""All ways to carry a workload: models x files x machines x counts, and the APIs beside them."""

from collections.abc import Iterable, Iterator

import msgspec

from locavore.catalog.load import Catalog, task_benchmarks
from locavore.catalog.schema import Figure, Hardware, Model, Shape
from locavore.core.errors import LocavoreError
from locavore.planner import memory
from locavore.planner.apis import Api
from locavore.planner.carrying import Capacity, carried, engine_for, plan_setting
from locavore.planner.cost import DESKTOP, SLOTS_DESKTOP, Bill, Rates, hosts, owned, rented
from locavore.planner.fitting import available_bytes, needed_bytes
from locavore.planner.machines import Target, from_record
from locavore.planner.workload import Workload

MACHINES = (
    "RTX 3090", "RTX 4090", "RTX 5090", "RTX PRO 6000", "L40S", "A100 SXM 80GB",
    "H100 SXM 80GB", "H200 SXM", "MI300X", "Strix Halo 8060S",
)  # fmt: skip
"""Tried when the workload names no machine: those with a price or a rent in the catalog."""
COUNTS = (1, 2, 4, 8)
FILES = {"vllm": ("FP8", "AWQ"), "llama": ("Q8_0", "Q4_K_M")}
MOST_REPLICAS = 64


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One way to carry the workload."""

    name: str
    kind: str
    """`buy`, `own`, `rent`, `closed_api` or `open_api`."""
    model: str
    quality: float | None
    """Published score on the task's benchmark, a share; None: not published."""
    usd_month: float
    usd_month_low: float
    usd_month_high: float
    usd_mtok: float
    bill: Bill | None = None
    api: Api | None = None
    capacity: Capacity | None = None
    quantization: str | None = None
    engine: str | None = None
    machine: str | None = None
    devices: int = 0
    """In all replicas together."""
    memory_bytes: int | None = None
    """On the fullest device."""
    notes: tuple[str, ...] = ()

    @property
    def local(self) -> bool:
        return self.api is None

    @property
    def installation(self) -> tuple[Bill, Capacity]:
        """Bill and capacity of a self-hosted option."""
        if self.bill is None or self.capacity is None:
            raise TypeError(f"{self.name} is no installation of one's own")
        return self.bill, self.capacity


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A combination that cannot be, and by how much."""

    name: str
    reason: str


def quality(catalog: Catalog, name: str, task: str, quant: str | None = None) -> float | None:
    """Published score of a model on the task's benchmark; a file's published loss taken off."""
    benchmark = task_benchmarks().get(task, "MMLU-Redux")
    scored = catalog.scores(name).get(benchmark)
    if scored is None:
        return None
    return scored.value / 100 * kept_quality(catalog, quant)


def kept_quality(catalog: Catalog, quant: str | None) -> float:
    """Share of the benchmark average that a file keeps, as published for Llama 3.1 8B; else 1."""
    rows = {row.quantization: row.benchmark_average for row in catalog.quantization_quality}
    full, mine = rows.get("F16"), rows.get(quant or "")
    return mine.value / full.value if full and mine else 1.0


def api_option(catalog: Catalog, api: Api, workload: Workload, model: str) -> Option:
    """An API as an option: nothing but the bill at its list price."""
    cost = api.usd_month(workload)
    return Option(
        name=api.name,
        kind=f"{api.kind}_api",
        model=model,
        quality=quality(catalog, model, workload.task),
        usd_month=cost,
        usd_month_low=cost,
        usd_month_high=cost,
        usd_mtok=api.usd_mtok(workload),
        api=api,
        notes=(f"list price, {api.source}" + (f", {api.as_of}" if api.as_of else ""),),
    )


def self_hosted(
    catalog: Catalog,
    rates: Rates,
    workload: Workload,
    models: Iterable[Model],
    targets: Iterable[tuple[Target, bool]],
) -> tuple[list[Option], list[Refused]]:
    """Every model on every machine (`True`: already owned), in the smallest count that holds it."""
    options: list[Option] = []
    refused: list[Refused] = []
    machines = list(targets)
    for model in models:
        for target, mine in machines:
            found, reason = _best_here(catalog, rates, workload, model, target, mine)
            options += found
            if not found:
                name = f"{model.name} on {target.name}"
                refused.append(Refused(name=name, reason=reason or "no price, rent or speed"))
    return options, refused


def default_targets(catalog: Catalog) -> list[tuple[Target, bool]]:
    """The usual machines, bought or rented."""
    return [(from_record(catalog, catalog.hardware[name]), False) for name in MACHINES]


def _best_here(
    catalog: Catalog, rates: Rates, workload: Workload, model: Model, target: Target, mine: bool
) -> tuple[list[Option], str | None]:
    shape = model.shape
    if shape is None:
        return [], f"the shape of {model.name} is not in the catalog"
    if workload.context_tokens > shape.context_tokens:
        over = workload.context_tokens - shape.context_tokens
        return [], (
            f"context: trained for {shape.context_tokens:,} tokens, {over:,} fewer than asked"
        )
    engine = engine_for(workload, target)
    files: tuple[str, ...] = FILES["vllm" if engine == "vllm" else "llama"]
    if shape.architecture == "gpt-oss" and engine != "vllm":
        files = ("MXFP4_MOE",)
    found: list[Option] = []
    reason: str | None = None
    for file in files:
        counts = _counts(target, mine)
        for count in counts:
            place = msgspec.structs.replace(target, devices=count)
            made, why = _option(catalog, rates, workload, model, shape, place, file, engine, mine)
            reason = why or reason
            if made:
                found += made
                break
    return found, reason


def _counts(target: Target, mine: bool) -> tuple[int, ...]:
    """Devices of one replica that are tried."""
    whole = target.record is not None and target.record.whole_machine
    if mine or whole:
        return (target.devices,)
    return tuple(n for n in COUNTS if n <= SLOTS_DESKTOP or target.kind not in DESKTOP)


def _option(
    catalog: Catalog,
    rates: Rates,
    workload: Workload,
    model: Model,
    shape: Shape,
    target: Target,
    file: str,
    engine: str,
    mine: bool,
) -> tuple[list[Option], str | None]:
    setting = plan_setting(workload, target, file, engine)
    needed = needed_bytes(shape, setting, memory.footprint(shape, setting))
    available = available_bytes(target, setting)
    if needed > available:
        missing = (needed - available) / memory.GIB
        return [], f"memory: {missing:.1f} GiB missing per device with {target.label}, {file}"
    try:
        capacity = carried(workload, shape, model.name, target, setting)
    except LocavoreError as error:
        return [], error.message
    slow = too_slow(workload, capacity)
    if slow:
        return [], f"{slow} on {target.label}, {file}"
    if capacity.replicas > MOST_REPLICAS:
        return [], (
            f"{capacity.binds}: {capacity.replicas} replicas of {target.label} needed, "
            f"{capacity.replicas - MOST_REPLICAS} more than the {MOST_REPLICAS} planned for"
        )
    bills = _bills(catalog, rates, workload, target, capacity, mine)
    if not bills:
        return [], f"{target.name} has neither price nor rent in the catalog"
    score = quality(catalog, model.name, workload.task, file)
    devices = target.devices * capacity.replicas
    million = workload.tokens_month / 1e6
    notes = [f"{engine}, {file}, {workload.context_tokens:,} tokens of context"]
    return [
        Option(
            name=f"{model.name} {file} on {devices}x {target.name} ({kind})",
            kind=kind,
            model=model.name,
            quality=score,
            usd_month=bill.mean,
            usd_month_low=bill.low,
            usd_month_high=bill.high,
            usd_mtok=bill.mean / million,
            bill=bill,
            capacity=capacity,
            quantization=file,
            engine=engine,
            machine=target.name,
            devices=devices,
            memory_bytes=needed,
            notes=tuple(notes + [f"not counted: {what}" for what in bill.missing]),
        )
        for kind, bill in bills
    ], None


def too_slow(workload: Workload, capacity: Capacity) -> str | None:
    """The latency limit that even one call at a time misses, and by how much."""
    stream, wanted = capacity.stream_tokens_s.mean, workload.min_tokens_s_user
    if stream < wanted:
        return f"speed: {stream:.1f} tokens/s per user, {wanted - stream:.1f} fewer than asked"
    most = workload.max_ttft_s
    if most is not None and capacity.ttft_s.mean > most:
        late = capacity.ttft_s.mean - most
        return f"first token: after {capacity.ttft_s.mean:.2f} s, {late:.2f} s later than asked"
    return None


def _bills(
    catalog: Catalog,
    rates: Rates,
    workload: Workload,
    target: Target,
    capacity: Capacity,
    mine: bool,
) -> list[tuple[str, Bill]]:
    device = target.record or Hardware(
        name=target.name, kind=target.kind, memory_gb=_unknown_memory(catalog, target)
    )
    devices = target.devices * capacity.replicas
    machines = hosts(device, devices, capacity.replicas)
    bought = owned(
        catalog,
        rates,
        device,
        devices=devices,
        machines=machines,
        workload=workload,
        utilization=capacity.utilization,
        already_owned=mine,
    )
    found: list[tuple[str, Bill | None]] = [("own" if mine else "buy", bought)]
    if not mine and workload.privacy != "on_prem":
        found.append(("rent", rented(catalog, rates, device, devices=devices, machines=machines)))
    return [(kind, bill) for kind, bill in found if bill is not None]


def _unknown_memory(catalog: Catalog, target: Target) -> Figure:
    source, rate = next(iter(catalog.rates.values())).figure.source, target.memory_bytes / 2**30
    as_of = next(iter(catalog.rates.values())).figure.as_of
    return Figure(value=rate, unit="GiB", source=source, as_of=as_of)


def rebilled(catalog: Catalog, rates: Rates, option: Option, workload: Workload) -> Option | None:
    """The same machines at other rates; None: the machine is not a catalog device."""
    device = catalog.hardware.get(option.machine or "")
    if device is None:
        return None
    _, capacity = option.installation
    machines = hosts(device, option.devices, capacity.replicas)
    if option.kind == "rent":
        bill = rented(catalog, rates, device, devices=option.devices, machines=machines)
    else:
        bill = owned(
            catalog,
            rates,
            device,
            devices=option.devices,
            machines=machines,
            workload=workload,
            utilization=capacity.utilization,
            already_owned=option.kind == "own",
        )
    return msgspec.structs.replace(option, bill=bill) if bill is not None else None


def pareto(options: Iterable[Option]) -> list[Option]:
    """Options no other beats in cost, quality and speed per user together; cheapest first."""
    listed = sorted(options, key=lambda option: option.usd_month)
    return [
        option
        for option in listed
        if not any(_beats(other, option) for other in listed if other is not option)
    ]


def _beats(left: Option, right: Option) -> bool:
    pairs = list(_axes(left, right))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _axes(left: Option, right: Option) -> Iterator[tuple[float, float]]:
    yield -left.usd_month, -right.usd_month
    yield left.quality or 0.0, right.quality or 0.0
    yield _stream(left), _stream(right)


def _stream(option: Option) -> float:
    """Tokens per second one user sees; an API's is not published, so it neither wins nor loses."""
    return option.capacity.stream_tokens_s.mean if option.capacity else 0.0
