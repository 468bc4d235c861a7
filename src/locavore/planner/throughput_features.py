"""Point -> the numbers the serving formulas take: a batch on one group of devices."""

import math

from locavore.planner.speed_features import (
    chunk_tokens,
    dense_bits,
    fast_links,
    pcie_speed,
    summing_rate,
)
from locavore.planner.speed_point import Point

MEMORY_USED = 0.9
"""Share of device memory that serving engines claim for weights and cache by default."""
ONE_NODE = 8
"""Devices of one server. Larger NVLink systems read prompts on about half of the devices."""
EXPERT_COPIES = 8
"""Devices a token's vector goes to when experts are spread: about the experts it uses."""
SKEW = 0.85
"""Tokens of one batch prefer the same experts: b tokens touch what b^0.85 random ones would."""
MAX_SEQUENCES = 512
"""Sequences in flight that engines allow unless told otherwise (vLLM 256, TensorRT-LLM 2048)."""


def group_devices(point: Point) -> int:
    """Devices that hold one copy of the model together.

    As told by the parallelism; otherwise the fewest (a power of two) whose memory holds the
    weights and leaves half for the cache.
    """
    setting = point.setting
    if setting.devices <= 1:
        return 1
    name = setting.parallelism.lower()
    if "server" not in name:
        return setting.devices
    group = 1
    while group < setting.devices and point.weights_gb > 0.45 * point.machine.memory_gb * group:
        group *= 2
    return min(group, setting.devices)


def kv_bytes_value(point: Point) -> float:
    """Bytes per cached number: as told; engines that serve 4- and 8-bit weights often use 8-bit
    caches, which the fitted share absorbs."""
    return point.setting.kv_bytes


def cache_gb(point: Point, context: float) -> float:
    """Cache of one sequence, 10^9 bytes."""
    return point.shape.kv_values(context) * kv_bytes_value(point) / 1e9


def capacity(point: Point) -> float:
    """Sequences whose caches fit beside the weights, on one group; infinity when memory is unknown.

    Latent attention without data-parallel groups keeps a full copy per device.
    """
    memory = point.machine.memory_gb
    if memory <= 0:
        return math.inf
    group = group_devices(point)
    free = max(MEMORY_USED * memory * group - point.weights_gb, 0.02 * memory * group)
    end = point.load.prompt + point.load.generate
    return max(free / max(cache_gb(point, end) * _copies(point, group), 1e-9), 1.0)


def attention_ranks(point: Point, group: int) -> int:
    """Devices of a group that attend to sequences of their own.

    As told; at full load (`batch` 0) and across servers, latent attention is spread over all
    devices, because a full copy of the cache on each would waste the memory that bounds the batch.
    """
    if point.shape.latent and (point.load.batch == 0 or point.setting.devices > ONE_NODE):
        return group
    return min(point.setting.attention_dp, group)


def _copies(point: Point, group: int) -> float:
    """How many devices of a group hold the same part of the cache."""
    holders = group // attention_ranks(point, group)
    heads = 1 if point.shape.latent else point.shape.kv_heads
    return holders / min(holders, heads)


def batch_features(point: Point, batch: float) -> dict[str, float]:
    """One group of devices stepping `batch` sequences at the load's mean context."""
    shape, load = point.shape, point.load
    separate = point.setting.devices > ONE_NODE
    group = group_devices(point)
    tables = shape.embedding_b * (1 if shape.shares_embedding else 2)
    dense_b, expert_b = shape.dense_b, shape.total_b - shape.dense_b if shape.moe else 0.0
    wide = max(dense_bits(point), point.bits) / 8
    expert_bytes = max((point.weights_gb - dense_b * wide) / max(expert_b, 1e-9), 0.0)
    touched = expert_b * (1 - (1 - shape.expert_share) ** batch**SKEW)
    generate = max(load.generate, 1.0)
    computed = max(shape.active_b - shape.embedding_b, 0.3 * shape.active_b)
    boost = rate_boost(point) * summing_rate(point)
    layer_tokens = shape.layers if group > 1 else 0
    ranks = group if separate else 1  # within a server, one scheduler sees every sequence
    exchanged = layer_tokens * batch * shape.width * 2 / 1e6 * min(1.0, EXPERT_COPIES / ranks)
    pcie = not fast_links(point)
    return {
        "dense_gb": max(dense_b - tables / 2, 0.0) * wide / group,
        "expert_gb": touched * expert_bytes / group,
        "kv_gb": batch * cache_gb(point, load.context) * _copies(point, group) / group,
        "bandwidth_gbs": point.machine.bandwidth_gbs,
        "hbm": float(point.hbm),
        "tflops": max(point.machine.fp16_tflops, 0.05) * boost,
        "moe": math.log2(shape.total_b / shape.active_b) if shape.moe else 0.0,
        "step_gflop": 2 * shape.active_b * batch / group,
        "layers": float(shape.layers),
        "moe_layers": float(shape.layers if shape.moe else 0),
        "linear_layers": float(shape.linear_layers),
        "tp_layers": float(layer_tokens),
        "tp_doublings": math.log2(max(group, 1)),
        "routed_tokens": shape.layers * batch / group if shape.moe else 0.0,
        "exchange_mb": 0.0 if pcie else exchanged,
        "pcie_mb": exchanged * (group - 1) / pcie_speed(point) if pcie else 0.0,
        "batch": float(batch),
        "scheduled": batch / ranks,
        "prompt_gflop": 0.0 if separate else 2 * computed * load.prompt / group,
        "prompt_attention_gflop": (
            2 * shape.queries * shape.full_layers * load.prompt**2 / 1e9 / group
        ),
        "generate": generate,
        "queued": 0.0,
        "chunk": chunk_tokens(point),
        "group": float(group),
        "drafting": float(point.setting.drafting),
    }


def rate_boost(point: Point) -> float:
    """Matrix rate of the precision over FP16's: 2 at 8 bits, 4 at 4 bits where there are units."""
    quant, name = point.quant, point.machine.name.lower()
    if quant == "q8":
        return 1.0 if "a100" in name or "3090" in name else 2.0
    if quant == "fp4" or "mxfp4" in point.setting.quant.lower():
        blackwell = any(w in name for w in ("b200", "b300", "pro 6000", "50"))
        return (4.0 if quant == "fp4" else 2.0) if blackwell else 1.0
    return 1.0
