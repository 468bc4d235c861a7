"""Training an adapter at home against fine-tuning through an API: memory, time, money, sense."""

import math

import msgspec

from locavore.catalog.load import Catalog, load
from locavore.catalog.schema import Shape
from locavore.core.errors import ConfigError
from locavore.planner import tensors, units
from locavore.planner.cost import Range, Rates, power_w, ranged
from locavore.planner.fitting import shape_of
from locavore.planner.machines import Target, target

METHODS = ("qlora", "lora", "full")
ADAPTER_BYTES = 16
"""Per trained weight: 2 weight, 2 gradient, 4 master copy, 8 Adam moments (mixed precision)."""
NF4_BITS = 4.127
"""4-bit NormalFloat with double quantization (Dettmers et al. 2023, section 3)."""
LAYER_ACTIVATIONS = 34
"""Bytes per token and hidden unit alive in one recomputed layer (Korthikanti et al. 2022)."""
LOGIT_BYTES = 8
"""Per token and vocabulary entry: logits and their gradient in 32 bits."""
RUNTIME_BYTES = 1_000_000_000
"""CUDA context, libraries, fragmentation."""
FEW_EXAMPLES = 100
ENOUGH_EXAMPLES = 500


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained, and what is done with it."""

    examples: float = 1000
    tokens_example: float = 500
    epochs: float = 3
    rank: int = 16
    sequence_tokens: int = 2048
    batch: int = 1
    runs_year: float = 4
    """Trainings a year: new data, new base models, failed attempts."""
    inference_tokens_day: float = 0
    knowledge_changes: bool = False
    needs_reasoning: bool = False

    @property
    def training_tokens(self) -> float:
        return self.examples * self.tokens_example * self.epochs


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One way of training on one machine."""

    name: str
    memory_bytes: int
    """On the fullest device, weights and optimizer sharded over all devices."""
    available_bytes: int
    fits: bool
    trained_parameters: int
    hours: float | None
    hours_low: float | None
    hours_high: float | None
    usd_run: float | None
    """Rent, or electricity on a machine one has; engineering not included."""
    formula: str


class Finetune(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison."""

    model: str
    machine: str
    job: Job
    methods: tuple[Method, ...]
    best: str | None
    """The most thorough method that fits, adapters first; None: none does."""
    engineering_usd_run: float
    """Paid on both sides: data, training, judging."""
    api_usd_run: float
    api_usd_month: float
    """Inference on the fine-tuned model."""
    own_usd_month: float | None
    """Hardware spread over its life, and electricity; None: price or power unknown."""
    upfront_usd: float | None
    months: float | None
    """Until the machine is paid; None: never, or its price is unknown."""
    volume_tokens_month: float | None
    """Inference volume above which the own machine is cheaper."""
    verdict: str
    not_when: tuple[str, ...]
    """Reasons not to fine-tune at all."""
    assumptions: tuple[str, ...]
    sources: tuple[str, ...]


def adapter_parameters(shape: Shape, rank: int) -> int:
    """Two low-rank factors beside every dense matrix of the blocks; routed experts stay as is."""
    return sum(
        rank * sum(tensor.dims)
        for tensor in tensors.tensors(shape)
        if len(tensor.dims) == 2 and tensor.layer >= 0 and tensor.role != "router"
    )


def training_bytes(shape: Shape, method: str, job: Job, devices: int = 1) -> int:
    """Memory on one of `devices`, weights and optimizer sharded, gradients checkpointed."""
    total = tensors.parameters(shape)
    adapter = adapter_parameters(shape, job.rank)
    if method == "full":
        held: float = total * ADAPTER_BYTES
    else:
        held = adapter * ADAPTER_BYTES + _frozen_bytes(shape, method)
    tokens = job.batch * job.sequence_tokens
    kept = 2 * shape.layers * tokens * shape.hidden
    layer = LAYER_ACTIVATIONS * tokens * shape.hidden
    logits = LOGIT_BYTES * tokens * shape.vocab
    return round(held / devices + kept + max(layer, logits) + RUNTIME_BYTES)


def _frozen_bytes(shape: Shape, method: str) -> float:
    if method == "lora":
        return tensors.parameters(shape) * 2
    blocks = sum(
        tensor.elements
        for tensor in tensors.tensors(shape)
        if len(tensor.dims) >= 2 and tensor.layer >= 0
    )
    return blocks * NF4_BITS / 8 + (tensors.parameters(shape) - blocks) * 2


def training_flops(shape: Shape, method: str, job: Job) -> float:
    """Forward 2N, again 2N for the checkpoints, backward 2N, and 2N weight gradients if full."""
    return (8 if method == "full" else 6) * tensors.active_parameters(shape) * job.training_tokens


def finetune(
    model: str,
    machine: str,
    job: Job | None = None,
    *,
    catalog: Catalog | None = None,
    rates: dict[str, float] | None = None,
) -> Finetune:
    """Compare. ConfigError: unknown names with the nearest ones, or values that cannot be."""
    known = catalog or load()
    work = checked(job or Job())
    book = Rates(known, rates)
    record = known.model(model)
    shape, place = shape_of(record), target(known, machine)
    methods = tuple(_method(known, book, shape, place, name, work) for name in METHODS)
    best = next((row.name for row in methods if row.fits and row.name == "lora"), None) or next(
        (row.name for row in methods if row.fits), None
    )
    price, hour = book("finetune.api.training_mtok"), book("engineering_usd_hour")
    month_mtok = work.inference_tokens_day * units.DAYS_PER_MONTH / 1e6
    api_month = price.mean * month_mtok + _training_mtok(work) * price.mean * work.runs_year / 12
    upfront, own_month, running = _own(known, book, place)
    months = upfront / (api_month - running) if upfront and api_month > running else None
    volume = None
    if own_month is not None:
        training = _training_mtok(work) * price.mean * work.runs_year / 12
        volume = max(0.0, (own_month - training) / price.mean * 1e6)
    not_when = _not_when(work)
    return Finetune(
        model=record.name,
        machine=place.label,
        job=work,
        methods=methods,
        best=best,
        engineering_usd_run=book("finetune.engineering_hours").mean * hour.mean,
        api_usd_run=_training_mtok(work) * price.mean,
        api_usd_month=api_month,
        own_usd_month=own_month,
        upfront_usd=upfront,
        months=months,
        volume_tokens_month=volume,
        verdict=_verdict(best, methods, own_month, api_month, months, place),
        not_when=not_when,
        assumptions=(
            "inference on a fine-tuned API model costs as much per token as training it",
            "the machine trains and then serves; engineering is the same on both sides",
            f"gradient checkpointing, {work.sequence_tokens} tokens x {work.batch} at a time",
        ),
        sources=(price.source, hour.source, known.cite(shape.source), place.source),
    )


def checked(job: Job) -> Job:
    """The job itself; ConfigError lists every value that cannot be."""
    problems: list[str] = []
    limits = {
        "examples": 1e12, "tokens_example": 1e7, "epochs": 1000.0, "rank": 8192.0,
        "sequence_tokens": 1e8, "batch": 1e5, "runs_year": 10_000.0,
    }  # fmt: skip
    for name, most in limits.items():
        try:
            units.checked(float(getattr(job, name)), what=name, most=most)
        except ConfigError as error:
            problems += error.problems
    try:
        units.checked(job.inference_tokens_day, what="inference tokens a day", most=1e15, zero=True)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    return job


def _training_mtok(job: Job) -> float:
    return job.training_tokens / 1e6


def _method(
    catalog: Catalog, rates: Rates, shape: Shape, place: Target, name: str, job: Job
) -> Method:
    needed = training_bytes(shape, name, job, place.devices)
    trained = tensors.parameters(shape) if name == "full" else adapter_parameters(shape, job.rank)
    hours = low = high = None
    share = rates(f"finetune.utilisation.{name}")
    flops = training_flops(shape, name, job)
    if place.fp16_tflops:
        rate = place.fp16_tflops * 1e12 * place.devices * 3600
        hours, low, high = (flops / (rate * part) for part in (share.mean, share.high, share.low))
    fits = needed <= place.usable_bytes
    return Method(
        name=name,
        memory_bytes=needed,
        available_bytes=place.usable_bytes,
        fits=fits,
        trained_parameters=trained,
        hours=hours,
        hours_low=low,
        hours_high=high,
        usd_run=_run_cost(catalog, rates, place, hours) if fits else None,
        formula=(
            f"{flops:.2e} FLOP / ({place.devices} x {place.fp16_tflops or 0:g} TFLOP/s x"
            f" {share.mean:g})"
        ),
    )


def _run_cost(catalog: Catalog, rates: Rates, place: Target, hours: float | None) -> float | None:
    if hours is None or place.record is None:
        return None
    if place.record.rent_usd_hour is not None:
        return hours * place.record.rent_usd_hour.value * place.devices
    _, load_w = power_w(catalog, rates, place.record, place.devices)
    price = _electricity(rates)
    return hours * load_w.mean / 1000 * price.mean if load_w.mean else None


def _electricity(rates: Rates) -> Range:
    euro, rate = rates("electricity.EU.business"), rates("exchange.EUR_USD")
    return Range(
        low=euro.low * rate.low,
        mean=euro.mean * rate.mean,
        high=euro.high * rate.high,
        source=euro.source,
    )


def _own(catalog: Catalog, rates: Rates, place: Target) -> tuple[float | None, float | None, float]:
    """(up front, a month with amortization, a month of electricity) in US dollars."""
    record = place.record
    if record is None:
        return None, None, 0.0
    idle, load_w = power_w(catalog, rates, record, place.devices)
    running = (idle.mean * 0.9 + load_w.mean * 0.1) / 1000
    electricity = running * units.HOURS_PER_MONTH * _electricity(rates).mean
    if record.price_usd is None:
        return None, None, electricity
    upfront = ranged(catalog, record.price_usd).mean * place.devices
    months, resale = rates("amortisation_months").mean, rates("resale_share").mean
    return upfront, upfront * (1 - resale) / months + electricity, electricity


def _verdict(
    best: str | None,
    methods: tuple[Method, ...],
    own: float | None,
    api: float,
    months: float | None,
    place: Target,
) -> str:
    if best is None:
        least = min(methods, key=lambda row: row.memory_bytes)
        short = least.memory_bytes - least.available_bytes
        return (
            f"memory: even {least.name} needs {units.gib(least.memory_bytes)} per device,"
            f" {units.gib(short)} more than {place.label} has"
        )
    if own is None:
        return f"{best} fits; the price of {place.name} is not in the catalog, so no break-even"
    if months is None or math.isinf(months):
        return (
            f"{best} fits, but at this volume the API ({units.money(api)} a month) costs less than"
            f" the machine ({units.money(own)} a month)"
        )
    return (
        f"{best} fits; {units.money(api)} a month through an API against {units.money(own)}:"
        f" the machine is paid after {months:.1f} months"
    )


def _not_when(job: Job) -> tuple[str, ...]:
    found = []
    if job.examples < FEW_EXAMPLES:
        found.append(
            f"{job.examples:g} examples: below about {FEW_EXAMPLES} a prompt with examples does"
        )
    elif job.examples < ENOUGH_EXAMPLES:
        found.append(f"{job.examples:g} examples: {ENOUGH_EXAMPLES}-2,000 are recommended")
    if job.knowledge_changes:
        found.append("the knowledge changes: retrieval stays current without training again")
    if job.needs_reasoning:
        found.append("training teaches form and domain, not reasoning: take a stronger model")
    return tuple(found)
