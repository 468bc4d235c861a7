"""The built-in test model: a GGUF of about 0.1 MB that says one known sentence.

Every token's embedding is the state "what comes next", attention and feed-forward add nothing,
and the output matrix reads the state off, so each token determines the next. The engine that
runs it is the real one: template, sampling, grammar, streaming and stop work as for any model.
"""

import struct
from array import array
from collections.abc import Sequence
from pathlib import Path

import msgspec

from locavore.engines.gguf import Kind, Value, pack

NAME = "test"
SENTENCE = "This is Locavore's built-in test model, not a real one. Run: locavore pull qwen3-0.6b"
"""What it answers to every chat, at any temperature."""

CONTEXT_TOKENS = 131_072
TEMPLATE = (
    "{%- for tool in tools or [] -%}"
    "{{- '<|im_start|>tool\\n' + (tool | tojson) + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}"
    "{%- elif message.content -%}"
    "{%- for part in message.content -%}{{- part.text or '' -}}{%- endfor -%}"
    "{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

CALLING_TEMPLATE = r"""
{%- if tools -%}
{{- '<|im_start|>system\nTools:\n<tools>' -}}
{%- for tool in tools -%}{{- '\n' + (tool | tojson) -}}{%- endfor -%}
{{- '\n</tools>\nCall: <tool_call>\n{"name": <name>, "arguments": <object>}\n</tool_call>' -}}
{{- '<|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role -}}
{%- if message.content -%}{{- '\n' + message.content -}}{%- endif -%}
{%- for call in message.tool_calls or [] -%}
{%- set function = call.function or call -%}
{{- '\n<tool_call>\n{"name": "' + function.name + '", "arguments": ' -}}
{{- function.arguments | tojson -}}{{- '}\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
""".strip()
"""A template in which a model calls tools; for a test model whose sentence is `tool_call(...)`."""

_FEATURES = 16  # dimensions that only embeddings see, so that vectors depend on the text
_HEAD = 8
_EOS, _START = "<|im_end|>", "<|im_start|>"
_END, _BEGIN, _WORDS = 256, 257, 258  # ids: both markers, then the sentence
# What a grammar may choose when it forbids the sentence: whatever ends soonest comes first, so
# that a schema gives a short valid answer instead of rambling until max_tokens.
_PREFERRED = '"}],0x1tfn{[:'
_NEXT, _RANK, _STEP = 400.0, 200.0, 12.0  # logits; a gap of 200 holds at any temperature up to 4


class TestModel(msgspec.Struct, frozen=True, kw_only=True):
    """One written test model."""

    __test__ = False  # the name is the product's, not pytest's

    path: Path
    sentence: str
    tokens: int
    """Tokens of the sentence, without the end marker."""
    context_tokens: int
    bytes: int


def write_test_model(
    path: Path,
    sentence: str = SENTENCE,
    *,
    context_tokens: int = CONTEXT_TOKENS,
    template: str = TEMPLATE,
) -> TestModel:
    """Write the model that answers `sentence` to every chat. Takes milliseconds."""
    pieces = _pieces(sentence)
    data = build(pieces, context_tokens, template)
    path.write_bytes(data)
    return TestModel(
        path=path,
        sentence=sentence,
        tokens=len(pieces),
        context_tokens=context_tokens,
        bytes=len(data),
    )


def tool_call(name: str, arguments: str) -> str:
    """The sentence that is a call of tool `name`; `arguments` is JSON text."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def build(pieces: Sequence[str], context_tokens: int, template: str = TEMPLATE) -> bytes:
    """The file's bytes; `pieces` are the distinct tokens of the sentence, in order."""
    bytes_ = [_symbol(byte) for byte in range(256)]
    words = ["".join(_symbol(byte) for byte in piece.encode()) for piece in pieces]
    tokens = [*bytes_, _EOS, _START, *words]
    states = len(words) + 2
    width = -(-(states + _FEATURES) // _HEAD) * _HEAD
    metadata = _metadata(tokens, width, context_tokens, template)
    return pack(metadata, _tensors(len(tokens), states, width))


def _pieces(sentence: str) -> list[str]:
    """Words with their leading space; a word seen before joins the next, so that all differ."""
    pieces: list[str] = []
    held = ""
    for word in sentence.replace(" ", "\0 ").split("\0"):
        held += word
        if held not in pieces and len(held.encode()) > 1:
            pieces.append(held)
            held = ""
    if held:
        pieces[-1:] = [pieces[-1] + held] if pieces else [held]
    if not pieces:
        raise ValueError(f"a test model needs a sentence to say, not {sentence!r}")
    return pieces


def _symbol(byte: int) -> str:
    """GPT-2's printable stand-in for a byte, as byte-level vocabularies store it."""
    if 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255:
        return chr(byte)
    unprintable = [b for b in range(256) if not (33 <= b <= 126 or 161 <= b <= 172 or b >= 174)]
    return chr(256 + unprintable.index(byte))


def _metadata(
    tokens: list[str], width: int, context_tokens: int, template: str
) -> dict[str, Value]:
    normal, control = 1, 3  # token types of the GGUF specification
    types = [control if token in (_EOS, _START) else normal for token in tokens]
    u32, f32, text = Kind.UINT32, Kind.FLOAT32, Kind.STRING
    return {
        "general.architecture": (text, "llama"),
        "general.name": (text, "Locavore built-in test model"),
        "llama.context_length": (u32, context_tokens),
        "llama.embedding_length": (u32, width),
        "llama.block_count": (u32, 1),
        "llama.feed_forward_length": (u32, _HEAD),
        "llama.attention.head_count": (u32, 1),
        "llama.attention.head_count_kv": (u32, 1),
        "llama.attention.key_length": (u32, _HEAD),
        "llama.attention.value_length": (u32, _HEAD),
        "llama.rope.dimension_count": (u32, _HEAD),
        "llama.attention.layer_norm_rms_epsilon": (f32, 1e-6),
        "llama.vocab_size": (u32, len(tokens)),
        "tokenizer.ggml.model": (text, "gpt2"),
        "tokenizer.ggml.pre": (text, "gpt-2"),
        "tokenizer.ggml.tokens": (Kind.ARRAY, (text, tokens)),
        "tokenizer.ggml.token_type": (Kind.ARRAY, (Kind.INT32, types)),
        # No merges: text becomes one token per byte, and never a word of the sentence.
        "tokenizer.ggml.merges": (Kind.ARRAY, (text, [])),
        "tokenizer.ggml.bos_token_id": (u32, _BEGIN),
        "tokenizer.ggml.eos_token_id": (u32, _END),
        "tokenizer.ggml.padding_token_id": (u32, _END),
        "tokenizer.ggml.add_bos_token": (Kind.BOOL, False),
        "tokenizer.chat_template": (text, template),
    }


def _tensors(vocabulary: int, states: int, width: int) -> dict[str, tuple[tuple[int, ...], bytes]]:
    ones = array("f", [1.0] * width).tobytes()

    def zeros(columns: int, rows: int) -> tuple[tuple[int, ...], bytes]:
        return (columns, rows), bytes(4 * columns * rows)

    return {
        "token_embd.weight": ((width, vocabulary), _embedding(vocabulary, states, width)),
        "output_norm.weight": ((width,), ones),
        "output.weight": ((width, vocabulary), _output(vocabulary, states, width)),
        "blk.0.attn_norm.weight": ((width,), ones),
        "blk.0.attn_q.weight": zeros(width, _HEAD),
        "blk.0.attn_k.weight": zeros(width, _HEAD),
        "blk.0.attn_v.weight": zeros(width, _HEAD),
        "blk.0.attn_output.weight": zeros(_HEAD, width),
        "blk.0.ffn_norm.weight": ((width,), ones),
        "blk.0.ffn_gate.weight": zeros(width, _HEAD),
        "blk.0.ffn_up.weight": zeros(width, _HEAD),
        "blk.0.ffn_down.weight": zeros(_HEAD, width),
    }


def _embedding(vocabulary: int, states: int, width: int) -> bytes:
    """Row per token: one-hot state, then features of equal length that only vectors show."""
    rows = array("f", bytes(4 * vocabulary * width))
    for token in range(vocabulary):
        at = token * width
        rows[at + _state(token)] = 1.0
        bits = (token + 1) * 2_654_435_761
        for i in range(_FEATURES):
            rows[at + states + i] = 1.0 if bits >> i & 1 else -1.0
    return _little(rows)


def _state(token: int) -> int:
    """0: bytes and markers, after which the sentence starts; 1: `{`; then one for each word."""
    return token - _WORDS + 2 if token >= _WORDS else int(token == ord("{"))


def _output(vocabulary: int, states: int, width: int) -> bytes:
    """Column per state: the next token on top, then the preferences a grammar falls back on."""
    # RMS norm makes every hidden row `sqrt(width / |row|²)` times its embedding.
    scale = (width / (1.0 + _FEATURES)) ** -0.5
    floor = [_RANK - _STEP * rank for rank in _ranks(vocabulary)]
    rows = array("f", bytes(4 * vocabulary * width))
    for token in range(vocabulary):
        for state in range(states):
            rows[token * width + state] = floor[token] * scale
    rows[ord("}") * width + 1] = _RANK * scale  # an object closes as soon as it may
    for state in range(states):
        following = _WORDS + max(0, state - 1)
        rows[(following if following < vocabulary else _END) * width + state] = _NEXT * scale
    return _little(rows)


def _ranks(vocabulary: int) -> list[int]:
    last = len(_PREFERRED) + 1
    ranks = [last] * vocabulary
    ranks[_END] = 0
    for rank, character in enumerate(_PREFERRED, 1):
        ranks[ord(character)] = rank
    for byte in (*b" \t\r\n", *range(32), *range(127, 256)):
        ranks[byte] = last + 1
    return ranks


def _little(values: "array[float]") -> bytes:
    if struct.pack("=I", 1) != struct.pack("<I", 1):
        values.byteswap()
    return values.tobytes()
