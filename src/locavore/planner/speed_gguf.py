"""A GGUF file of a model's real shape whose weights are zeros: right sizes, written in moments.

Speed does not depend on the values of weights, so such a file calibrates a machine without a
download. It takes disk and memory only as far as it is read.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from locavore.catalog.schema import Shape
from locavore.core.errors import RequestError
from locavore.planner.quantization import gguf_types, row_bytes

_ALIGNMENT = 32
# ggml type ids, GGUF specification.
_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10,
    "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ2_XXS": 16, "IQ2_XS": 17, "IQ3_XXS": 18,
    "IQ1_S": 19, "IQ4_NL": 20, "IQ3_S": 21, "IQ2_S": 22, "IQ4_XS": 23, "IQ1_M": 29, "BF16": 30,
}  # fmt: skip
_U32, _F32, _STRING, _ARRAY, _I32 = 4, 6, 8, 9, 5


def write_shape(path: Path, shape: Shape, quantization: str) -> int:
    """Write the file; returns its size in bytes. Dense transformer shapes only."""
    if shape.moe or shape.mla or shape.linear:
        raise RequestError(f"architecture {shape.architecture!r} is not a plain transformer")
    infos, offset = [], 0
    for tensor, kind in gguf_types(shape, quantization):
        dims = struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims)
        infos.append(_text(tensor.name) + dims + struct.pack("<IQ", _TYPES[kind], offset))
        size = row_bytes(kind, tensor.elements)
        offset += size + -size % _ALIGNMENT
    pairs = list(_metadata(shape))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs))
    head += b"".join(_text(key) + value for key, value in pairs) + b"".join(infos)
    head += bytes(-len(head) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + offset)
    return len(head) + offset


def _metadata(shape: Shape) -> Iterator[tuple[str, bytes]]:
    name = shape.architecture
    yield "general.architecture", struct.pack("<I", _STRING) + _text(name)
    numbers = {
        "block_count": shape.layers,
        "context_length": shape.context_tokens,
        "embedding_length": shape.hidden,
        "feed_forward_length": shape.feed_forward,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "vocab_size": shape.vocab,
    }
    if shape.window:
        numbers["attention.sliding_window"] = shape.window
    for key, value in numbers.items():
        yield f"{name}.{key}", struct.pack("<II", _U32, value)
    yield f"{name}.attention.layer_norm_rms_epsilon", struct.pack("<If", _F32, 1e-6)
    yield f"{name}.rope.freq_base", struct.pack("<If", _F32, 1e6)
    yield "tokenizer.ggml.model", struct.pack("<I", _STRING) + _text("gpt2")
    yield "tokenizer.ggml.pre", struct.pack("<I", _STRING) + _text("qwen2")
    words = b"".join(_text(f"t{number}") for number in range(shape.vocab))
    yield "tokenizer.ggml.tokens", struct.pack("<IIQ", _ARRAY, _STRING, shape.vocab) + words
    kinds = struct.pack("<i", 1) * shape.vocab
    yield "tokenizer.ggml.token_type", struct.pack("<IIQ", _ARRAY, _I32, shape.vocab) + kinds
    yield "tokenizer.ggml.merges", struct.pack("<IIQ", _ARRAY, _STRING, 1) + _text("t 1")
    yield "tokenizer.ggml.eos_token_id", struct.pack("<II", _U32, 0)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
