"""The weight tensors of a model shape, named as llama.cpp names them.

Widths and names follow the published configs and `src/llama-arch.cpp`, `src/llama-model.cpp` of
llama.cpp. Summed, they give a model's parameters without looking anything up.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Literal

import msgspec

from locavore.catalog.schema import Linear, Mla, Moe, Shape

Role = Literal[
    "embedding", "output", "norm", "query", "key", "value", "qkv", "attention_output", "gate",
    "up", "down", "router", "latent", "other", "per_layer_embedding",
]  # fmt: skip


class Tensor(msgspec.Struct, frozen=True):
    """Dimensions fastest first, as GGUF stores them; `layer` -1 stands outside the blocks."""

    name: str
    dims: tuple[int, ...]
    role: Role
    layer: int = -1
    expert: bool = False
    """A routed expert's weights: only `active / experts` of it is used for one token."""

    @property
    def elements(self) -> int:
        return prod(self.dims)


@lru_cache(maxsize=256)
def tensors(shape: Shape) -> tuple[Tensor, ...]:
    """Every tensor of the text model (no vision tower, no multi-token-prediction head)."""
    return tuple(_tensors(shape))


def _tensors(shape: Shape) -> Iterator[Tensor]:
    yield Tensor("token_embd.weight", (shape.hidden, shape.vocab), "embedding")
    if not shape.tied_embeddings:
        yield Tensor("output.weight", (shape.hidden, shape.vocab), "output")
    yield Tensor("output_norm.weight", (shape.hidden,), "norm")
    if shape.per_layer_embedding:
        yield from _per_layer_tables(shape)
    for layer in range(shape.layers):
        yield from _block(shape, layer)


@lru_cache(maxsize=256)
def parameters(shape: Shape) -> int:
    """All weights."""
    return sum(tensor.elements for tensor in tensors(shape))


@lru_cache(maxsize=256)
def active_parameters(shape: Shape) -> int:
    """Weights that one token is multiplied with: active experts, no embedding look-ups.

    The embedding table counts when it is also the output matrix (tied).
    """
    total = 0
    for tensor in tensors(shape):
        if tensor.role == "per_layer_embedding":
            continue
        if tensor.role == "embedding" and not shape.tied_embeddings:
            continue
        total += used(shape, tensor, tensor.elements)
    return total


def used(shape: Shape, tensor: Tensor, amount: int) -> int:
    """The part of `amount` (elements or bytes of `tensor`) that one token needs."""
    if tensor.expert and shape.moe:
        return amount * shape.moe.active // shape.moe.experts
    return amount


def is_window_layer(shape: Shape, layer: int) -> bool:
    """Whether a layer attends to a sliding window only.

    Full layers close each cycle (Gemma 3 and 4, Llama 4); with as many window layers as full
    ones, windows come first in each pair (Gemma 2, gpt-oss).
    """
    if not shape.window_layers or is_linear_layer(shape, layer):
        return False
    period = shape.layers / (shape.layers - shape.window_layers)
    cycle = max(2, round(period))
    return (layer + 1) % cycle != 0


def is_linear_layer(shape: Shape, layer: int) -> bool:
    """Whether a layer keeps a fixed state: all but the last of each cycle (Qwen3-Next family)."""
    if not shape.linear:
        return False
    cycle = round(shape.layers / (shape.layers - shape.linear.layers))
    return (layer + 1) % cycle != 0


def owns_cache(shape: Shape, layer: int) -> bool:
    """False for linear layers and for layers that read an earlier layer's keys and values."""
    if is_linear_layer(shape, layer):
        return False
    return layer < shape.layers - shape.shared_kv_layers


def cache_width(shape: Shape, layer: int) -> tuple[int, int]:
    """(keys, values) cached per token by an attention layer, in elements."""
    if shape.mla:
        return shape.mla.kv_rank + shape.mla.rope_dim, 0
    heads, width = shape.kv_heads, shape.head_dim
    if is_window_layer(shape, layer):
        heads = shape.window_kv_heads or heads
        width = shape.window_head_dim or width
    return heads * width, heads * width


def _block(shape: Shape, layer: int) -> Iterator[Tensor]:
    yield _weight(layer, "attn_norm", (shape.hidden,), "norm")
    if shape.linear and is_linear_layer(shape, layer):
        yield from _linear(shape, shape.linear, layer)
    elif shape.mla:
        yield from _latent(shape, shape.mla, layer)
    else:
        yield from _attention(shape, layer)
    if shape.post_norms:
        yield _weight(layer, "post_attention_norm", (shape.hidden,), "norm")
        yield _weight(layer, "post_ffw_norm", (shape.hidden,), "norm")
    yield _weight(layer, "ffn_norm", (shape.hidden,), "norm")
    yield from _feed_forward(shape, layer)
    if shape.per_layer_embedding:
        width = shape.per_layer_embedding
        yield _weight(layer, "inp_gate", (shape.hidden, width), "other")
        yield _weight(layer, "proj", (width, shape.hidden), "other")


def _attention(shape: Shape, layer: int) -> Iterator[Tensor]:
    window = is_window_layer(shape, layer)
    width = (shape.window_head_dim or shape.head_dim) if window else shape.head_dim
    kv = ((shape.window_kv_heads or shape.kv_heads) if window else shape.kv_heads) * width
    query = shape.heads * width
    yield _weight(layer, "attn_q", (shape.hidden, query * (2 if shape.query_gate else 1)), "query")
    if owns_cache(shape, layer):
        yield _weight(layer, "attn_k", (shape.hidden, kv), "key")
        if not (shape.key_is_value and not window):
            yield _weight(layer, "attn_v", (shape.hidden, kv), "value")
    yield _weight(layer, "attn_output", (query, shape.hidden), "attention_output")
    if shape.qkv_bias:
        for part, size in (("attn_q", query), ("attn_k", kv), ("attn_v", kv)):
            yield Tensor(f"blk.{layer}.{part}.bias", (size,), "norm", layer)
    if shape.attention_sinks:
        yield Tensor(f"blk.{layer}.attn_output.bias", (shape.hidden,), "norm", layer)
        yield _weight(layer, "attn_sinks", (shape.heads,), "norm")
    if shape.qk_norm:
        yield _weight(layer, "attn_q_norm", (width,), "norm")
        if owns_cache(shape, layer):
            yield _weight(layer, "attn_k_norm", (width,), "norm")


def _latent(shape: Shape, mla: Mla, layer: int) -> Iterator[Tensor]:
    head = mla.nope_dim + mla.rope_dim
    if mla.q_rank:
        yield _weight(layer, "attn_q_a", (shape.hidden, mla.q_rank), "latent")
        yield _weight(layer, "attn_q_a_norm", (mla.q_rank,), "norm")
        yield _weight(layer, "attn_q_b", (mla.q_rank, shape.heads * head), "latent")
    else:
        yield _weight(layer, "attn_q", (shape.hidden, shape.heads * head), "query")
    yield _weight(layer, "attn_kv_a_mqa", (shape.hidden, mla.kv_rank + mla.rope_dim), "latent")
    yield _weight(layer, "attn_kv_a_norm", (mla.kv_rank,), "norm")
    yield _weight(layer, "attn_k_b", (mla.nope_dim, mla.kv_rank, shape.heads), "latent")
    yield _weight(layer, "attn_v_b", (mla.kv_rank, mla.value_dim, shape.heads), "value")
    output = (shape.heads * mla.value_dim, shape.hidden)
    yield _weight(layer, "attn_output", output, "attention_output")


def _linear(shape: Shape, linear: Linear, layer: int) -> Iterator[Tensor]:
    keys = linear.key_heads * linear.key_dim
    values = linear.value_heads * linear.value_dim
    yield _weight(layer, "attn_qkv", (shape.hidden, 2 * keys + values), "qkv")
    yield _weight(layer, "attn_gate", (shape.hidden, values), "other")
    yield _weight(layer, "ssm_ba", (shape.hidden, 2 * linear.value_heads), "other")
    yield _weight(layer, "ssm_conv1d", (linear.kernel, 2 * keys + values), "norm")
    yield Tensor(f"blk.{layer}.ssm_dt.bias", (linear.value_heads,), "norm", layer)
    yield Tensor(f"blk.{layer}.ssm_a", (linear.value_heads,), "norm", layer)
    yield _weight(layer, "ssm_norm", (linear.value_dim,), "norm")
    yield _weight(layer, "ssm_out", (values, shape.hidden), "other")


def _feed_forward(shape: Shape, layer: int) -> Iterator[Tensor]:
    moe = shape.moe
    if moe is None or not _has_experts(moe, layer):
        yield from _dense(shape, layer)
        return
    if moe.beside_dense:
        yield from _dense(shape, layer)
    yield _weight(layer, "ffn_gate_inp", (shape.hidden, moe.experts), "router")
    wide = (shape.hidden, moe.width, moe.experts)
    yield _weight(layer, "ffn_gate_exps", wide, "gate", expert=True)
    yield _weight(layer, "ffn_up_exps", wide, "up", expert=True)
    narrow = (moe.width, shape.hidden, moe.experts)
    yield _weight(layer, "ffn_down_exps", narrow, "down", expert=True)
    if moe.expert_bias:
        yield Tensor(f"blk.{layer}.ffn_gate_inp.bias", (moe.experts,), "norm", layer)
        for part, size in (("gate", moe.width), ("up", moe.width), ("down", shape.hidden)):
            name = f"blk.{layer}.ffn_{part}_exps.bias"
            yield Tensor(name, (size, moe.experts), "norm", layer, expert=True)
    if moe.shared_width:
        yield _weight(layer, "ffn_gate_shexp", (shape.hidden, moe.shared_width), "gate")
        yield _weight(layer, "ffn_up_shexp", (shape.hidden, moe.shared_width), "up")
        yield _weight(layer, "ffn_down_shexp", (moe.shared_width, shape.hidden), "down")


def _has_experts(moe: Moe, layer: int) -> bool:
    return layer >= moe.dense_layers and (layer + 1) % moe.every == 0


def _dense(shape: Shape, layer: int) -> Iterator[Tensor]:
    width = shape.feed_forward
    if shape.wide_shared_feed_forward and not owns_cache(shape, layer):
        width *= 2
    yield _weight(layer, "ffn_gate", (shape.hidden, width), "gate")
    yield _weight(layer, "ffn_up", (shape.hidden, width), "up")
    yield _weight(layer, "ffn_down", (width, shape.hidden), "down")


def _per_layer_tables(shape: Shape) -> Iterator[Tensor]:
    width = shape.per_layer_embedding * shape.layers
    yield Tensor("per_layer_token_embd.weight", (width, shape.vocab), "per_layer_embedding")
    yield Tensor("per_layer_model_proj.weight", (shape.hidden, width), "norm")
    yield Tensor("per_layer_proj_norm.weight", (shape.per_layer_embedding,), "norm")


def _weight(
    layer: int, part: str, dims: tuple[int, ...], role: Role, *, expert: bool = False
) -> Tensor:
    return Tensor(f"blk.{layer}.{part}.weight", dims, role, layer, expert)
