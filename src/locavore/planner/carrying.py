"""What one replica of a model on a machine carries, and how many replicas a workload needs."""

import math

import msgspec

from locavore.catalog.schema import Shape
from locavore.core.estimate import Estimate
from locavore.planner import memory, quantization, speed, throughput
from locavore.planner.machines import Target
from locavore.planner.memory import Setting
from locavore.planner.speed_point import Load, Machine, Point
from locavore.planner.speed_point import Setting as SpeedSetting
from locavore.planner.speed_shape import speed_shape
from locavore.planner.workload import Workload

FEW = 4
"""Up to this many streams llama.cpp serves well; above it a batching server is planned."""
_SLOTS = 8
_MOST_BATCH = 64
_BACKENDS = {"cuda": "CUDA", "rocm": "ROCm", "vulkan": "Vulkan", "metal": "Metal", "cpu": "CPU"}


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica can do, and how much of all replicas is used."""

    output_tokens_s: Estimate
    """Of one replica at full load, prompts interleaved."""
    stream_tokens_s: Estimate
    """What one user sees at the planned concurrency."""
    ttft_s: Estimate
    streams: int
    """Concurrent calls of one replica at the asked speed."""
    replicas: int
    utilization: float
    """Mean demand in the used hours over capacity."""
    binds: str
    """What set the number of replicas."""


def engine_for(workload: Workload, target: Target) -> str:
    """A batching server for many users on GPUs that have one; llama.cpp otherwise."""
    many = workload.concurrency > FEW
    server = target.backend in ("cuda", "rocm") and target.kind not in ("apu",)
    return "vllm" if many and server else target.memory_engine(None)


def plan_setting(workload: Workload, target: Target, file: str, engine: str) -> Setting:
    """Memory the workload needs on one replica: slots of llama.cpp, or tokens in flight of vLLM."""
    streams = max(1, math.ceil(workload.concurrency))
    flying = workload.input_tokens_call + workload.output_tokens_call
    if engine == "vllm":
        batch = min(streams, _MOST_BATCH)
        parallel = max(1, math.ceil(batch * flying / workload.context_tokens))
    else:
        parallel = min(streams, _SLOTS)
    return Setting(
        quantization=file,
        context_tokens=workload.context_tokens,
        parallel=parallel,
        engine=engine,
        devices=target.devices,
        split="tensor" if engine == "vllm" else "layer",
        unified=target.unified,
    )


def carried(
    workload: Workload, shape: Shape, name: str, target: Target, setting: Setting
) -> Capacity:
    """How many replicas carry the peak at the asked speed. LocavoreError: no speed is known."""
    at = speed_point(workload, shape, name, target, setting)
    if setting.engine == "vllm":
        full = throughput.predict_throughput(_loaded(at, 0))
    else:
        full = throughput.predict_batched(_loaded(at, setting.parallel))
    prefill = speed.predict_prefill(_loaded(at, 1))
    streams, stream = _streams(workload, at, setting)
    peak = workload.peak_output_tokens_s
    busy = peak / full.mean
    if setting.engine != "vllm" or not peak:  # maximum throughput already holds the prompts
        busy += _prompt_tokens_s(workload) * workload.peak_factor / prefill.mean
    by_speed = math.ceil(workload.concurrency / streams)
    by_volume = math.ceil(busy)
    replicas = max(1, by_speed, by_volume)
    binds = "peak volume" if by_volume >= by_speed else "concurrency at the asked speed"
    if replicas == 1:
        binds = "nothing: one replica is enough"
    ttft = workload.input_tokens_call / prefill.mean
    return Capacity(
        output_tokens_s=full,
        stream_tokens_s=stream,
        ttft_s=Estimate(
            mean=ttft,
            low=workload.input_tokens_call / prefill.high,
            high=workload.input_tokens_call / prefill.low,
            source=prefill.source,
            unit="s",
        ),
        streams=streams,
        replicas=replicas,
        utilization=busy / workload.peak_factor / replicas,
        binds=binds,
    )


def _streams(workload: Workload, at: Point, setting: Setting) -> tuple[int, Estimate]:
    """(streams one replica serves at the asked speed, what each then sees)."""
    wanted = max(1, math.ceil(workload.concurrency))
    streams = wanted if setting.engine == "vllm" else min(wanted, setting.parallel)
    while True:
        found = _per_stream(at, streams)
        if found.mean >= workload.min_tokens_s_user or streams == 1:
            return streams, found
        streams = max(1, streams // 2)


def _per_stream(at: Point, streams: int) -> Estimate:
    if streams == 1:
        return speed.predict_decode(_loaded(at, 1))
    batched = throughput.predict_batched(_loaded(at, streams))
    return msgspec.structs.replace(
        batched, mean=batched.mean / streams, low=batched.low / streams, high=batched.high / streams
    )


def _prompt_tokens_s(workload: Workload) -> float:
    fresh = workload.input_tokens_day * (1 - workload.cached_share)
    return fresh / (workload.hours_day * 3600)


def speed_point(
    workload: Workload, shape: Shape, name: str, target: Target, setting: Setting
) -> Point:
    """The same situation in the speed model's terms."""
    vllm = setting.engine == "vllm"
    file = quantization.weight_bytes(shape, quantization.canonical(setting.quantization))
    return Point(
        machine=Machine(
            name=target.record.name if target.record else target.name,
            hw_class=target.kind,
            bandwidth_gbs=target.bandwidth_gbs or 0.0,
            fp16_tflops=target.fp16_tflops or 0.0,
            memory_gb=target.memory_bytes / 2**30,
        ),
        shape=speed_shape(shape, name),
        setting=SpeedSetting(
            quant=setting.quantization,
            file_gb=file / 1e9,
            engine="vllm" if vllm else "llama.cpp",
            backend=_BACKENDS.get(target.backend, "CUDA"),
            devices=target.devices,
            parallelism=f"tp{target.devices}" if vllm and target.devices > 1 else "",
            kv_bytes=memory.kv_bits(setting.kv_type) / 8,
        ),
        load=Load(
            prompt=workload.input_tokens_call,
            generate=workload.output_tokens_call,
            context=workload.input_tokens_call + workload.output_tokens_call / 2,
        ),
    )


def _loaded(at: Point, batch: int) -> Point:
    return msgspec.structs.replace(at, load=msgspec.structs.replace(at.load, batch=batch))
