"""Real-shape GGUF files whose weights are a hole in the file: right sizes, written in moments."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from locavore.catalog.schema import Shape
from locavore.planner.quantization import gguf_types, row_bytes

ALIGNMENT = 32
TYPE_IDS = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10,
    "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ2_XXS": 16, "IQ2_XS": 17, "IQ3_XXS": 18,
    "IQ1_S": 19, "IQ4_NL": 20, "IQ3_S": 21, "IQ2_S": 22, "IQ4_XS": 23, "IQ1_M": 29, "BF16": 30,
    "MXFP4": 39,
}  # fmt: skip
"""ggml type ids of the GGUF specification."""


def write(path: Path, shape: Shape, quantization: str) -> int:
    """Write a file of this shape; returns the bytes of its tensors. Weights read as zeros."""
    infos, offset, weights = [], 0, 0
    for tensor, kind in gguf_types(shape, quantization):
        size = row_bytes(kind, tensor.elements)
        dims = struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims)
        infos.append(_text(tensor.name) + dims + struct.pack("<IQ", TYPE_IDS[kind], offset))
        offset += size + -size % ALIGNMENT
        weights += size
    pairs = list(_metadata(shape))
    head = [b"GGUF", struct.pack("<IQQ", 3, len(infos), len(pairs))]
    head += [_text(key) + value for key, value in pairs] + infos
    header = b"".join(head)
    header += bytes(-len(header) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + offset)
    return weights


def _metadata(shape: Shape) -> Iterator[tuple[str, bytes]]:
    arch = shape.architecture
    yield "general.architecture", _string(arch)
    yield "general.name", _string("random")
    for key, value in _numbers(shape):
        yield f"{arch}.{key}", struct.pack("<II", 4, value)
    yield f"{arch}.attention.layer_norm_rms_epsilon", struct.pack("<If", 6, 1e-6)
    yield f"{arch}.rope.freq_base", struct.pack("<If", 6, 1e6)
    yield "tokenizer.ggml.model", _string("gpt2")
    yield "tokenizer.ggml.pre", _string("qwen2")
    tokens = [f"t{number}" for number in range(shape.vocab)]
    yield "tokenizer.ggml.tokens", _array(8, [_text(token) for token in tokens])
    yield "tokenizer.ggml.token_type", _array(5, [struct.pack("<i", 1)] * shape.vocab)
    yield "tokenizer.ggml.merges", _array(8, [_text("t 1")])
    yield "tokenizer.ggml.eos_token_id", struct.pack("<II", 4, 0)


def _numbers(shape: Shape) -> Iterator[tuple[str, int]]:
    yield "block_count", shape.layers
    yield "context_length", shape.context_tokens
    yield "embedding_length", shape.hidden
    yield "feed_forward_length", shape.feed_forward or (shape.moe.width if shape.moe else 1)
    yield "attention.head_count", shape.heads
    yield "attention.head_count_kv", shape.kv_heads
    yield "attention.key_length", shape.head_dim
    yield "attention.value_length", shape.head_dim
    yield "vocab_size", shape.vocab
    if shape.window:
        yield "attention.sliding_window", shape.window
    if shape.moe:
        yield "expert_count", shape.moe.experts
        yield "expert_used_count", shape.moe.active
        yield "expert_feed_forward_length", shape.moe.width


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _string(text: str) -> bytes:
    return struct.pack("<I", 8) + _text(text)


def _array(kind: int, items: list[Any]) -> bytes:
    return struct.pack("<IIQ", 9, kind, len(items)) + b"".join(items)
