"""Memory a GGUF needs when loaded, and whether this machine has it now."""

import msgspec

from locavore.engines.gguf import Header
from locavore.engines.machine import GIB, Machine

MARGIN = 0.9
"""Share of the available memory a model may take; the rest is for everything else."""
_F16 = 2
_UBATCH = 512


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes by what they hold."""

    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    context_tokens: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes

    @property
    def line(self) -> str:
        return (
            f"{self.total_bytes / GIB:.2f} GiB (weights {self.weights_bytes / GIB:.2f}, "
            f"KV cache {self.kv_bytes / GIB:.2f} for {self.context_tokens:,} tokens, "
            f"buffers {self.compute_bytes / GIB:.2f})"
        )


def kv_bytes_per_token(header: Header) -> int:
    """F16 keys and values of all layers: Σ kv_heads · (key_length + value_length) · 2 bytes."""
    heads = header.number("attention.head_count") or 1
    layers = header.number("block_count") or 0
    key = header.number("attention.key_length") or (header.number("embedding_length") or 0) // heads
    value = header.number("attention.value_length") or key
    return _kv_heads(header, heads, layers) * (key + value) * _F16


def _kv_heads(header: Header, heads: int, layers: int) -> int:
    """Over all layers; some models give one number per layer, 0 where a layer has no cache."""
    per_layer = header.of_architecture("attention.head_count_kv")
    if isinstance(per_layer, list) and header.number("attention.head_count_kv") is not None:
        return sum(per_layer)
    return (header.number("attention.head_count_kv") or heads) * layers


def footprint(header: Header, context_tokens: int) -> Footprint:
    """Memory with `context_tokens` of unified KV cache; sliding windows are not taken off."""
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    vocabulary = len(tokens) if isinstance(tokens, list) else 0
    width = header.number("embedding_length") or 0
    # Logits of one output batch, the attention mask and a handful of activations, as F32.
    compute = 4 * (vocabulary * 64 + _UBATCH * (context_tokens + 16 * width))
    return Footprint(
        weights_bytes=header.file_bytes,
        kv_bytes=kv_bytes_per_token(header) * context_tokens,
        compute_bytes=compute,
        context_tokens=context_tokens,
    )


DEFAULT_CONTEXT_TOKENS = 32_768
LEAST_CONTEXT_TOKENS = 2_048


def choose_context(
    header: Header, machine: Machine, asked_tokens: int | None
) -> tuple[int, str | None]:
    """(context tokens, why it cannot be): what was asked, or the most that fits up to a default.

    A context beyond what the model was trained for is refused rather than cut silently.
    """
    trained = header.number("context_length") or DEFAULT_CONTEXT_TOKENS
    if asked_tokens is not None:
        if not 0 < asked_tokens <= trained:
            return 0, f"context_tokens = {asked_tokens!r}; this model holds 1 to {trained:,}"
        return asked_tokens, refusal(footprint(header, asked_tokens), machine)
    tokens = min(trained, DEFAULT_CONTEXT_TOKENS)
    while (problem := refusal(footprint(header, tokens), machine)) and tokens > 1:
        if tokens // 2 < LEAST_CONTEXT_TOKENS:
            return 0, problem
        tokens //= 2
    return tokens, problem


def room_bytes(machine: Machine) -> int:
    """Memory a model may take now: all dedicated GPUs' free memory, and the host's."""
    gpu = sum(gpu.free_bytes for gpu in machine.gpus if not gpu.unified)
    return int((machine.available_bytes + gpu) * MARGIN)


def refusal(needs: Footprint, machine: Machine) -> str | None:
    """Why the model does not fit, with the numbers; None when it does."""
    room = room_bytes(machine)
    if needs.total_bytes <= room:
        return None
    return (
        f"it needs {needs.line}, and {room / GIB:.2f} GiB may be taken here "
        f"({machine.available_bytes / GIB:.2f} GiB of memory available"
        + "".join(f", {gpu.free_bytes / GIB:.2f} GiB free on {gpu.name}" for gpu in machine.gpus)
        + f"; {1 - MARGIN:.0%} is kept free)"
    )
