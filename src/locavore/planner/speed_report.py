"""The answer of `locavore speed`: every speed of a model on a machine, and what it rests on."""

from pathlib import Path

import msgspec

from locavore.catalog.load import Catalog
from locavore.catalog.schema import Model
from locavore.core.errors import RequestError
from locavore.core.estimate import Estimate
from locavore.planner import memory, quantization, speed, throughput
from locavore.planner.coefficients import Band, anchored_band
from locavore.planner.fitting import shape_of
from locavore.planner.machines import Target
from locavore.planner.speed_measure import Measurement, copy_bandwidth_gbs, kept
from locavore.planner.speed_point import Load, Machine, Point, Setting
from locavore.planner.speed_shape import speed_shape

_BACKENDS = {"cuda": "CUDA", "rocm": "ROCm", "metal": "Metal", "vulkan": "Vulkan", "cpu": "CPU"}


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller wants to know."""

    quant: str = "Q4_K_M"
    engine: str = "llama.cpp"
    prompt_tokens: int = 512
    generate_tokens: int = 512
    context_tokens: int = 4096
    batch: int = 1
    kv_type: str = "f16"


class SpeedReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Predicted speeds; times in ms, speeds in tokens per second."""

    model: str
    machine: str
    quant: str
    engine: str
    context_tokens: int
    batch: int
    weights_gb: float
    decode: Estimate
    """One stream."""
    prefill: Estimate
    batched: Estimate | None = None
    """All streams together, when `batch` is above 1."""
    tpot_ms: Estimate | None = None
    ttft_ms: Estimate | None = None
    full_load: Estimate | None = None
    """Generated tokens per second when as many streams run as memory holds (servers only)."""
    assumed: tuple[str, ...] = ()
    formulas: dict[str, str] = {}


def report(
    catalog: Catalog,
    model: Model,
    target: Target,
    ask: Ask,
    *,
    home: Path,
    anchor: Measurement | None = None,
) -> SpeedReport:
    """Predict; on this machine scaled by `anchor`, or by a measurement kept under `home`.

    Raises RequestError when the machine's bandwidth is unknown, naming the flag that gives it.
    """
    here = target.source == "measured here and now"
    anchor = anchor or (_kept_for(home, target) if here else None)
    if anchor and target.kind == "cpu" and target.bandwidth_gbs is None:
        # what the run had, for both sides of the scaling: copying again would measure the moment
        target = msgspec.structs.replace(target, bandwidth_gbs=anchor.bandwidth_gbs)
    at, assumed = _point(model, target, ask)
    one = msgspec.structs.replace(at, load=msgspec.structs.replace(at.load, batch=1))
    server = at.path in ("vllm", "trtllm")
    decode = speed.predict_decode(one)
    prefill = throughput.predict_prompt_rate(at) if server else speed.predict_prefill(one)
    if anchor is not None:
        scale = _anchor_point(catalog, target, anchor)
        decode = _anchored("decode", decode, anchor.decode_tps, speed.predict_decode(scale))
        prefill = _anchored("prefill", prefill, anchor.prefill_tps, speed.predict_prefill(scale))
    many = ask.batch > 1
    full = msgspec.structs.replace(at, load=msgspec.structs.replace(at.load, batch=0))
    return SpeedReport(
        model=model.name,
        machine=target.label,
        quant=ask.quant,
        engine=ask.engine,
        context_tokens=ask.context_tokens,
        batch=ask.batch,
        weights_gb=round(at.weights_gb, 3),
        decode=decode,
        prefill=prefill,
        batched=throughput.predict_batched(at) if many else None,
        tpot_ms=throughput.predict_tpot(at) if many else None,
        ttft_ms=throughput.predict_ttft(at) if many else None,
        full_load=throughput.predict_throughput(full) if server else None,
        assumed=tuple(assumed),
        formulas={"decode": speed.DECODE_FORMULA, "prefill": speed.PREFILL_FORMULA},
    )


def _point(model: Model, target: Target, ask: Ask) -> tuple[Point, list[str]]:
    shape = shape_of(model)
    assumed: list[str] = []
    sizes = {
        "prompt": ask.prompt_tokens,
        "generate": ask.generate_tokens,
        "context": ask.context_tokens,
    }
    for name, value in sizes.items():
        if value <= 0:
            raise RequestError(f"{name} is {value!r} tokens; give a number above zero")
    if ask.batch < 1:
        raise RequestError(f"batch is {ask.batch!r}; give 1 or more")
    point = Point(
        machine=_machine(target, assumed),
        shape=speed_shape(shape, model.name),
        setting=Setting(
            quant=ask.quant,
            file_gb=quantization.weight_bytes(shape, quantization.canonical(ask.quant)) / 1e9,
            engine=ask.engine,
            backend=_BACKENDS.get(target.backend, ""),
            devices=target.devices,
            parallelism=f"tp{target.devices}" if _splits_layers(ask, target) else "",
            kv_bytes=memory.kv_bits(ask.kv_type) / 8,
            threads=_threads(target),
        ),
        load=Load(
            prompt=ask.prompt_tokens,
            generate=ask.generate_tokens,
            context=ask.context_tokens,
            batch=ask.batch,
        ),
    )
    return point, assumed


def _splits_layers(ask: Ask, target: Target) -> bool:
    """Tensor parallel: what servers do with several devices; llama.cpp splits by layers."""
    return target.devices > 1 and ask.engine.lower() not in ("llama.cpp", "embedded", "ollama")


def _machine(target: Target, assumed: list[str]) -> Machine:
    bandwidth = target.bandwidth_gbs
    if bandwidth is None and target.kind == "cpu" and target.source == "measured here and now":
        bandwidth = copy_bandwidth_gbs(_threads(target))
        assumed.append(f"memory bandwidth {bandwidth:.1f} GB/s, measured by copying")
    if bandwidth is None:
        raise RequestError(
            f"the memory bandwidth of {target.name!r} is unknown; give --bandwidth (GB/s)"
        )
    if not target.fp16_tflops and target.kind != "cpu":
        assumed.append("FP16 rate unknown: taken as 0.15 TFLOPS per GB/s, as current GPUs have")
    return Machine(
        name=target.record.name if target.record else target.name,
        hw_class=target.kind,
        bandwidth_gbs=bandwidth,
        fp16_tflops=target.fp16_tflops or (0.0 if target.kind == "cpu" else 0.15 * bandwidth),
        memory_gb=target.memory_bytes / 2**30,
    )


def _threads(target: Target) -> int:
    if target.kind != "cpu" or target.source != "measured here and now":
        return 0
    from locavore.engines import machine

    return machine.engine_threads(machine.describe())


def _kept_for(home: Path, target: Target) -> Measurement | None:
    """The last kept measurement of this machine."""
    return next((m for m in reversed(kept(home)) if m.machine in target.name), None)


def _anchor_point(catalog: Catalog, target: Target, anchor: Measurement) -> Point:
    """The situation that was measured, as the model sees it."""
    ask = Ask(
        quant=anchor.quant,
        prompt_tokens=anchor.prompt_tokens,
        context_tokens=anchor.prompt_tokens + anchor.generated_tokens // 2,
    )
    point, _ = _point(catalog.model(anchor.model), target, ask)
    return point


def _anchored(metric: str, estimate: Estimate, measured: float, predicted: Estimate) -> Estimate:
    """The prediction scaled by measured over predicted on the same machine.

    Keeps the narrower of the two intervals: where many runs back the class, one run adds little.
    """
    width = anchored_band(metric)
    if estimate.high / estimate.low < width.high / width.low:
        low, high, n = estimate.low / estimate.mean, estimate.high / estimate.mean, estimate.n
        width = Band(low, high, n)
    value = estimate.mean * measured / predicted.mean
    return Estimate(
        mean=value,
        low=value * width.low,
        high=value * width.high,
        n=width.n,
        source=f"{estimate.source}; scaled by a run here ({measured:.1f} tok/s, "
        f"model said {predicted.mean:.1f})",
        unit=estimate.unit,
    )
