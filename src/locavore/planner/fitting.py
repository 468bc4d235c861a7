"""Does a model fit a machine: memory against capacity, the largest context, the best file."""

from collections.abc import Sequence

import msgspec

from locavore.catalog.load import Catalog, task_benchmarks
from locavore.catalog.schema import Model, Shape
from locavore.core.errors import ConfigError
from locavore.planner import memory, quantization, units
from locavore.planner.machines import Target
from locavore.planner.memory import Footprint, Setting

DEFAULT_CONTEXT = 8192
LADDER = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K")
"""GGUF types tried from heavy to light; below Q2_K quality is not worth a recommendation."""
SERVER_LADDER = ("FP16", "FP8", "AWQ")
_FINEST_CONTEXT = 256


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """One model, one quantization, one machine."""

    model: str
    machine: str
    devices: int
    quantization: str
    kv_type: str
    engine: str
    context_tokens: int
    parallel: int
    split: str
    fits: bool
    footprint: Footprint
    needed_bytes: int
    """On the fullest device."""
    available_bytes: int
    """On one device."""
    headroom_bytes: int
    """Negative: what is missing on the fullest device."""
    binds: str | None
    """Why it does not fit, or what stops a longer context."""
    largest_context_tokens: int
    """Per sequence, in this setting; 0: not even the weights fit."""
    best_quantization: str | None
    """The heaviest of the usual types that fits at this context; None: none does."""
    offloaded_layers: int | None = None
    """Layers on the device when the rest goes to system memory; None: all."""
    assumptions: tuple[str, ...] = ()
    explain: tuple[str, ...] = ()


def shape_of(model: Model) -> Shape:
    """The model's shape; ConfigError when no source for it was found."""
    if model.shape is None:
        note = f" ({model.notes})" if model.notes else ""
        raise ConfigError(
            [
                f"the shape of {model.name!r} is not in the catalog{note}; add it with "
                "`locavore catalog add <config.json or GGUF file>`"
            ]
        )
    return model.shape


def fit(
    catalog: Catalog,
    model: Model,
    target: Target,
    *,
    quant: str | None = None,
    kv_type: str = "f16",
    context_tokens: int | None = None,
    parallel: int = 1,
    engine: str | None = None,
    split: str | None = None,
    file_bytes: int | None = None,
) -> Fit:
    """Predict memory and compare. Without `quant` the best file that fits is taken.

    Raises ConfigError for unknown names and for a context beyond what the model was trained for.
    """
    shape = shape_of(model)
    units.checked(parallel, what="parallel", most=100_000)
    assumptions: list[str] = []
    if context_tokens is None:
        context_tokens = min(DEFAULT_CONTEXT, shape.context_tokens)
        assumptions.append(f"context {context_tokens:,} tokens per sequence (none was given)")
    if context_tokens > shape.context_tokens:
        raise ConfigError(
            [
                f"context {context_tokens:,} exceeds the {shape.context_tokens:,} tokens"
                f" {model.name} was trained for, by {context_tokens - shape.context_tokens:,}"
            ]
        )
    if engine is None and quant and not quantization.is_gguf(quantization.canonical(quant)):
        engine = "vllm"  # FP8, AWQ and the like are not GGUF types
    how = target.memory_engine(engine)
    split = split or ("tensor" if how == "vllm" else "layer")
    setting = Setting(
        quantization=quant or "Q4_K_M",
        context_tokens=context_tokens,
        parallel=parallel,
        kv_type=kv_type,
        engine=how,
        devices=target.devices,
        split=split,
        unified=target.unified,
        file_bytes=file_bytes,
    )
    ladder = _ladder(shape, how, LADDER)
    best = best_quantization(shape, target, setting, ladder)
    chosen = quantization.canonical(quant) if quant else best or ladder[-1]
    if quant is None:
        assumptions.append(f"quantization {chosen}: the heaviest usual type that fits")
    if file_bytes is None:
        assumptions.append("weights computed from the shape; --file-size gives a known size")
    setting = msgspec.structs.replace(setting, quantization=chosen)
    return _judged(catalog, model, shape, target, setting, best, assumptions)


def _ladder(shape: Shape, engine: str, usual: Sequence[str]) -> Sequence[str]:
    """gpt-oss is released in MXFP4: nothing is gained by other files."""
    if shape.architecture == "gpt-oss":
        return ("MXFP4_MOE",)
    return SERVER_LADDER if engine == "vllm" else usual


def _judged(
    catalog: Catalog,
    model: Model,
    shape: Shape,
    target: Target,
    setting: Setting,
    best: str | None,
    assumptions: list[str],
) -> Fit:
    found = memory.footprint(shape, setting)
    needed = needed_bytes(shape, setting, found)
    available = available_bytes(target, setting)
    layers = None
    if needed > available and target.host_bytes:
        layers = offloadable_layers(shape, target, setting)
        setting = msgspec.structs.replace(setting, offloaded_layers=layers)
        found = memory.footprint(shape, setting)
        needed = needed_bytes(shape, setting, found)
    fits = needed <= available and found.host_bytes <= max(target.host_bytes, found.host_bytes)
    if layers is not None and found.host_bytes > target.host_bytes:
        fits = False
    largest = largest_context(shape, target, setting)
    return Fit(
        model=model.name,
        machine=target.label,
        devices=target.devices,
        quantization=setting.quantization,
        kv_type=setting.kv_type,
        engine=setting.engine,
        context_tokens=setting.context_tokens,
        parallel=setting.parallel,
        split=setting.split,
        fits=fits,
        footprint=found,
        needed_bytes=needed,
        available_bytes=available,
        headroom_bytes=available - needed,
        binds=_binding(found, needed, available, fits, largest, shape),
        largest_context_tokens=largest,
        best_quantization=best,
        offloaded_layers=layers,
        assumptions=tuple(assumptions),
        explain=tuple(explained(catalog, shape, setting, found, target)),
    )


def available_bytes(target: Target, setting: Setting) -> int:
    """What a model may take of one device under this engine."""
    share = memory.engine(setting.engine).takes_share
    return int(target.memory_bytes * share) if share else target.usable_bytes


def needed_bytes(shape: Shape, setting: Setting, found: Footprint) -> int:
    """Memory of the fullest device: whole layers with a layer split, an equal slice otherwise."""
    if setting.devices == 1:
        return found.total_bytes
    fixed = found.compute_bytes + found.workspace_bytes + found.runtime_bytes
    spread = found.total_bytes - fixed
    share = 1 / setting.devices
    if setting.split == "layer":
        share = -(-shape.layers // setting.devices) / shape.layers
    return round(spread * share + fixed / setting.devices)


def _fits(shape: Shape, target: Target, setting: Setting) -> bool:
    found = memory.footprint(shape, setting)
    within = needed_bytes(shape, setting, found) <= available_bytes(target, setting)
    if setting.offloaded_layers is not None:
        return within and found.host_bytes <= target.host_bytes
    return within


def best_quantization(
    shape: Shape, target: Target, setting: Setting, ladder: Sequence[str]
) -> str | None:
    """The first of `ladder` whose memory fits."""
    for name in ladder:
        if _fits(shape, target, msgspec.structs.replace(setting, quantization=name)):
            return name
    return None


def largest_context(shape: Shape, target: Target, setting: Setting) -> int:
    """The longest context per sequence that fits, in steps of 256 tokens; 0: none."""
    low, high = 0, shape.context_tokens // _FINEST_CONTEXT
    while low < high:
        middle = (low + high + 1) // 2
        trial = msgspec.structs.replace(setting, context_tokens=middle * _FINEST_CONTEXT)
        low, high = (middle, high) if _fits(shape, target, trial) else (low, middle - 1)
    return low * _FINEST_CONTEXT


def offloadable_layers(shape: Shape, target: Target, setting: Setting) -> int:
    """The most layers the device holds while the others sit in system memory."""
    for layers in range(shape.layers, 0, -1):
        trial = msgspec.structs.replace(setting, offloaded_layers=layers)
        found = memory.footprint(shape, trial)
        if needed_bytes(shape, trial, found) <= available_bytes(target, trial):
            return layers
    return 0


def _binding(
    found: Footprint, needed: int, available: int, fits: bool, largest: int, shape: Shape
) -> str | None:
    if not fits:
        missing = units.gib(needed - available)
        if found.weights_bytes > available and found.cache_bytes < found.weights_bytes:
            return f"memory: the weights alone exceed the device; {missing} missing"
        return f"memory: {missing} missing on the fullest device"
    if largest < shape.context_tokens:
        return f"memory: no context beyond {largest:,} tokens per sequence"
    return None


def explained(
    catalog: Catalog, shape: Shape, setting: Setting, found: Footprint, target: Target
) -> list[str]:
    """Formula, inputs and sources of each part."""
    per_token = memory.cache_bytes_per_token(shape, setting.kv_type)
    cells = -(-setting.context_tokens // memory.CELLS) * memory.CELLS
    lines = [
        f"weights {units.gib(found.weights_bytes)}: sum over tensors of elements x bytes per block"
        f" ({setting.quantization}); shape from {catalog.cite(shape.source)}, {shape.as_of}",
        f"cache {units.gib(found.cache_bytes)}: {setting.parallel} x {cells:,} tokens x"
        f" {per_token:,} bytes in full layers ({setting.kv_type})"
        + (f", {shape.window_layers} window layers of {shape.window:,}" if shape.window else "")
        + (f", fixed state {memory.state_bytes(shape):,} bytes" if shape.linear else ""),
        f"compute buffers {units.gib(found.compute_bytes)}: max(4u(5h+3f), experts, logits) + mask"
        f" with u={setting.batch_tokens}, h={shape.hidden}",
        f"runtime {units.gib(found.runtime_bytes)}: {setting.engine}, measured constant",
    ]
    if found.workspace_bytes:
        lines.append(f"workspace {units.gib(found.workspace_bytes)}: largest matrix in 16 bits")
    if found.repack_bytes:
        lines.append(f"repacked copy {units.gib(found.repack_bytes)}: 4-bit matrices on AVX2")
    if found.host_bytes:
        lines.append(f"system memory {units.gib(found.host_bytes)}: embedding, offloaded layers")
    usable = units.gib(available_bytes(target, setting))
    lines.append(
        f"capacity {usable} per device of {units.gib(target.memory_bytes)}; {target.source}"
    )
    return lines


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """A model that fits, for one task."""

    task: str
    model: str
    quantization: str
    score: float
    """Published score of the unquantized model, a share."""
    benchmark: str
    needed_bytes: int
    source: str


def suggest(
    catalog: Catalog,
    target: Target,
    *,
    context_tokens: int = DEFAULT_CONTEXT,
    parallel: int = 1,
    kv_type: str = "f16",
    engine: str | None = None,
    count: int = 3,
) -> list[Suggestion]:
    """The best `count` models for each task that this machine holds at 4 bits or more."""
    fitting = {
        model.name: light
        for model in catalog.models.values()
        if (light := _light_fit(model, target, context_tokens, parallel, kv_type, engine))
    }
    found: list[Suggestion] = []
    for task, benchmark in task_benchmarks().items():
        rows = []
        for name, (quant, needed) in fitting.items():
            scored = catalog.scores(name).get(benchmark)
            if scored is None:
                continue
            rows.append(
                Suggestion(
                    task=task,
                    model=name,
                    quantization=quant,
                    score=scored.value / 100,
                    benchmark=benchmark,
                    needed_bytes=needed,
                    source=catalog.cite(scored.source),
                )
            )
        rows.sort(key=lambda row: (-row.score, row.needed_bytes))
        found.extend(rows[:count])
    return found


def _light_fit(
    model: Model, target: Target, context: int, parallel: int, kv_type: str, engine: str | None
) -> tuple[str, int] | None:
    shape = model.shape
    if shape is None or context > shape.context_tokens:
        return None
    how = target.memory_engine(engine)
    setting = Setting(
        quantization="Q4_K_M",
        context_tokens=context,
        parallel=parallel,
        kv_type=kv_type,
        engine=how,
        devices=target.devices,
        split="tensor" if how == "vllm" else "layer",
        unified=target.unified,
    )
    ladder = _ladder(shape, how, ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"))
    best = best_quantization(shape, target, setting, ladder)
    if best is None:
        return None
    setting = msgspec.structs.replace(setting, quantization=best)
    return best, needed_bytes(shape, setting, memory.footprint(shape, setting))
