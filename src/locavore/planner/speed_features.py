"""Point -> the numbers the formulas take."""

import re

from locavore.planner.speed_families import generation, quant_family, vendor
from locavore.planner.speed_point import Point

# (name pattern, cores): from vendor pages; more cores cost more synchronisation per layer.
_CORES: tuple[tuple[str, int], ...] = (
    (r"7950x|9950x|5950x", 16),
    (r"5900x|7900x|9900x", 12),
    (r"7940hs|7840|8840|5800|5700|7700x|9700x", 8),
    (r"5600x|7600x|9600x|8500t|ai 5 340", 6),
    (r"7352", 24),
    (r"9554|9534|7763|7713", 64),
    (r"258v|ultra 2\d\dv", 8),
    (r"n150|n100|raspberry|7500t", 4),
    (r"n305", 8),
    (r"ampereone|a192", 192),
    (r"e5-2690 v4 x2", 28),
    (r"m[1-9] max", 10),
    (r"m[1-9] ultra", 20),
    (r"m[1-9] pro", 8),
    (r"\bm[1-9]\b", 4),
)


def decode_features(point: Point) -> dict[str, float]:
    """What one decode step reads and computes, per device where devices share a layer."""
    shape, setting = point.shape, point.setting
    split = setting.devices if point.tensor_parallel else 1
    threads = cpu_threads(point)
    return {
        "weights_gb": read_gb(point) / split,
        "kv_gb": shape.kv_values(point.load.context) * setting.kv_bytes / split / 1e9,
        "weights_g": read_b(point) / split,
        "attend_g": attention_gflop(point) / split,
        "bandwidth_gbs": reachable_bandwidth(point),
        "vector_tflops": vector_rate(point, threads),
        "hbm": float(point.hbm),
        "cpu": float(point.on_cpu),
        "codebook": float(point.quant == "iq"),
        "layers": shape.layers * (threads / 16 if point.on_cpu else 1.0),
        "moe_layers": float(shape.layers if shape.moe else 0),
        "linear_layers": float(shape.linear_layers),
        "tp_layers": float(shape.layers if split > 1 else 0),
        "hops": float(setting.devices - 1 if split == 1 else 0),
        "prompt_gflop": _prompt_gflop(point) / split,
        "tflops": matrix_rate(point),
    }


_CPU_HEAD_COST = 160
"""What a CPU spends per head and position besides the products, in dimensions of a head.

Measured with the embedded engine on one Zen 4 core, 2026-11-21, as the growth of a step over 750
to 950 tokens: 64 to 77 ns with heads of 64 dimensions (Llama-3.2-1B), 90 with 128 (Qwen3-0.6B).
"""


def attention_gflop(point: Point) -> float:
    """Products of one token's queries with all keys and values it attends to, 10^9 operations."""
    shape = point.shape
    width = float(shape.queries)
    if point.on_cpu and not shape.latent:
        width *= 1 + _CPU_HEAD_COST / shape.head_dim
    return 4 * width * shape.attended(point.load.context) / 1e9


def _prompt_gflop(point: Point) -> float:
    """Work on the prompt per generated token, where the time of a whole request is asked."""
    load = point.load
    if not (load.whole_request and load.generate):
        return 0.0
    return 2 * point.shape.active_b * load.prompt / load.generate


def reachable_bandwidth(point: Point) -> float:
    """Bandwidth the computing side can draw, 10^9 bytes per second.

    The CPU cores of Apple's large chips reach about 0.55 of the package (243 of 409 GB/s on an M1
    Max, AnandTech 2021). Two sockets share pages: half of the reads cross the slower link. One
    x86 core keeps about 33 GB/s in flight (two saturate 66 GB/s on a Ryzen 7950X).
    """
    bandwidth, name = point.machine.bandwidth_gbs, point.machine.name.lower()
    if not point.on_cpu:
        return bandwidth
    if re.search(r"\bm\d (max|ultra)", name):
        return 0.55 * bandwidth
    if re.search(r"\bx2\b|dual|2x ", name):
        bandwidth *= 0.6
    return min(bandwidth, core_gbs(point) * cpu_threads(point))


def core_gbs(point: Point) -> float:
    """Memory traffic one core keeps in flight, 10^9 bytes per second.

    Two cores of a Ryzen 7950X saturate 66 GB/s; one of Apple's reaches about 90 (AnandTech 2021);
    server cores behind a mesh 15 to 20.
    """
    name = point.machine.name.lower()
    if re.search(r"\bm\d\b", name):
        return 90.0
    return 18.0 if re.search(r"epyc|xeon|ampere|altra|graviton", name) else 33.0


def cpu_threads(point: Point) -> float:
    """Threads used: as told, else one per core of a known CPU, else 8."""
    if point.setting.threads:
        return float(point.setting.threads)
    return float(cores(point.machine.name) or 8)


def cores(cpu: str) -> int:
    """Physical (performance) cores of a known CPU; 0: unknown."""
    name = cpu.lower()
    return next((count for pattern, count in _CORES if re.search(pattern, name)), 0)


# Multiply-adds per core and cycle differ by generation far less than data sheets' peak rates:
# 0.11 TFLOPS per core is a 4.5 GHz core with two 256-bit FMA units kept three quarters busy.
_CORE_TFLOPS = 0.11


def vector_rate(point: Point, threads: float) -> float:
    """ALU rate that unpacks weights, TFLOPS."""
    if point.on_cpu:
        return threads * core_rate(point)
    return max(point.vector_tflops, 0.01)


def core_rate(point: Point) -> float:
    """TFLOPS of one core, from the machine's rate and cores, kept within what cores can do."""
    count = cores(point.machine.name)
    rate = point.machine.fp16_tflops
    if not (count and rate):
        return 0.5 * _CORE_TFLOPS
    return min(max(rate / count, 0.25 * _CORE_TFLOPS), _CORE_TFLOPS)


def looked_up_b(point: Point) -> float:
    """Parameters of an input embedding table that is indexed instead of read."""
    return 0.0 if point.shape.shares_embedding else point.shape.embedding_b


def read_b(point: Point) -> float:
    """Parameters read per token, 10^9."""
    shape = point.shape
    return max(shape.active_b - looked_up_b(point), 0.5 * shape.active_b)


def read_gb(point: Point) -> float:
    """Weight bytes read per token; the dense part of a mixture may be stored wider."""
    shape = point.shape
    mean = point.bits / 8
    if not shape.moe:
        return read_b(point) * mean
    dense = shape.dense_b
    wide = max(dense_bits(point) / 8, mean)
    experts = (point.weights_gb - dense * wide) / (shape.total_b - dense)
    experts = max(experts, 0.5 * mean)
    chosen = shape.expert_share * (shape.total_b - dense)
    return max(dense - looked_up_b(point), 0.0) * wide + chosen * experts


def dense_bits(point: Point) -> float:
    """Bits per weight of attention and embeddings in a mixture of experts.

    Releases with 4-bit experts keep the rest at the width their name says; dynamic K quants keep
    it near 8 bits (2026 files) or near 6 (the first ones, named `UD-`); others quantize all alike.
    """
    name = point.setting.quant.lower()
    family = quant_family(name, point.setting.bits_per_weight)
    if point.bits < 6.5 and family in ("f16", "q8"):
        return 16.0 if family == "f16" else 8.5
    if name.startswith("ud-"):
        return max(point.bits, 6.0)
    if "mxfp4" in name or name.endswith("_xl"):
        return 8.5
    return point.bits


def prefill_features(point: Point) -> dict[str, float]:
    """Work per prompt token."""
    shape, load = point.shape, point.load
    prompt = max(load.prompt, 1.0)
    chunk = min(prompt, chunk_tokens(point))
    context = load.depth + prompt / 2
    chosen = shape.expert_share
    touched = min(1.0, chosen * chunk**0.8) if shape.moe else 1.0
    rate = prompt_rate(point)
    on_rows = point.path == "llamacpp-cpu"
    return {
        "tflops": rate,
        "relative_rate": 1.0 if point.on_cpu else max(rate, 1.0) / 100,
        "cpu": float(point.on_cpu),
        "cpu_tiled": float(point.path == "ik-cpu"),
        "codebook": float(on_rows and point.quant == "iq"),
        "exchange_mb": exchanged_mb(point),
        "tokens_per_expert": max(chosen * chunk, 1.0) / 32 if shape.moe else 1.0,
        "bandwidth_gbs": reachable_bandwidth(point),
        "matmul_gflop": 2 * max(shape.active_b - shape.embedding_b, 0.3 * shape.active_b),
        "sharing": shape.sharing,
        "attention_gflop": 4 * shape.queries * shape.attended(context) / 1e9,
        "file_gb": point.weights_gb * touched,
        "chunk": chunk,
        "moe": float(shape.moe),
        "layers": float(shape.layers),
        "split": float(point.setting.devices if point.tensor_parallel else 1),
        "overlap": overlapping_devices(point, prompt, chunk),
    }


_ROW_SPLIT = 8
"""What llama.cpp's row split moves per token over what tensor parallel does.

It gathers the 32-bit outputs of every matrix (12 widths a layer) on one device and sends its inputs
to all; tensor parallel reduces two 16-bit vectors a layer.
"""


def exchanged_mb(point: Point) -> float:
    """10^6 bytes that devices exchange per prompt token over PCIe (generation 4, consumer card)."""
    shape, devices = point.shape, point.setting.devices
    if not point.tensor_parallel or fast_links(point):
        return 0.0
    moved = shape.layers * shape.width * 2 / 1e6 * (devices - 1) / pcie_speed(point)
    return moved * (_ROW_SPLIT if point.path.startswith("llamacpp") else 1)


def prompt_rate(point: Point) -> float:
    """Rate of the units that read a prompt, as FP16 TFLOPS.

    Data sheets of GeForce cards give the rate with 16-bit sums, which llama.cpp uses; engines built
    on PyTorch sum in 32 bits, at half of it. llama.cpp multiplies quantized matrices in 8-bit
    integers: Pascal does four in the slot of one float, for twice its rate after unpacking; on CDNA
    and on Intel's cards they run outside the matrix units, at about a quarter of these units' rate.
    Its Vulkan shaders multiply BF16 outside of them, too.
    """
    rate = matrix_rate(point)
    chip = generation(point.machine.name, point.machine.hw_class)
    if not point.path.startswith(("llamacpp", "ik")):
        return rate * summing_rate(point)
    if "bf16" in point.setting.quant.lower() and "vulkan" in point.path:
        return 0.5 * rate
    if point.on_cpu or point.quant in ("f16", "f32"):
        return rate
    return rate * {"pascal": 2.0, "cdna": 0.25, "xe": 0.25}.get(chip, 1.0)


def summing_rate(point: Point) -> float:
    """Rate with 32-bit sums over the data sheet's: half on GeForce cards, all of it elsewhere."""
    chip = generation(point.machine.name, point.machine.hw_class)
    geforce = point.machine.hw_class == "consumer_gpu" and vendor(chip) == "nvidia"
    return 0.5 if geforce and chip != "pascal" else 1.0  # Pascal has no matrix units


def fast_links(point: Point) -> bool:
    """Whether devices talk over NVLink or its like rather than PCIe: stacked-memory cards do."""
    name = point.machine.name.lower()
    return point.hbm and not any(w in name for w in ("pcie", "v100", "mi50", "radeon"))


def pcie_speed(point: Point) -> float:
    """How fast two cards exchange over PCIe, relative to a consumer card of generation 4.

    Consumer drivers copy through host memory (two transfers and a wait); workstation and
    data-centre cards talk directly. Blackwell has generation 5, twice as fast.
    """
    direct = 1.0 if point.machine.hw_class == "consumer_gpu" else 3.0
    chip = generation(point.machine.name, point.machine.hw_class)
    return direct * (2.0 if chip.startswith("blackwell") else 1.0)


def overlapping_devices(point: Point, prompt: float, chunk: float) -> float:
    """Devices busy at once under layer split, as a pipeline fills; 1 under tensor parallel.

    n stages and k chunks in flight (at most four) take k + n - 1 stage times instead of n k.
    """
    devices = point.setting.devices
    if devices == 1 or point.tensor_parallel:
        return 1.0
    flight = min(max(prompt / chunk, 1.0), 4.0)
    return devices * flight / (flight + devices - 1)


def chunk_tokens(point: Point) -> float:
    """Prompt tokens an engine computes at once: llama.cpp's default of 512, 2,048 elsewhere."""
    return 512.0 if point.path.startswith(("llamacpp", "ik")) else 2048.0


def matrix_rate(point: Point) -> float:
    """Dense FP16 rate, TFLOPS; for a CPU threads times the rate of one core."""
    if point.on_cpu:
        return cpu_threads(point) * core_rate(point)
    return max(point.machine.fp16_tflops, 0.05)
