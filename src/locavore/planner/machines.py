"""Where a model would run: a catalog device, this machine, or one described by flags."""

import msgspec

from locavore.catalog import match
from locavore.catalog.load import Catalog
from locavore.catalog.schema import DeviceKind, Hardware
from locavore.core.errors import ConfigError
from locavore.planner import units

USABLE = {
    "consumer_gpu": 0.98, "workstation_gpu": 0.98, "datacentre_gpu": 0.98, "apple": 0.75,
    "apu": 0.75, "cpu": 0.90,
}  # fmt: skip
"""Share of memory a model may take. GPUs: the driver keeps about 2 %. Apple: Metal's recommended
working set is three quarters. CPU: the same margin as the embedded engine's loader."""

SERVERS = ("sglang", "tgi", "tensorrt-llm")
"""Take memory as vLLM does."""
LLAMA = ("llama.cpp", "ik_llama.cpp", "ollama", "lmstudio")
"""Take memory as llama.cpp does."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One or several equal devices."""

    name: str
    kind: DeviceKind
    devices: int = 1
    memory_bytes: int
    """Of one device, as sold."""
    usable_bytes: int
    """Of one device, for a model with everything it needs."""
    host_bytes: int = 0
    """System memory that may take what does not fit; 0: no offload."""
    bandwidth_gbs: float | None = None
    fp16_tflops: float | None = None
    backend: str = "cuda"
    record: Hardware | None = None
    source: str = ""

    @property
    def label(self) -> str:
        return f"{self.devices}x {self.name}" if self.devices > 1 else self.name

    @property
    def unified(self) -> bool:
        return self.kind in ("apple", "apu", "cpu")

    def memory_engine(self, engine: str | None) -> str:
        """Key of the memory model: the engine asked for, else llama.cpp on this backend."""
        if engine in ("vllm", "mlx", "embedded"):
            return engine
        if engine in SERVERS:
            return "vllm"
        if engine is not None and engine not in LLAMA:
            near = ", ".join(match.nearest(engine, ["vllm", "mlx", "embedded", *SERVERS, *LLAMA]))
            raise ConfigError([f"no engine is called {engine!r}; nearest: {near}"])
        backend = self.backend if self.backend in ("cpu", "cuda", "rocm", "vulkan") else "metal"
        return f"llama.cpp-{backend}"


def target(
    catalog: Catalog,
    name: str,
    *,
    memory: str | None = None,
    bandwidth_gbs: float | None = None,
    fp16_tflops: float | None = None,
    host_memory: str | None = None,
) -> Target:
    """The machine called `name` (`2x RTX 4090`, `this`), or one described by `memory`.

    Raises ConfigError with the nearest names for an unknown machine without a description.
    """
    count, wanted = units.machine_count(name)
    host = int(units.bytes_of(host_memory, what="host memory")) if host_memory else 0
    if wanted.lower() == "this":
        return this_machine(catalog, host_bytes=host)
    if memory is not None:
        size = int(units.bytes_of(memory, what="memory"))
        return Target(
            name=wanted,
            kind="consumer_gpu",
            devices=count,
            memory_bytes=size,
            usable_bytes=int(size * USABLE["consumer_gpu"]),
            host_bytes=host,
            bandwidth_gbs=bandwidth_gbs,
            fp16_tflops=fp16_tflops,
            source="described on the command line",
        )
    try:
        record = catalog.device(wanted)
    except ConfigError as error:
        hint = "`locavore fit` and `speed` let you describe it: --memory 24GB --bandwidth 1008"
        raise ConfigError([*error.problems, hint]) from None
    return from_record(catalog, record, devices=count, host_bytes=host)


def from_record(
    catalog: Catalog, record: Hardware, *, devices: int = 1, host_bytes: int = 0
) -> Target:
    """A catalog device. Memory sold as 24 GB is 24 GiB on every GPU and Apple machine."""
    size = int(record.memory_gb.value * units.GIB)
    usable = record.usable_memory.value if record.usable_memory else USABLE[record.kind]
    return Target(
        name=record.name,
        kind=record.kind,
        devices=devices,
        memory_bytes=size,
        usable_bytes=int(size * usable),
        host_bytes=host_bytes,
        bandwidth_gbs=record.bandwidth_gbs.value if record.bandwidth_gbs else None,
        fp16_tflops=record.fp16_tflops.value if record.fp16_tflops else None,
        backend=record.backends[0] if record.backends else "cuda",
        record=record,
        source=catalog.cite(record.memory_gb.source),
    )


def this_machine(catalog: Catalog, *, host_bytes: int = 0) -> Target:
    """The machine this runs on: its GPUs when it has some, its memory otherwise."""
    from locavore.engines.machine import describe

    found = describe()
    if not found.gpus:
        return Target(
            name=f"this machine ({found.cpu})",
            kind="cpu",
            memory_bytes=found.memory_bytes,
            usable_bytes=int(found.available_bytes * USABLE["cpu"]),
            backend="cpu",
            source="measured here and now",
        )
    gpu = found.gpus[0]
    known = _known_gpu(catalog, gpu.name)
    return Target(
        name=f"this machine ({gpu.name})",
        kind=known.kind if known else ("apu" if gpu.unified else "consumer_gpu"),
        devices=len(found.gpus),
        memory_bytes=gpu.memory_bytes,
        usable_bytes=gpu.free_bytes,
        host_bytes=host_bytes or (0 if gpu.unified else int(found.available_bytes * 0.9)),
        bandwidth_gbs=known.bandwidth_gbs.value if known and known.bandwidth_gbs else None,
        fp16_tflops=known.fp16_tflops.value if known and known.fp16_tflops else None,
        backend=known.backends[0] if known and known.backends else "cuda",
        record=known,
        source="measured here and now",
    )


def _known_gpu(catalog: Catalog, name: str) -> Hardware | None:
    """The catalog device whose name stands inside the driver's name, the longest first."""
    plain = match.normalise(name)
    inside = [d for d in catalog.hardware.values() if match.normalise(d.name) in plain]
    return max(inside, key=lambda device: len(device.name)) if inside else None
