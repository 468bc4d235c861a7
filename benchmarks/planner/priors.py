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
    "kv_share": Prior(log(0.64), 0.69, {"software": 0.24, "vendor": 0.4, "path": 1}),
    "attend": Prior(log(10), 1, {"vendor": 0.4, "path": 0.16}),
    "hbm": Prior(log(0.9), 0.3, {"software": 0.02}),
    "unpack": Prior(
        log(10), 0.031, {"vendor": 1, "path": 0.3, "quant": 1.5, "generation": 0.06, "type": 0.25}
    ),
    "cpu_unpack": Prior(log(0.25), 0.12),
    "codebook": Prior(log(2.5), 0.3, {"vendor": 0.75}),
    "layer_us": Prior(
        log(31), 0.8, {"software": 0.013, "vendor": 0.12, "path": 0.4, "generation": 0.2}
    ),
    "moe_us": Prior(log(50), 0.8, {"software": 1, "vendor": 0.048, "path": 0.16}),
    "linear_us": Prior(log(15), 2.5, {"software": 0.16, "path": 0.16}),
    "token_us": Prior(log(300), 1, {"software": 0.16, "path": 0.16, "vendor": 0.1}),
    "reduce_us": Prior(log(20), 2.5, {"path": 0.28}),
    "hop_us": Prior(log(330), 1, {"path": 0.7}),
    "prompt_share": Prior(log(0.3), 0.5),
    "machine": Prior(0.0, 0.0001, {"machine": 0.07, "engine": 0.5, "generation": 0.04}),
}

PREFILL: dict[str, Prior] = {
    "matmul_share": Prior(
        log(0.4),
        0.033,
        {
            "software": 0.03,
            "vendor": 0.4,
            "path": 0.032,
            "generation": 0.2,
            "kernel": 0.15,
            "class": 0.15,
        },
    ),
    "cpu_matmul": Prior(log(2), 0.4, {"path": 0.5, "type": 0.6}),
    "cpu_tiles": Prior(log(2.5), 0.3),
    "codebook": Prior(log(2.5), 0.3),
    # Batched decode on the same kind of card takes twice as much, in smaller messages.
    "pcie_us_mb": Prior(log(450), 0.24, {"path": 0.4}),
    "moe_matmul": Prior(log(0.4), 0.065, {"software": 0.032, "path": 0.32, "engine": 0.048}),
    "moe_grain": Prior(log(0.23), 0.045),
    "size_loss": Prior(log(0.19), 0.11),
    "stream_share": Prior(log(0.7), 0.019),
    "attention_share": Prior(
        log(0.12), 0.26, {"software": 0.05, "vendor": 1.5, "path": 0.16, "engine": 0.75}
    ),
    "sharing_gain": Prior(log(0.14), 0.5),
    "split_gain": Prior(log(0.3), 0.5, {"path": 2}),
    "layer_us": Prior(log(190), 5.6, {"software": 0.02, "vendor": 1, "path": 0.032}),
    "machine": Prior(0.0, 0.0001, {"machine": 0.5, "engine": 0.1}),
}

SERVING: dict[str, Prior] = {
    "weight_share": Prior(log(0.7), 0.048, {"path": 0.08, "quant": 0.08, "generation": 0.1}),
    "hbm": Prior(log(0.9), 0.0051),
    "kv_share": Prior(log(0.5), 0.6, {"path": 0.4}),
    "batch_share": Prior(log(0.4), 0.5, {"path": 0.12, "generation": 0.38, "quant": 0.024}),
    "moe_batch": Prior(log(0.85), 0.3, {"path": 0.08}),
    "layer_us": Prior(
        log(25), 1.6, {"path": 0.5, "quant": 0.032, "generation": 0.08, "workload": 0.12}
    ),
    "moe_us": Prior(log(23), 0.021, {"path": 0.3, "quant": 0.4}),
    "linear_us": Prior(log(10), 0.08),
    "reduce_us": Prior(log(7.8), 4, {"path": 0.16, "generation": 0.064}),
    "doubling_us": Prior(log(4.9), 0.32, {"generation": 0.4}),
    "routing_us": Prior(log(0.13), 0.4),
    "exchange_us_mb": Prior(log(3), 6, {"generation": 0.8}),
    "pcie_us_mb": Prior(log(260), 0.24, {"generation": 0.8}),
    "sequence_us": Prior(log(12), 0.5, {"path": 0.8}),
    "prompt_share": Prior(log(0.51), 0.5, {"path": 0.12, "generation": 0.06, "quant": 0.12}),
    "moe_prompt": Prior(log(0.85), 0.75, {"path": 0.5}),
    "interleave": Prior(log(1.3), 0.75, {"workload": 0.018}),
    "draft": Prior(log(0.77), 0.3),
    "machine": Prior(
        0.0, 0.0001, {"machine": 0.012, "generation": 0.15, "kernel": 0.0032, "workload": 0.04}
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
_ONE = Prior(0.0, 1e-3)
SIMPLE_DECODE: dict[str, Prior] = {
    "weight_share": Prior(log(0.75), 0.5, {"group": 0.5}),
    "kv_share": Prior(log(0.5), 1.0, {"group": 1.0}),
    "attend": _NONE,
    "cpu_unpack": Prior(0.0, 0.001),
    "codebook": Prior(0.0, 0.001),
    "hbm": Prior(0.0, 1e-3),
    "unpack": Prior(log(10), 1.5, {"group": 0.8, "quant": 0.8}),
    "layer_us": Prior(log(60), 1.0, {"group": 1.0}),
    "moe_us": Prior(log(50), 1.0, {"group": 1.0}),
    "linear_us": _NONE,
    "token_us": _NONE,
    "reduce_us": Prior(log(20), 1.0),
    "hop_us": Prior(log(200), 1.0),
    "prompt_share": Prior(log(1e3), 0.001),
    "machine": Prior(0.0, 1e-4),
}
SIMPLE_PREFILL: dict[str, Prior] = {
    "matmul_share": Prior(log(0.4), 0.5, {"group": 0.5, "quant": 0.3}),
    "cpu_matmul": Prior(log(2), 0.4),
    "cpu_tiles": _ONE,
    "codebook": _ONE,
    "pcie_us_mb": _NONE,
    "moe_matmul": Prior(log(0.4), 0.4),
    "moe_grain": _NONE,
    "size_loss": _NONE,
    "stream_share": Prior(log(0.7), 0.01),
    "attention_share": Prior(log(0.15), 0.8, {"group": 0.8}),
    "sharing_gain": _NONE,
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
    "draft": Prior(0.0, 1e-3),
    "machine": Prior(0.0, 1e-4),
}
