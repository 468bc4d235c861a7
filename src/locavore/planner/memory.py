"""Memory of a model on devices: weights, cache at the allocated context, buffers, runtime.

    total = weights + cache(context) + compute buffers + workspace + runtime

Weights and cache are exact (they equal the engine's own log). The compute buffers are those of
llama.cpp's graph allocator, fitted exactly to its logs (docs/explain/planning.md): the larger of
the activation peak, the expert peak, the attention scores (without flash attention) and the
logits, plus the attention mask.
"""

import msgspec

from locavore.catalog.schema import Shape
from locavore.core.errors import ConfigError
from locavore.planner import quantization
from locavore.planner.tensors import (
    Tensor,
    cache_width,
    is_window_layer,
    owns_cache,
)

GIB = 2**30
MIB = 2**20
CELLS = 256
"""llama.cpp rounds a cache's cells up to this (`GGML_PAD(n_ctx, 256)`)."""
BLOCK = 16
"""Tokens per vLLM cache block."""

KV_BITS: dict[str, float] = {
    "f32": 32, "f16": 16, "bf16": 16, "fp8": 8, "q8_0": 8.5, "q5_1": 6, "q5_0": 5.5,
    "q4_1": 5, "q4_0": 4.5, "iq4_nl": 4.5,
}  # fmt: skip
"""Cache type -> bits per value: ggml blocks of 32 with their scales."""

REPACKED = ("Q4_0", "Q4_K", "IQ4_NL")
"""ggml types that the AVX2 build keeps a second, interleaved copy of (its log: CPU_REPACK)."""


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine spends memory beside weights and cache."""

    name: str
    runtime_mib: float
    """Per device: context, kernels, driver."""
    logits_rows: int | None
    """Rows of logits kept during prefill; None: one per sequence."""
    dequantizes: float = 0.0
    """Prefill expands this share of the largest matrix to 16 bits (hipBLAS and Vulkan paths)."""
    library_mib: float = 0.0
    """Workspace of the matrix library once prefill has run."""
    pins_host: bool = False
    """Its host buffers are pinned: they count where memory is unified (Vulkan)."""
    copies: int = 1
    """Copies of the graph's inputs per device when layers are split (pipelining)."""
    repacks: bool = False
    embedding_on_host: bool = True
    """The input embedding stays in system memory (llama.cpp)."""
    takes_share: float | None = None
    """Share of the device it takes whole (vLLM); the cache is what is left."""


# Runtime: medians of what measured runs hold beyond weights, cache and graph. ROCm and Vulkan
# from the Strix Halo memory runs (lhl/strix-halo-testing, Apache-2.0); the CPU figure from the
# embedded engine's resident memory here; CUDA: a context's size, documented range 300-500 MiB.
ENGINES: dict[str, Engine] = {
    "embedded": Engine(
        name="embedded", runtime_mib=70, logits_rows=None, repacks=True, embedding_on_host=False
    ),
    "llama.cpp-cpu": Engine(
        name="llama.cpp-cpu", runtime_mib=70, logits_rows=512, repacks=True,
        embedding_on_host=False,
    ),
    "llama.cpp-cuda": Engine(name="llama.cpp-cuda", runtime_mib=420, logits_rows=512, copies=4),
    "llama.cpp-rocm": Engine(
        name="llama.cpp-rocm", runtime_mib=230, logits_rows=512, dequantizes=1.0,
        library_mib=180, copies=4,
    ),
    "llama.cpp-vulkan": Engine(
        name="llama.cpp-vulkan", runtime_mib=270, logits_rows=512, dequantizes=0.5,
        pins_host=True, copies=4,
    ),
    "llama.cpp-metal": Engine(name="llama.cpp-metal", runtime_mib=120, logits_rows=512),
    "mlx": Engine(name="mlx", runtime_mib=300, logits_rows=None, embedding_on_host=False),
    "vllm": Engine(
        name="vllm", runtime_mib=1200, logits_rows=256, embedding_on_host=False, takes_share=0.9
    ),
}  # fmt: skip


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What is loaded, and how."""

    quantization: str
    context_tokens: int
    """Tokens one sequence may hold."""
    parallel: int = 1
    """Sequences with a full context each."""
    kv_type: str = "f16"
    engine: str = "llama.cpp-cuda"
    devices: int = 1
    split: str = "layer"
    """`layer`: each device holds whole layers; `tensor`: a slice of each layer."""
    batch_tokens: int = 512
    """Tokens computed at once during prefill (llama.cpp `n_ubatch`)."""
    flash_attention: bool = True
    offloaded_layers: int | None = None
    """Layers on the device; None: all. The rest stay in system memory."""
    file_bytes: int | None = None
    """Known size of the weights file: used instead of the computed one."""
    unified: bool = False
    """The device shares system memory."""
    prefill: bool = True
    """Count the prefill workspace (peak); False: memory while only generating."""


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes by what they hold; device figures are sums over the devices."""

    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    workspace_bytes: int
    runtime_bytes: int
    repack_bytes: int = 0
    host_bytes: int = 0
    """In system memory beside the devices: offloaded layers, their cache, the input embedding."""

    @property
    def total_bytes(self) -> int:
        """On the devices."""
        return (
            self.weights_bytes
            + self.cache_bytes
            + self.compute_bytes
            + self.workspace_bytes
            + self.runtime_bytes
            + self.repack_bytes
        )


def engine(name: str) -> Engine:
    """Memory behaviour of the engine called `name`; ConfigError with the known ones."""
    if name in ENGINES:
        return ENGINES[name]
    raise ConfigError([f"no memory model for engine {name!r}; known: {', '.join(ENGINES)}"])


def kv_bits(kind: str) -> float:
    """Bits per cached value; ConfigError names what exists."""
    bits = KV_BITS.get(kind.strip().lower())
    if bits is None:
        raise ConfigError([f"no cache type {kind!r}; known: {', '.join(KV_BITS)}"])
    return bits


def cache_bytes_per_token(shape: Shape, kv_type: str = "f16") -> int:
    """Growth of the cache per token, all growing layers: Σ (keys + values) · bits / 8."""
    width = sum(
        sum(cache_width(shape, layer))
        for layer in range(shape.layers)
        if owns_cache(shape, layer) and not is_window_layer(shape, layer)
    )
    return round(width * kv_bits(kv_type) / 8)


def cache_bytes(
    shape: Shape,
    context_tokens: int,
    *,
    parallel: int = 1,
    kv_type: str = "f16",
    batch_tokens: int = 512,
    cells: int = CELLS,
) -> int:
    """The whole allocated cache, windows and fixed states included.

    A window layer keeps window + batch tokens, never more than the context.
    """
    per_value = kv_bits(kv_type) / 8
    full = -(-context_tokens // cells) * cells
    window = min(full, -(-(shape.window + batch_tokens) // cells) * cells)
    total = 0.0
    for layer in range(shape.layers):
        if owns_cache(shape, layer):
            tokens = window if is_window_layer(shape, layer) else full
            total += tokens * sum(cache_width(shape, layer)) * per_value
    return round(parallel * total) + parallel * state_bytes(shape)


def state_bytes(shape: Shape) -> int:
    """Fixed state of the linear layers for one sequence, in F32: convolution columns and S."""
    linear = shape.linear
    if linear is None:
        return 0
    keys = linear.key_heads * linear.key_dim
    values = linear.value_heads * linear.value_dim
    columns = (linear.kernel - 1) * (2 * keys + values)
    return linear.layers * 4 * (columns + values * linear.key_dim)


def compute_bytes(shape: Shape, setting: Setting, how: Engine) -> int:
    """Compute buffers of llama.cpp's graph, over all devices.

    activations 4·u·(5h + 3f); experts 4·u·(3h + f + 2·a·h); scores 4·u·(heads·n + 4h) without
    flash attention; logits 4·r·(vocab + h); mask 2·u·n (4·u·n without flash attention). u: batch
    tokens, n: cells, h: hidden, f: feed-forward width in use, a: active experts, r: logit rows.
    """
    cells = -(-setting.context_tokens // CELLS) * CELLS
    batch = min(setting.batch_tokens, cells)
    hidden, wide, active = shape.hidden, _feed_forward_width(shape), 0
    if shape.moe:
        active = shape.moe.active
    mask = _mask_bytes(shape, setting, cells, batch)
    peaks = [4 * batch * (5 * hidden + 3 * wide) + mask]
    if active:
        peaks.append(4 * batch * (3 * hidden + wide + 2 * active * hidden) + mask)
    if not setting.flash_attention:
        peaks.append(4 * batch * (shape.heads * cells + 4 * hidden) + mask)
    rows = setting.parallel if how.logits_rows is None else min(how.logits_rows, batch)
    peaks.append(4 * rows * shape.vocab + 4 * batch * hidden)
    one = max(peaks)
    if setting.devices == 1:
        return one
    extra = (how.copies - 1) * mask + how.copies * 4 * batch * hidden if how.copies > 1 else 0
    return setting.devices * (one + extra)


def _mask_bytes(shape: Shape, setting: Setting, cells: int, batch: int) -> int:
    each = 2 if setting.flash_attention else 4
    mask = each * batch * cells
    if shape.window_layers:
        window = min(cells, -(-(shape.window + batch) // CELLS) * CELLS)
        mask += each * batch * window
    return mask


def _feed_forward_width(shape: Shape) -> int:
    """Width of feed-forward activations alive at once for one token."""
    if not shape.moe:
        return shape.feed_forward * (2 if shape.wide_shared_feed_forward else 1)
    routed = shape.moe.active * shape.moe.width
    return max(routed, shape.moe.shared_width, shape.feed_forward)


def _workspace_bytes(shape: Shape, setting: Setting, how: Engine) -> int:
    """The largest dense matrix expanded to 16 bits, and its input and output rows."""
    if not setting.prefill:
        return 0
    wide = max(shape.feed_forward, shape.heads * shape.head_dim, 1)
    if shape.moe:
        wide = max(wide, shape.moe.width)
    batch = min(setting.batch_tokens, setting.context_tokens)
    expanded = how.dequantizes * (2 * shape.hidden * wide + 2 * batch * (shape.hidden + wide))
    return round(expanded + how.library_mib * MIB)


def footprint(shape: Shape, setting: Setting) -> Footprint:
    """Predicted memory. Raises ConfigError for an unknown quantization, cache type or engine."""
    how = engine(setting.engine)
    quant = quantization.canonical(setting.quantization)
    weights = quantization.weight_bytes(shape, quant)
    sizes = quantization.tensor_bytes(shape, quant)
    scale = (setting.file_bytes / weights) if setting.file_bytes else 1.0
    table = sum(size for t, size in sizes if t.role in ("embedding", "per_layer_embedding"))
    host = 0.0
    if how.embedding_on_host and not (how.pins_host and setting.unified):
        looked_up = sum(
            size
            for tensor, size in sizes
            if tensor.role == "per_layer_embedding"
            or (tensor.role == "embedding" and not shape.tied_embeddings)
        )
        host += looked_up * scale
    cells = BLOCK if how.name == "vllm" else CELLS
    cache = cache_bytes(
        shape, setting.context_tokens, parallel=setting.parallel, kv_type=setting.kv_type,
        batch_tokens=setting.batch_tokens, cells=cells,
    )  # fmt: skip
    on_device = weights * scale - host
    if setting.offloaded_layers is not None and setting.offloaded_layers < shape.layers:
        share = max(0, setting.offloaded_layers) / shape.layers
        outside = (weights - table) * scale * (1 - share)
        on_device -= outside
        host += outside + cache * (1 - share)
        cache = round(cache * share)
    repack = _repack_bytes(shape, quant, sizes) if how.repacks else 0
    copies = setting.devices if setting.split == "tensor" and _replicates(shape, setting) else 1
    return Footprint(
        weights_bytes=round(on_device),
        cache_bytes=cache * copies,
        compute_bytes=compute_bytes(shape, setting, how),
        workspace_bytes=_workspace_bytes(shape, setting, how) * setting.devices,
        runtime_bytes=round(how.runtime_mib * MIB) * setting.devices,
        repack_bytes=repack,
        host_bytes=round(host),
    )


def _replicates(shape: Shape, setting: Setting) -> bool:
    """Tensor parallel over more devices than key-value heads repeats the cache; MLA always does."""
    return shape.mla is not None or shape.kv_heads < setting.devices


def _repack_bytes(shape: Shape, quant: str, sizes: tuple[tuple[Tensor, int], ...]) -> int:
    """The interleaved copy of the AVX2 build: block-wise 4-bit matrices except the embedding."""
    if not quantization.is_gguf(quant):
        return 0
    kinds = {tensor.name: kind for tensor, kind in quantization.gguf_types(shape, quant)}
    return sum(
        size
        for tensor, size in sizes
        if kinds[tensor.name] in REPACKED
        and tensor.role not in ("embedding", "per_layer_embedding")
        and len(tensor.dims) == 2
    )
