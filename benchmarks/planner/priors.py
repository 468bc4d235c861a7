"""What the fit believes before it sees data: centers from data sheets and kernels, with spreads.

Spreads of labels say how much code paths, chip generations or single machines may differ.
"""

from math import log

from benchmarks.planner.solver import Prior

DECODE: dict[str, Prior] = {
    "weight_share": Prior(
        log(0.8),
        0.3,
        {"software": 0.24, "vendor": 0.048, "path": 0.12, "generation": 0.032, "kernel": 0.08},
    ),
    "kv_share": Prior(log(0.5), 0.11, {"software": 0.24, "vendor": 0.4, "path": 0.4}),
    "hbm": Prior(log(0.7), 0.3, {"software": 0.02}),
    "unpack": Prior(log(10), 0.48, {"vendor": 1, "path": 0.3, "quant": 0.6}),
    "layer_us": Prior(
        log(40), 0.8, {"software": 0.08, "vendor": 0.048, "path": 0.4, "generation": 0.2}
    ),
    "moe_us": Prior(log(50), 0.8, {"software": 0.4, "vendor": 0.12, "path": 0.16}),
    "linear_us": Prior(log(15), 1, {"software": 0.16, "path": 0.16}),
    "token_us": Prior(log(300), 1, {"software": 0.16, "path": 0.4, "vendor": 0.1}),
    "reduce_us": Prior(log(20), 1, {"path": 0.28}),
    "hop_us": Prior(log(200), 1, {"path": 0.7}),
    "machine": Prior(0.0, 1e-4, {"machine": 0.1, "engine": 0.2, "generation": 0.1}),
}

PREFILL: dict[str, Prior] = {
    "matmul_share": Prior(
        log(0.4),
        0.013,
        {"software": 0.03, "vendor": 0.2, "path": 0.08, "generation": 0.2, "kernel": 0.06},
    ),
    "moe_matmul": Prior(log(0.4), 0.16, {"software": 0.08, "path": 0.8}),
    "moe_grain": Prior(log(0.3), 0.11),
    "size_loss": Prior(log(0.15), 0.11),
    "stream_share": Prior(log(0.7), 0.12),
    "attention_share": Prior(log(0.15), 0.64, {"software": 0.02, "vendor": 0.2, "path": 0.05}),
    "split_gain": Prior(log(0.8), 0.12, {"path": 5}),
    "layer_us": Prior(log(150), 5.6, {"software": 0.05, "vendor": 0.2, "path": 0.08}),
    "machine": Prior(0.0, 0.0001, {"machine": 0.2, "engine": 0.05}),
}

SERVING: dict[str, Prior] = {
    "weight_share": Prior(log(0.7), 0.048, {"path": 0.08, "quant": 0.2, "generation": 0.1}),
    "hbm": Prior(log(0.9), 0.2),
    "kv_share": Prior(log(0.5), 0.24, {"path": 0.4}),
    "batch_share": Prior(log(0.4), 0.5, {"path": 0.12, "generation": 0.15, "quant": 0.024}),
    "moe_batch": Prior(log(0.85), 0.3, {"path": 0.2}),
    "layer_us": Prior(
        log(25), 1.6, {"path": 0.5, "quant": 0.2, "generation": 0.08, "workload": 0.048}
    ),
    "moe_us": Prior(log(30), 0.13, {"path": 0.3, "quant": 0.4}),
    "linear_us": Prior(log(10), 0.2),
    "reduce_us": Prior(log(10), 1.6, {"path": 0.4, "generation": 0.16}),
    "doubling_us": Prior(log(3), 0.8, {"generation": 0.16}),
    "routing_us": Prior(log(0.1), 1),
    "exchange_us_mb": Prior(log(3), 4, {"generation": 0.8}),
    "pcie_us_mb": Prior(log(200), 0.24, {"generation": 0.8}),
    "sequence_us": Prior(log(12), 0.2, {"path": 0.8}),
    "prompt_share": Prior(log(0.4), 0.5, {"path": 0.3, "generation": 0.024, "quant": 0.3}),
    "moe_prompt": Prior(log(0.85), 0.3, {"path": 0.2}),
    "interleave": Prior(0.0, 0.3, {"workload": 0.7}),
    "machine": Prior(
        0.0, 1e-4, {"machine": 0.03, "generation": 0.15, "kernel": 0.02, "workload": 0.1}
    ),
}

TTFT: dict[str, Prior] = {
    "ttft_prompt": Prior(0.0, 1, {"path": 0.13}),
    "burst": Prior(log(0.2), 2, {"path": 0.032}),
    "fixed_ms": Prior(log(30), 1.6, {"path": 1.4}),
    "steps": Prior(log(1.5), 0.7, {"path": 0.4}),
    "machine": Prior(0.0, 1e-4, {"machine": 0.01, "kernel": 0.06}),
}


# The first physical model of this project, to compare with: one set of coefficients per group of
# backends, nothing per machine, chip or kernel.
_NONE = Prior(log(1e-3), 1e-3)
SIMPLE_DECODE: dict[str, Prior] = {
    "weight_share": Prior(log(0.75), 0.5, {"group": 0.5}),
    "kv_share": Prior(log(0.5), 1.0, {"group": 1.0}),
    "hbm": Prior(0.0, 1e-3),
    "unpack": Prior(log(10), 1.5, {"group": 0.8, "quant": 0.8}),
    "layer_us": Prior(log(60), 1.0, {"group": 1.0}),
    "moe_us": Prior(log(50), 1.0, {"group": 1.0}),
    "linear_us": _NONE,
    "token_us": _NONE,
    "reduce_us": Prior(log(20), 1.0),
    "hop_us": Prior(log(200), 1.0),
    "machine": Prior(0.0, 1e-4),
}
SIMPLE_PREFILL: dict[str, Prior] = {
    "matmul_share": Prior(log(0.4), 0.5, {"group": 0.5, "quant": 0.3}),
    "moe_matmul": Prior(log(0.4), 0.4),
    "moe_grain": _NONE,
    "size_loss": _NONE,
    "stream_share": Prior(log(0.7), 0.01),
    "attention_share": Prior(log(0.15), 0.8, {"group": 0.8}),
    "split_gain": Prior(log(0.8), 0.3),
    "layer_us": Prior(log(150), 0.7, {"group": 0.5}),
    "machine": Prior(0.0, 1e-4),
}
SIMPLE_SERVING: dict[str, Prior] = {
    "weight_share": Prior(log(0.7), 0.3, {"path": 0.3}),
    "hbm": Prior(0.0, 1e-3),
    "kv_share": Prior(log(0.5), 0.6, {"path": 0.4}),
    "batch_share": Prior(log(0.4), 0.5, {"path": 0.5}),
    "moe_batch": Prior(log(0.85), 0.3),
    "layer_us": Prior(log(25), 0.8, {"path": 0.5}),
    "moe_us": Prior(log(30), 0.8, {"path": 0.5}),
    "linear_us": _NONE,
    "reduce_us": Prior(log(10), 0.8, {"path": 0.4}),
    "doubling_us": _NONE,
    "routing_us": _NONE,
    "exchange_us_mb": _NONE,
    "pcie_us_mb": _NONE,
    "sequence_us": _NONE,
    "prompt_share": Prior(log(0.4), 0.5, {"path": 0.5}),
    "moe_prompt": Prior(log(0.85), 0.3),
    "interleave": Prior(log(1.0), 0.3),
    "machine": Prior(0.0, 1e-4),
}
