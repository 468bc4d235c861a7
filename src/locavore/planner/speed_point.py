"""What a speed is predicted for: machine, model shape, setting and load.

One `Point` is one measurable situation. It comes from the catalog, from flags, or from a row
of description columns; the formulas never see which.
"""

import functools
import importlib.resources
import json
import re

import msgspec

from locavore.planner.speed_families import (
    code_path,
    engine_family,
    has_hbm,
    quant_family,
    vector_tflops,
)

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


class Shape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the speed of a model depends on. Zeros are estimated from what is known."""

    name: str = ""
    arch: str = "dense"
    """`dense`, `moe` or `dense-ple` (per-layer embeddings, looked up and not multiplied)."""
    total_b: float
    """Parameters, 10^9."""
    active_b: float
    layers: int
    full_layers: int
    """Layers that attend to the whole context."""
    swa_layers: int = 0
    swa_window: int = 0
    kv_heads: int
    head_dim: int
    vocab: int = 0
    hidden: int = 0
    tied: bool | None = None

    @property
    def width(self) -> int:
        """Hidden size; estimated as sqrt(active / (12 layers)) when not given."""
        return self.hidden or round((self.active_b * 1e9 / self.layers / 12) ** 0.5)

    @property
    def embedding_b(self) -> float:
        """Parameters of one embedding table, 10^9."""
        return (self.vocab or 128_000) * self.width / 1e9

    @property
    def shares_embedding(self) -> bool:
        """Whether the output head is the input table; small models do when nobody says."""
        return self.total_b < 4.5 if self.tied is None else self.tied

    @property
    def moe(self) -> bool:
        return self.arch == "moe" or (self.active_b < 0.9 * self.total_b and "ple" not in self.arch)

    @property
    def latent(self) -> bool:
        """Multi-head latent attention: one compressed vector per token, keys and values in one."""
        return self.kv_heads == 1 and self.head_dim >= 512

    @property
    def linear_layers(self) -> int:
        """Layers with a recurrent state and no growing cache."""
        return max(self.layers - self.full_layers - self.swa_layers, 0)

    def kv_values(self, context: float) -> float:
        """Cached numbers read per token at this context, all layers together."""
        per_layer = self.kv_heads * self.head_dim * (1 if self.latent else 2)
        window = min(context, self.swa_window) if self.swa_window else context
        return per_layer * (self.full_layers * context + self.swa_layers * window)


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


class Load(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked of it, in tokens."""

    prompt: float = 0.0
    generate: float = 0.0
    depth: float = 0.0
    context: float = 0.0
    """Mean context while measured."""
    batch: int = 1
    """Streams at once; 0: as many as fit."""


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


@functools.cache
def known_shapes() -> dict[str, Shape]:
    """Normalised model name -> shape, for rows that leave parts out."""
    data = importlib.resources.files("locavore.planner").joinpath("data/model-shapes.json")
    models = json.loads(data.read_text())["models"]
    return {_plain(name): Shape(name=name, **facts) for name, facts in models.items()}


_DECORATION = re.compile(r"(instruct|chat|base|it|hf|fp8|bf16|nvfp4|meta|preview|\d{4})$")


def _plain(name: str) -> str:
    """`meta-llama/Llama-3.1-8B-Instruct` -> `llama318b`: letters and digits, no decoration."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower().rsplit("/", 1)[-1]).strip("-")
    while (shorter := _DECORATION.sub("", plain).strip("-")) != plain:
        plain = shorter
    return plain.replace("-", "")


def find_shape(name: str, total_b: float = 0.0) -> Shape | None:
    """A known model by name, also by its family and size (`Llama-3.1-70B` is `Llama-3-70B`)."""
    plain = _plain(name)
    shapes = known_shapes()
    if plain in shapes:
        return shapes[plain]
    close = [
        shape
        for key, shape in shapes.items()
        if key[:5] == plain[:5] and total_b and abs(shape.total_b / total_b - 1) < 0.02
    ]
    return close[0] if close else None
