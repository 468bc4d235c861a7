"""The physics, as arithmetic: bytes over attained bandwidth, work over attained rate, launches.

Every argument may be a float (at run time) or an array (in the fit): only + - * / ** appear, so
the shipped prediction and the fitted one are the same expressions. Times are milliseconds,
sizes 10^9 bytes, bandwidths 10^9 bytes per second, rates 10^12 operations per second.
"""

from collections.abc import Mapping
from typing import Any

Quantity = Any  # a float, or an array of floats while fitting
Values = Mapping[str, Quantity]

SHARPNESS = 4
"""Exponent that joins memory time and arithmetic time: they overlap, but not perfectly."""


def decode_ms(f: Values, c: Values) -> Quantity:
    """Time of one decode step for one stream.

    f: features of `speed_features.decode_features`; c: coefficients, all positive.
    """
    memory = f["weights_gb"] / (f["bandwidth_gbs"] * c["weight_share"] * c["hbm"] ** f["hbm"])
    memory = memory + f["kv_gb"] / (f["bandwidth_gbs"] * c["kv_share"])
    unpack = c["unpack"] * c["cpu_unpack"] ** f["cpu"] * c["codebook"] ** f["codebook"]
    work = f["weights_g"] * unpack / f["vector_tflops"] / 1000
    memory = memory + f["attend_g"] * c["attend"] / f["vector_tflops"] / 1000
    overlap = (memory**SHARPNESS + work**SHARPNESS) ** (1 / SHARPNESS) * 1000
    launches = (
        f["layers"] * c["layer_us"]
        + f["moe_layers"] * c["moe_us"]
        + f["linear_layers"] * c["linear_us"]
    ) / 1000
    prompt = f["prompt_gflop"] / (f["tflops"] * c["prompt_share"])
    return overlap + launches + c["token_us"] / 1000 + _exchange_ms(f, c) + prompt


def _exchange_ms(f: Values, c: Values) -> Quantity:
    """Between devices: two all-reduces per layer under tensor parallel, one hop per split."""
    reduce_us = f["tp_layers"] * c["reduce_us"]
    return (reduce_us + f["hops"] * c["hop_us"]) / 1000


def prefill_ms(f: Values, c: Values) -> Quantity:
    """Time per prompt token.

    Matrix work at an attained share of the dense FP16 rate, joined with reading every weight
    once per chunk; attention over the context, which is bound by arithmetic and traffic alike, so
    by their geometric mean, and the cheaper the more queries share a key; launches once per chunk.
    Larger chips are harder to fill, and experts that get few tokens of a chunk waste their tiles.
    `split` devices share each layer and exchange vectors over PCIe; `overlap` is how many work at
    the same time on layers of their own.
    """
    grain = c["moe_matmul"] ** f["moe"] * f["tokens_per_expert"] ** c["moe_grain"]
    rate = f["tflops"] * f["relative_rate"] ** -c["size_loss"] * c["matmul_share"] * grain * 1000
    rate = rate * c["cpu_matmul"] ** f["cpu"] * c["cpu_tiles"] ** f["cpu_tiled"]
    rate = rate / c["codebook"] ** f["codebook"]
    matmul = f["matmul_gflop"] / rate
    read = f["file_gb"] / (f["bandwidth_gbs"] * c["stream_share"]) / f["chunk"]
    work = (matmul**2 + read**2) ** 0.5
    reach = (f["tflops"] * f["bandwidth_gbs"] / 3) ** 0.5
    shared = f["sharing"] ** c["sharing_gain"]
    attention = f["attention_gflop"] / (reach * shared * c["attention_share"] * 1000)
    gain = f["split"] * f["overlap"] ** c["split_gain"]
    launches = f["layers"] * c["layer_us"] / f["chunk"] / 1e6
    exchange = f["exchange_mb"] * c["pcie_us_mb"] / 1e6
    return (work / gain + attention / gain + launches + exchange) * 1000


def step_ms(f: Values, c: Values) -> Quantity:
    """One decode step of a whole batch on `devices` devices, without prompts in between.

    Weights touched and caches read at attained bandwidth, joined with matrix work at an attained
    rate; launches and exchanges per layer; a host cost per sequence.
    """
    memory = (f["dense_gb"] + f["expert_gb"]) / (
        f["bandwidth_gbs"] * c["weight_share"] * c["hbm"] ** f["hbm"]
    )
    memory = memory + f["kv_gb"] / (f["bandwidth_gbs"] * c["kv_share"])
    rate = f["tflops"] * c["batch_share"] * c["moe_batch"] ** f["moe"] * 1000
    work = f["step_gflop"] / rate
    joined = (memory**SHARPNESS + work**SHARPNESS) ** (1 / SHARPNESS) * 1000
    launches = (
        f["layers"] * c["layer_us"]
        + f["moe_layers"] * c["moe_us"]
        + f["linear_layers"] * c["linear_us"]
        + f["tp_layers"] * (c["reduce_us"] + f["tp_doublings"] * c["doubling_us"])
        + f["routed_tokens"] * c["routing_us"]
        + f["exchange_mb"] * c["exchange_us_mb"]
        + f["pcie_mb"] * c["pcie_us_mb"]
        + f["scheduled"] * c["sequence_us"]
    ) / 1000
    return (joined + launches) * c["draft"] ** f["drafting"]


def prompt_ms(f: Values, c: Values) -> Quantity:
    """Time that computing one request's prompt takes from the batch."""
    rate = f["tflops"] * c["prompt_share"] * c["moe_prompt"] ** f["moe"] * 1000
    return f["prompt_gflop"] / rate * 1000 + f["prompt_attention_gflop"] / rate * 1000


def tpot_ms(f: Values, c: Values) -> Quantity:
    """Mean time between a request's tokens: a step, and its share of other requests' prompts."""
    return step_ms(f, c) + f["batch"] / f["generate"] * prompt_ms(f, c) * c["interleave"]


def ttft_ms(f: Values, c: Values) -> Quantity:
    """Time to the first token: own prompt, prompts that came together, the step under way.

    f: alone_ms (own prompt), step_ms, batch, wait_ms: requests beyond what memory holds wait for
    whole answers.
    """
    alone = f["alone_ms"] * c["ttft_prompt"]
    together = alone * c["burst"] * f["batch"] ** 0.7
    return c["fixed_ms"] + alone + together + c["steps"] * f["step_ms"] + f["wait_ms"]
