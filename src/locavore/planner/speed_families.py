"""Names as people write them -> the few families that coefficients are fitted for.

Coefficients belong to code paths (which kernels run), so an engine, backend or quantization
that nobody has measured falls into the nearest family instead of failing.
"""

import re

_BUILD = re.compile(r"\bb(\d{4,5})\b")
_YEAR_MONTH = re.compile(r"\(?(20\d\d)-(\d\d)")
# llama.cpp rewrote its CUDA and Metal kernels between these; b3900 is of October 2024.
_FIRST_NEW_BUILD = 3900
_FIRST_NEW_MONTH = (2024, 10)

_AMD = ("radeon", "rx ", "instinct", "mi50", "mi100", "mi2", "mi3", "strix", "ryzen ai", "8060s")
_INTEL = ("arc ", "intel", "iris", "xe ")
_HBM = ("a100", "a30", "h100", "h200", "h800", "h20", "b100", "b200", "b300", "gb200", "gb300")
_HBM_OTHER = ("v100", "p100", "mi50", "mi60", "mi100", "mi2", "mi3", "radeon vii", "titan v")
_TURING_OR_VOLTA = ("rtx 20", "gtx 16", "t4", "v100", "quadro rtx", "titan rtx", "titan v")
_NO_TENSOR = ("gtx", "p40", "p4", "p100", "titan x", "tesla m", "quadro p")

_QUANTS: tuple[tuple[str, str], ...] = (
    (r"nvfp4|fp4-nv", "fp4"),
    (r"exl[23]", "exl"),
    (r"iq4_nl|mxfp4", "legacy"),
    (r"iq4", "iq4"),
    (r"iq[123]|tq[12]", "iq"),
    (r"q[2-6]_k|q[2-8]_k_|k_xl|reap", "k"),
    (r"q8", "q8"),
    (r"q[45]_[01]", "legacy"),
    (r"awq|gptq|autoround|int4|uint4|w4a16|marlin", "wq"),
    (r"fp8|int8|w8a8|8bit|8-bit", "q8"),
    (r"4bit|4-bit|mlx|3bit|5bit|6bit|2bit|dwq", "legacy"),
    (r"fp4", "fp4"),
    (r"f32|fp32", "f32"),
    (r"bf16|f16|fp16|half|none", "f16"),
)


def quant_family(quant: str, bits_per_weight: float | None = None) -> str:
    """`f32 f16 q8 legacy k iq4 iq wq exl fp4`; by bits per weight when the name says nothing."""
    name = quant.strip().lower()
    for pattern, family in _QUANTS:
        if name and re.search(pattern, name):
            return family
    bits = bits_per_weight or 0.0
    if bits > 12:
        return "f16"
    return "q8" if bits > 7 else "k"


def backend_family(engine: str, backend: str, hardware: str, hw_class: str) -> str:
    """`cuda rocm vulkan metal cpu`, from the backend's name or else from the machine."""
    name = backend.strip().lower()
    if name == "cpu" and "gpu" in hw_class and generation(hardware, hw_class) != "other":
        name = ""  # a graphics card does not run the CPU's kernels: the label means the host
    for word in ("vulkan", "rocm", "hip", "cuda", "metal", "cpu", "sycl"):
        if word in name:
            return {"hip": "rocm", "sycl": "vulkan"}.get(word, word)
    machine = hardware.lower()
    if hw_class == "cpu" or machine.endswith("cpu"):
        return "cpu"
    if hw_class == "apple" or "mlx" in engine.lower():
        return "metal"
    if any(word in machine for word in _AMD):
        return "rocm"
    if any(word in machine for word in _INTEL):
        return "vulkan"
    return "cuda"


def is_old_build(engine: str) -> bool:
    """Whether the engine's name dates it before llama.cpp's kernel rewrites of late 2024.

    llamafile up to 0.9 builds without CUDA graphs and runs like them.
    """
    if "llamafile" in engine.lower():
        return True
    if match := _YEAR_MONTH.search(engine):
        return (int(match[1]), int(match[2])) < _FIRST_NEW_MONTH
    if match := _BUILD.search(engine):
        return int(match[1]) < _FIRST_NEW_BUILD
    return False


def engine_family(engine: str) -> str:
    """`llamacpp ik mlx vllm trtllm exl`; llama.cpp is what most unnamed tools embed."""
    name = engine.strip().lower()
    if "ik_llama" in name:
        return "ik"
    for word, family in (
        ("mlx-vlm", "mlx-vlm"),
        ("mlx", "mlx"),
        ("exllama", "exl"),
        ("tabby", "exl"),
        ("tensorrt", "trtllm"),
        ("trt", "trtllm"),
        ("sglang", "vllm"),
        ("vllm", "vllm"),
        ("tgi", "vllm"),
        ("lmdeploy", "vllm"),
        ("mango", "vllm"),
    ):
        if word in name:
            return family
    return "llamacpp"


def code_path(engine: str, backend: str, hardware: str, hw_class: str) -> str:
    """The coefficient set's name: engine family and backend, `-old` for builds before late 2024.

    >>> code_path("llama.cpp (2024-05)", "CUDA", "RTX 3090", "consumer_gpu")
    'llamacpp-cuda-old'
    """
    family = engine_family(engine)
    device = backend_family(engine, backend, hardware, hw_class)
    if family == "vllm" and device == "metal":
        family = "mlx"
    if family in ("mlx", "mlx-vlm", "exl", "trtllm"):
        return family
    if family == "vllm":
        return "vllm" if device != "cpu" else "llamacpp-cpu"
    if family == "ik":
        return "ik-cpu" if device == "cpu" else f"llamacpp-{device}"
    old = is_old_build(engine) and device in ("cuda", "metal")
    return f"llamacpp-{device}{'-old' if old else ''}"


def has_hbm(hardware: str, hw_class: str, bandwidth_gbs: float) -> bool:
    """Stacked memory: wide, slower to saturate from one stream than GDDR of the same bandwidth."""
    name = hardware.lower()
    if any(word in name for word in _HBM + _HBM_OTHER):
        return True
    return hw_class == "datacentre_gpu" and bandwidth_gbs > 1500


def vector_tflops(hardware: str, hw_class: str, tensor_tflops: float) -> float:
    """Rate of the ordinary ALUs, which dequantize weights, in TFLOPS.

    From the dense FP16 rate and the ratio of the two in each architecture's data sheet: 16 on
    data-centre Ampere and later, 8 on Turing, Volta and CDNA, 4 on consumer Ampere and later
    and on RDNA3 and later (whose doubled FP32 rate dequantization cannot use), 2 on RDNA2, which
    has no matrix units. Pascal issues integers and floats from the same slots: half of its rate.
    """
    return tensor_tflops / _tensor_ratio(hardware.lower(), hw_class)


def _tensor_ratio(name: str, hw_class: str) -> float:
    if hw_class in ("apple", "cpu"):
        return 1.0
    if any(word in name for word in _NO_TENSOR) and "gtx 16" not in name:
        return 2.0
    if any(word in name for word in _TURING_OR_VOLTA) or "mi100" in name or "mi3" in name:
        return 8.0
    if any(word in name for word in _AMD):
        chip = generation(name, hw_class)
        return 4.0 if chip.startswith(("rdna3", "rdna4")) else 1.0 if "rx 5" in name else 2.0
    if any(word in name for word in _HBM):
        return 16.0
    if any(word in name for word in _INTEL):
        return 8.0
    return 4.0


_GENERATIONS: tuple[tuple[str, str], ...] = (
    (r"\bm(\d)\b", "apple-m"),
    (r"rtx (pro )?\d* ?blackwell|rtx pro \d|rtx 50\d\d", "blackwell"),
    (r"gb10|spark", "gb10"),
    (r"g?b[123]00", "blackwell-dc"),
    (r"rtx 40\d\d|\bada\b|\bl40|\bl4\b", "ada"),
    (r"\bg?h\d00|h20\b", "hopper"),
    (r"\ba100|\ba30\b|\ba800", "ampere-dc"),
    (r"rtx 30\d\d|rtx a\d|\ba40\b|\ba10\b|\ba16\b|\ba2\b", "ampere"),
    (r"rtx 20\d\d|gtx 16|quadro rtx|titan rtx|\bt4\b", "turing"),
    (r"v100|titan v", "volta"),
    (r"gtx|p40|p100|titan x|quadro p", "pascal"),
    (r"strix|8060s|8050s|8[4-9]0m", "rdna3.5"),
    (r"rx 9\d|r9[67]00", "rdna4"),
    (r"rx 7\d|w7\d|780m|760m", "rdna3"),
    (r"rx 6\d|w6\d|680m", "rdna2"),
    (r"rx 5|radeon vii|mi\d\d\b", "gcn"),
    (r"mi\d\d\d", "cdna"),
    (r"arc|intel", "xe"),
)


def generation(hardware: str, hw_class: str) -> str:
    """The chip family (`ampere`, `ada`, `apple-m3`, `rdna3`, ...); `other` when unknown."""
    name = hardware.lower()
    if hw_class == "cpu" or name.endswith("cpu"):
        return "cpu"
    for pattern, family in _GENERATIONS:
        if match := re.search(pattern, name):
            return family + (match[1] if family == "apple-m" else "")
    return "other"


def software(path: str) -> str:
    """The engine behind a code path, whatever the device: what its backends have in common.

    >>> software("llamacpp-metal-old"), software("ik-cpu"), software("mlx-vlm")
    ('llamacpp-old', 'llamacpp', 'mlx')
    """
    if path.startswith(("llamacpp", "ik")):
        return "llamacpp-old" if path.endswith("-old") else "llamacpp"
    return "mlx" if path.startswith("mlx") else path


def vendor(chip: str) -> str:
    """Who makes chips of a generation: `nvidia amd apple intel cpu`; NVIDIA when unknown."""
    if chip == "cpu":
        return "cpu"
    if chip.startswith("apple"):
        return "apple"
    if chip.startswith(("rdna", "gcn", "cdna")):
        return "amd"
    return "intel" if chip == "xe" else "nvidia"
