"""What a speed is predicted for: machine, model shape, setting and load.

One `Point` is one measurable situation. It comes from the catalog, from flags, or from a row
of description columns; the formulas never see which.
"""

import re

import msgspec

from locavore.planner.speed_families import (
    code_path,
    engine_family,
    has_hbm,
    quant_family,
    vector_tflops,
)
from locavore.planner.speed_shape import Shape

# Memory a typical block format takes per weight, bits; facts of the formats (scale + values).
TYPICAL_BITS: dict[str, float] = {
    "f32": 32.0,
    "f16": 16.0,
    "q8": 8.5,
    "k": 4.85,
    "legacy": 4.55,
    "iq4": 4.3,
    "iq": 2.6,
    "wq": 4.3,
    "exl": 4.5,
    "fp4": 4.6,
}


class Machine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One device; `devices` in Setting says how many."""

    name: str
    hw_class: str = ""
    """`consumer_gpu workstation_gpu datacentre_gpu apple apu cpu`; may be empty."""
    bandwidth_gbs: float
    """Theoretical memory bandwidth, 10^9 bytes per second."""
    fp16_tflops: float = 0.0
    """Dense FP16 matrix rate; 0: unknown."""
    memory_gb: float = 0.0


class Setting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the model is run."""

    quant: str = ""
    bits_per_weight: float = 0.0
    file_gb: float = 0.0
    """Weights on disk, 10^9 bytes; 0: parameters times bits."""
    engine: str = "llama.cpp"
    backend: str = ""
    devices: int = 1
    parallelism: str = ""
    kv_bytes: float = 2.0
    threads: int = 0
    """CPU threads; 0: not given."""
    attention_dp: int = 1
    """Groups of devices that hold different sequences' caches (data-parallel attention)."""
    expert_parallel: bool = False
    drafting: bool = False
    """A draft layer guesses tokens that one step then checks (multi-token prediction)."""


class Load(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked of it, in tokens."""

    prompt: float = 0.0
    generate: float = 0.0
    depth: float = 0.0
    context: float = 0.0
    """Mean context while measured."""
    batch: int = 1
    """Streams at once; 0: as many as fit."""
    whole_request: bool = False
    """The time of the generated tokens includes reading the prompt."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    machine: Machine
    shape: Shape
    setting: Setting = Setting()
    load: Load = Load()

    @property
    def path(self) -> str:
        m, s = self.machine, self.setting
        return code_path(s.engine, s.backend, m.name, m.hw_class)

    @property
    def quant(self) -> str:
        """Kernel family; a name of 16 bits on a file of 5 means 4-bit experts (MXFP4 releases)."""
        family = quant_family(self.setting.quant, self.setting.bits_per_weight)
        return "legacy" if family in ("f16", "q8") and self.bits < 6.5 else family

    @property
    def bits(self) -> float:
        """Mean bits per weight of the file."""
        if self.setting.file_gb > 0:
            return self.setting.file_gb * 8 / self.shape.total_b
        family = quant_family(self.setting.quant, self.setting.bits_per_weight)
        return self.setting.bits_per_weight or TYPICAL_BITS[family]

    @property
    def weights_gb(self) -> float:
        return self.setting.file_gb or self.shape.total_b * self.bits / 8

    @property
    def on_cpu(self) -> bool:
        return self.path.endswith("cpu")

    @property
    def tensor_parallel(self) -> bool:
        """Whether each device holds a slice of every layer rather than some of the layers."""
        s = self.setting
        if s.devices <= 1:
            return False
        name = s.parallelism.strip().lower()
        if engine_family(s.engine) in ("llamacpp", "ik"):
            return "row" in name  # whatever the label says, llama.cpp splits by layers unless told
        if match := re.search(r"tp\s*(\d+)", name):
            return int(match[1]) > 1
        if "layer" in name or "pp" in name:
            return False
        return engine_family(s.engine) in ("vllm", "trtllm", "exl")

    @property
    def vector_tflops(self) -> float:
        m = self.machine
        return vector_tflops(m.name, m.hw_class, m.fp16_tflops)

    @property
    def hbm(self) -> bool:
        m = self.machine
        return has_hbm(m.name, m.hw_class, m.bandwidth_gbs)
