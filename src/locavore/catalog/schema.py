"""What a catalog file may say. Unknown keys are errors; every figure names a source and a date.

A file has a `[sources.<key>]` table; figures name a key. A record that comes whole from one page
(a model's shape from its config) names the source once.
"""

import datetime
from typing import Literal

import msgspec

Date = datetime.date


class Record(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Root of the catalog's records."""


class Source(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A page somebody can open."""

    title: str
    url: str
    read: Date
    """When we looked."""
    license: str | None = None


class Figure(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One number with its unit, source and date; `low` and `high` when the source gives a range."""

    value: float
    unit: str
    source: str
    as_of: Date
    low: float | None = None
    high: float | None = None
    conditions: str | None = None


class Mla(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Multi-head latent attention: what is cached is `kv_rank + rope_dim` values per token."""

    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    q_rank: int = 0
    """0: the query is not compressed."""


class Moe(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Experts of the feed-forward layers."""

    experts: int
    active: int
    width: int
    """Hidden width of one expert."""
    shared_width: int = 0
    """Width of all always-active experts together."""
    dense_layers: int = 0
    """Leading layers with an ordinary feed-forward of width `Shape.feed_forward`."""
    every: int = 1
    """1: each remaining layer has experts; 2: every second one."""
    beside_dense: bool = False
    """The dense feed-forward runs in parallel in each layer (Gemma 4)."""
    expert_bias: bool = False
    """Biases on router and experts (gpt-oss)."""


class Linear(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Layers whose memory is a fixed state per sequence instead of a growing cache."""

    layers: int
    kernel: int
    """Convolution width; the state keeps kernel - 1 columns."""
    key_heads: int = 0
    key_dim: int = 0
    value_heads: int = 0
    value_dim: int = 0
    kind: Literal["delta", "shortconv", "mamba2"] = "delta"


class Shape(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Everything memory and speed need, from the published config."""

    source: str
    as_of: Date
    architecture: str
    """The name llama.cpp gives it (`general.architecture`)."""
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    """Width of a dense feed-forward layer; 0: none."""
    vocab: int
    tied_embeddings: bool
    context_tokens: int
    """Trained context (`max_position_embeddings`)."""
    effective_context: Figure | None = None
    """Tokens to which a published long-context test says quality holds; None: not published."""
    window: int = 0
    """Sliding-window size in tokens; 0: every layer sees everything."""
    window_layers: int = 0
    window_kv_heads: int | None = None
    """None: as in the full layers."""
    window_head_dim: int | None = None
    shared_kv_layers: int = 0
    """Trailing layers that reuse an earlier layer's cache (Gemma 4 E models)."""
    mla: Mla | None = None
    moe: Moe | None = None
    linear: Linear | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    query_gate: bool = False
    """The query projection also makes a gate of the same width (Qwen3-Next family)."""
    key_is_value: bool = False
    """Full layers project keys once and use them as values (Gemma 4); both are cached."""
    attention_sinks: bool = False
    per_layer_embedding: int = 0
    """Width of Gemma's per-layer token embedding."""
    wide_shared_feed_forward: bool = False
    """Layers with a shared cache have a feed-forward twice as wide (Gemma 4 E2B)."""
    parameters: Figure | None = None
    """Published total, in billions (`B`)."""
    active_parameters: Figure | None = None

    @property
    def linear_layers(self) -> int:
        return self.linear.layers if self.linear else 0

    @property
    def attention_layers(self) -> int:
        """Layers with a cache that grows with the context (a window's layers included)."""
        return self.layers - self.linear_layers

    @property
    def full_layers(self) -> int:
        return self.attention_layers - self.window_layers


class QuantizationOffer(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A published quantization of one model."""

    name: str
    file_bytes: int | None = None
    source: str
    as_of: Date


class Model(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One open-weight model."""

    name: str
    aliases: tuple[str, ...] = ()
    family: str
    maker: str
    license: str
    """Key of a license record."""
    shape: Shape | None = None
    """None: looked for and not found; memory and speed are then refused, never guessed."""
    modalities: tuple[str, ...] = ("text",)
    released: Date | None = None
    engines: tuple[str, ...] = ()
    """Engines known to run it; empty: by architecture and format."""
    files: tuple[QuantizationOffer, ...] = ()
    notes: str | None = None


class TaskModel(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A small model for one task, its benchmark, and the cloud service it would replace."""

    name: str
    task: str
    license: str | None = None
    size_mb: Figure | None = None
    benchmark: str
    metric: str
    higher_is_better: bool = True
    score: Figure | None = None
    score_high: float | None = None
    cloud: str
    cloud_score: Figure | None = None
    stated_ratio: Figure | None = None
    """When no scores are given: the ratio the source states, percent."""
    cloud_price: str | None = None
    """Key of a unit price in the rates."""
    latency_ms: Figure | None = None
    cloud_latency_ms: Figure | None = None
    notes: str | None = None


DeviceKind = Literal[
    "consumer_gpu", "workstation_gpu", "datacentre_gpu", "apple", "apu", "cpu"
]  # fmt: skip


class Power(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Watts."""

    idle_w: Figure | None = None
    load_w: Figure | None = None
    tdp_w: Figure | None = None


class Hardware(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One device, or a whole machine with unified memory."""

    name: str
    aliases: tuple[str, ...] = ()
    kind: DeviceKind
    memory_gb: Figure
    """10^9 or 2^30 as the maker sells it: the unit says `GiB` for GPUs."""
    usable_memory: Figure | None = None
    """Share a model may use; None: the default of the kind."""
    bandwidth_gbs: Figure | None = None
    fp16_tflops: Figure | None = None
    fp8_tflops: Figure | None = None
    int8_tops: Figure | None = None
    interconnect_gbs: Figure | None = None
    nvlink: bool = False
    low_profile: bool = False
    whole_machine: bool = False
    """Purchase price and power cover the machine, not just a card."""
    power: Power = Power()
    price_usd: Figure | None = None
    resale_share_3y: Figure | None = None
    """Share of the purchase price left after three years."""
    rent_usd_hour: Figure | None = None
    backends: tuple[str, ...] = ()
    notes: str | None = None


When = Literal["always", "product", "distribute_weights", "derivative", "train_other"]
"""The uses a license may attach a condition to."""


class Obligation(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One thing a license asks, and when."""

    code: str
    text: str
    when: tuple[When, ...]
    users_above: int | None = None
    """Applies to whoever has more monthly active users than this."""
    revenue_usd_month_above: int | None = None
    forbids: bool = False
    """The stated use needs another agreement."""
    outside: tuple[str, ...] = ()
    """Regions (ISO or `EU`) where the grant does not reach."""


class License(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A model license as data."""

    key: str
    name: str
    source: str
    as_of: Date
    osi_approved: bool
    commercial: bool
    weights_open: bool = True
    obligations: tuple[Obligation, ...] = ()


class QuantizationQuality(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What a quantization costs in quality on one model, as published."""

    quantization: str
    model: str
    bits_per_weight: Figure | None = None
    benchmark_average: Figure | None = None
    perplexity_loss_percent: Figure | None = None


class Engine(Record, frozen=True, kw_only=True, omit_defaults=True):
    """An inference engine: what it reads, where it runs, when to use it."""

    key: str
    name: str
    source: str
    as_of: Date
    formats: tuple[str, ...]
    hardware: tuple[str, ...]
    concurrency: Literal["one", "few", "many"]
    batching: bool
    tensor_parallel: bool
    cpu_offload: bool
    use_when: str
    not_when: str
    quantized_kv: tuple[str, ...] = ("f16",)
    memory_share: Figure | None = None
    """Share of device memory it takes whole at start (vLLM); None: what the model needs."""


class Rate(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A dated price or factor anybody can override."""

    key: str
    figure: Figure
    text: str


class ScoreTable(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One published table: rows are models, columns are benchmarks, cells percent or Elo."""

    source: str
    as_of: Date
    conditions: str
    benchmarks: tuple[str, ...]
    rows: dict[str, tuple[float | None, ...]]


class Benchmark(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What a benchmark is, and how many items carry its error."""

    name: str
    measures: str
    scale: Literal["percent", "elo"] = "percent"
    items: int | None = None
    source: str
    as_of: Date


class File(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One catalog file: any mixture of records, and the sources they name."""

    sources: dict[str, Source] = {}
    models: tuple[Model, ...] = ()
    task_models: tuple[TaskModel, ...] = ()
    hardware: tuple[Hardware, ...] = ()
    engines: tuple[Engine, ...] = ()
    licenses: tuple[License, ...] = ()
    rates: tuple[Rate, ...] = ()
    benchmarks: tuple[Benchmark, ...] = ()
    quantization_quality: tuple[QuantizationQuality, ...] = ()
    scores: tuple[ScoreTable, ...] = ()


class Scored(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One cell of a score table, with where it stands."""

    benchmark: str
    value: float
    source: str
    as_of: Date
    conditions: str
