"""What a quantization makes of each tensor, and how many bytes that is.

GGUF mixes follow llama.cpp `src/llama-quant.cpp` (`llama_tensor_get_type_impl`, read 2026-11-21,
no importance matrix except for IQ1, IQ2 and IQ3_XXS, which need one); block sizes are those of
`ggml/src/ggml-common.h`. The other formats quantize the linear layers and keep embeddings,
output and norms in 16 bits.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

import msgspec

from locavore.catalog.match import nearest
from locavore.catalog.schema import Shape
from locavore.core.errors import ConfigError
from locavore.planner.tensors import Tensor, tensors

BLOCKS: dict[str, tuple[int, int]] = {
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (32, 34), "Q4_0": (32, 18),
    "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q2_K": (256, 84), "Q3_K": (256, 110),
    "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210), "IQ1_S": (256, 50),
    "IQ1_M": (256, 56), "IQ2_XXS": (256, 66), "IQ2_XS": (256, 74), "IQ2_S": (256, 82),
    "IQ3_XXS": (256, 98), "IQ3_S": (256, 110), "IQ4_NL": (32, 18), "IQ4_XS": (256, 136),
    "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17),
}  # fmt: skip
"""ggml type -> (weights per block, bytes per block)."""

_START = {
    "Q2_K_S": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K", "Q4_K_S": "Q4_K",
    "Q4_K_M": "Q4_K", "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K", "IQ2_M": "IQ2_S", "IQ2_S": "IQ2_XS",
    "IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S", "MXFP4_MOE": "MXFP4",
}  # fmt: skip
"""File type -> the type its mix starts from, where they are not called the same."""
_SMALL = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
    "IQ4_XS": "IQ4_NL", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0",
}  # fmt: skip
"""Type for rows that are not a multiple of 256 (i-quants fall to IQ4_NL)."""

WEIGHT_BITS: dict[str, float] = {
    "FP16": 16.0,
    "FP8": 8.0,
    "INT8": 8.0 + 16 / 128,
    "AWQ": 4.0 + (16 + 4) / 128,
    "GPTQ": 4.0 + (16 + 4) / 128,
    "INT4": 4.0 + (16 + 4) / 128,
    "NVFP4": 4.0 + 8 / 16,
    "4BIT": 4.0 + 32 / 64,
    "8BIT": 8.0 + 32 / 64,
}
"""Bits per quantized weight of safetensors formats: value bits plus scale (and zero) per group.

AWQ and GPTQ: groups of 128 with a 16-bit scale and a 4-bit zero; NVFP4: an 8-bit scale per 16;
MLX `4BIT`/`8BIT`: 16-bit scale and bias per 64, embeddings included."""

_WITH_EMBEDDINGS = {"4BIT", "8BIT"}
_SYNONYMS = {"BF16": "BF16", "FP32": "F32", "4-BIT": "4BIT", "8-BIT": "8BIT", "Q4": "Q4_K_M",
             "Q5": "Q5_K_M", "Q6": "Q6_K", "Q8": "Q8_0", "Q3": "Q3_K_M", "Q2": "Q2_K",
             "MXFP4": "MXFP4_MOE", "UD-Q4_K_XL": "Q4_K_M", "Q4_K_XL": "Q4_K_M"}  # fmt: skip

GGUF = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S",
    "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS",
    "IQ3_XXS", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S",
    "MXFP4_MOE", "TQ2_0", "TQ1_0",
)  # fmt: skip
"""File types that llama.cpp writes, from heavy to light."""


class Mix(msgspec.Struct, frozen=True):
    """What the rules of a mix look at."""

    ftype: str
    layers: int
    experts: int
    group: int
    """Query heads per key-value head."""
    seventy: bool
    """llama.cpp's `LLM_TYPE_70B`: 80 layers."""
    tied: bool


def canonical(name: str) -> str:
    """The quantization called `name`, in one spelling; ConfigError with the nearest names."""
    upper = name.strip().upper()
    upper = _SYNONYMS.get(upper, upper)
    if upper in GGUF or upper in WEIGHT_BITS:
        return upper
    near = ", ".join(nearest(name, [*GGUF, *WEIGHT_BITS]))
    raise ConfigError([f"no quantization is called {name!r}; nearest: {near}"])


def is_gguf(quantization: str) -> bool:
    return quantization in GGUF


def row_bytes(kind: str, elements: int) -> int:
    """Bytes of `elements` weights of a ggml type; whole blocks."""
    per_block, size = BLOCKS[kind]
    return -(-elements // per_block) * size


@lru_cache(maxsize=256)
def weight_bytes(shape: Shape, quantization: str) -> int:
    """All tensors of the file, to the byte for GGUF (metadata and padding not counted)."""
    return sum(size for _, size in tensor_bytes(shape, quantization))


@lru_cache(maxsize=512)
def tensor_bytes(shape: Shape, quantization: str) -> tuple[tuple[Tensor, int], ...]:
    """Each tensor and its size in this quantization."""
    return tuple(_tensor_bytes(shape, quantization))


def _tensor_bytes(shape: Shape, quantization: str) -> Iterator[tuple[Tensor, int]]:
    if not is_gguf(quantization):
        for tensor in tensors(shape):
            yield tensor, _flat_bytes(tensor, quantization)
        return
    for tensor, kind in gguf_types(shape, quantization):
        yield tensor, row_bytes(kind, tensor.elements)


def _flat_bytes(tensor: Tensor, quantization: str) -> int:
    outside = tensor.role in ("embedding", "output", "per_layer_embedding")
    plain = tensor.role in ("norm", "router") or len(tensor.dims) < 2
    if plain or (outside and quantization not in _WITH_EMBEDDINGS):
        return tensor.elements * 2
    return round(tensor.elements * WEIGHT_BITS[quantization] / 8)


def gguf_types(shape: Shape, quantization: str) -> Iterator[tuple[Tensor, str]]:
    """Each tensor and the ggml type llama-quantize gives it."""
    mix = Mix(
        ftype=quantization,
        layers=shape.layers,
        experts=shape.moe.experts if shape.moe else 0,
        group=max(1, shape.heads // shape.kv_heads),
        seventy=shape.layers == 80,
        tied=shape.tied_embeddings,
    )
    order = {"value": 0, "down": 0}
    everything = list(tensors(shape))
    values = sum(tensor.role in ("value", "qkv") for tensor in everything)
    for tensor in everything:
        kind = _gguf_type(mix, tensor, order, values)
        if tensor.role in ("value", "qkv"):
            order["value"] += 1
        yield tensor, kind


def _gguf_type(mix: Mix, tensor: Tensor, order: dict[str, int], values: int) -> str:
    if tensor.role == "norm" or tensor.role == "router" or len(tensor.dims) < 2:
        return "F32"
    start = _START.get(mix.ftype, mix.ftype)
    if start in ("F32", "F16", "BF16"):
        return start
    kind = _mixed(mix, tensor, start, order["value"], values)
    block = BLOCKS[kind][0]
    if tensor.dims[0] % block:
        return _SMALL.get(kind, "IQ4_NL") if tensor.dims[0] % 32 == 0 else "F16"
    return kind


def _mixed(mix: Mix, tensor: Tensor, start: str, value_index: int, values: int) -> str:
    output = tensor.role == "output" or (tensor.role == "embedding" and mix.tied)
    if output:
        return _output_type(mix, tensor, start)
    if mix.ftype == "MXFP4_MOE":
        return "MXFP4" if tensor.expert else "Q8_0"
    if tensor.role == "embedding":
        return _EMBEDDING.get(mix.ftype, start)
    rule = _RULES.get(tensor.role)
    if rule is None:
        return start
    index = value_index if tensor.role in ("value", "qkv") else tensor.layer
    of = values if tensor.role == "value" else mix.layers
    return rule(mix, start, index, of)


def _output_type(mix: Mix, tensor: Tensor, start: str) -> str:
    if mix.ftype == "MXFP4_MOE" or tensor.dims[0] % BLOCKS[start][0]:
        return "Q8_0"
    if mix.ftype.startswith(("IQ1", "IQ2")) or mix.ftype == "IQ3_XXS":
        return "Q5_K"
    return start if start == "Q8_0" else "Q6_K"


_EMBEDDING = {
    "IQ2_XXS": "Q2_K", "IQ2_XS": "Q2_K", "IQ1_S": "Q2_K", "IQ1_M": "Q2_K", "IQ2_S": "IQ3_S",
    "IQ2_M": "IQ3_S", "IQ3_XXS": "IQ3_S", "TQ1_0": "Q4_K", "TQ2_0": "Q4_K",
}  # fmt: skip


def _more_bits(index: int, of: int) -> bool:
    """llama.cpp's `use_more_bits`: the first and last eighth, and every third layer between."""
    return index < of // 8 or index >= 7 * of // 8 or (index - of // 8) % 3 == 2


def _low_bits(mix: Mix) -> bool:
    return mix.ftype.startswith(("IQ1", "IQ2"))


def _value(mix: Mix, start: str, index: int, of: int) -> str:
    kind, wide = start, mix.group >= 4
    medium = mix.ftype in ("IQ2_S", "IQ2_M")
    if _low_bits(mix):
        if wide or mix.experts >= 4:
            return "Q4_K"
        return "IQ3_S" if medium else "Q2_K"
    if mix.ftype == "Q2_K":
        kind = "Q4_K" if wide else "Q3_K"
    elif mix.ftype == "IQ3_XXS":
        kind = "Q4_K" if wide else "IQ3_S"
    elif (mix.ftype in ("Q2_K_S", "IQ3_XS", "IQ3_S") and wide) or mix.ftype == "IQ3_M":
        kind = "Q4_K"
    elif mix.ftype == "Q3_K_M":
        kind = "Q5_K" if index < 2 else "Q4_K"
    elif mix.ftype == "Q3_K_L" or (mix.ftype in ("IQ4_NL", "IQ4_XS") and wide):
        kind = "Q5_K"
    elif mix.ftype in ("Q4_K_M", "Q5_K_M") and _more_bits(index, of):
        kind = "Q6_K"
    elif mix.ftype == "Q4_K_S" and index < 4:
        kind = "Q5_K"
    if mix.seventy and kind in ("Q3_K", "Q4_K"):
        kind = "Q5_K"
    return "Q8_0" if mix.experts == 8 else kind


def _key(mix: Mix, start: str, index: int, of: int) -> str:
    if mix.experts == 8:
        return "Q4_K" if _low_bits(mix) else "Q8_0"
    return _query(mix, start, index, of)


def _query(mix: Mix, start: str, index: int, of: int) -> str:  # noqa: ARG001
    return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(mix.ftype, start)


def _down(mix: Mix, start: str, index: int, of: int) -> str:
    early = index < of // 8
    if _low_bits(mix):
        if not early:
            return start
        return "IQ3_S" if mix.ftype in ("IQ2_S", "IQ2_M") else "Q2_K"
    if mix.ftype == "Q2_K":
        return "Q3_K"
    if mix.ftype == "Q2_K_S":
        return "Q4_K" if early else start
    if mix.ftype == "Q3_K_M":
        return "Q5_K" if index < of // 16 else "Q4_K"
    if mix.ftype == "IQ3_M":
        return "Q4_K" if early or (mix.experts == 8 and _more_bits(index, of)) else start
    if mix.ftype == "Q3_K_L":
        return "Q5_K"
    if mix.ftype in ("Q4_K_M", "Q5_K_M"):
        return "Q6_K" if _more_bits(index, of) else start
    if mix.ftype in ("IQ4_NL", "IQ4_XS", "Q4_K_S"):
        return "Q5_K" if early else start
    return start


def _attention_output(mix: Mix, start: str, index: int, of: int) -> str:  # noqa: ARG001
    if _low_bits(mix):
        if mix.experts == 8:
            return "Q5_K"
        return {"IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}.get(
            mix.ftype, start
        )
    if mix.experts == 8:
        raised = mix.ftype in ("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS")
        return "Q5_K" if raised or mix.ftype.startswith("IQ3") else start
    return {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K",
            "IQ3_M": "Q4_K"}.get(mix.ftype, start)  # fmt: skip


def _qkv(mix: Mix, start: str, index: int, of: int) -> str:  # noqa: ARG001
    if mix.ftype in ("Q3_K_M", "Q3_K_L", "IQ3_M"):
        return "Q4_K"
    return {"Q4_K_M": "Q5_K", "Q5_K_M": "Q6_K"}.get(mix.ftype, start)


def _gate_up(mix: Mix, start: str, index: int, of: int) -> str:
    middle = of // 8 <= index < 7 * of // 8
    return "IQ3_XXS" if mix.ftype == "IQ3_XS" and middle else start


_RULES: dict[str, Callable[[Mix, str, int, int], str]] = {
    "value": _value,
    "key": _key,
    "query": _query,
    "down": _down,
    "attention_output": _attention_output,
    "qkv": _qkv,
    "gate": _gate_up,
    "up": _gate_up,
}
