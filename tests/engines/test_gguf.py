"""GGUF headers: what was written is read, and no file can make the reader do more than refuse."""

import struct
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locavore.engines import facts, fit, machine
from locavore.engines.gguf import GgufError, Header, Kind, Value, pack, read_header, tensor_bytes
from locavore.engines.test_model import SENTENCE, TEMPLATE, build, write_test_model

WHOLE = build(["Hello", " there"], 4096)


def _read(content: bytes) -> Header:
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(content)
        file.flush()
        return read_header(Path(file.name))


def test_the_test_model_reads_back(tmp_path: Path) -> None:
    written = write_test_model(tmp_path / "m.gguf")
    header = read_header(written.path)
    assert header.architecture == "llama"
    assert header.number("context_length") == written.context_tokens
    assert facts.template_of(header) == TEMPLATE
    assert len(header.tensors) == 12
    assert written.sentence == SENTENCE
    assert written.bytes == written.path.stat().st_size < 400_000


@pytest.mark.parametrize(
    "sentence",
    ["a b a b", "one", "Grüße, 你好!", "x" * 500, "the the the", "Line\nbreaks and  spaces."],
)
def test_any_sentence_becomes_distinct_tokens(tmp_path: Path, sentence: str) -> None:
    header = read_header(write_test_model(tmp_path / "m.gguf", sentence).path)
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert len(tokens) == len(set(tokens))


def test_an_empty_sentence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a sentence"):
        write_test_model(tmp_path / "m.gguf", "")


KINDS: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.UINT8: st.integers(0, 255),
    Kind.INT32: st.integers(-(2**31), 2**31 - 1),
    Kind.UINT64: st.integers(0, 2**64 - 1),
    Kind.FLOAT32: st.floats(width=32, allow_nan=False),
    Kind.FLOAT64: st.floats(allow_nan=False),
    Kind.BOOL: st.booleans(),
    Kind.STRING: st.text(),
}


@st.composite
def values(draw: st.DrawFn) -> Value:
    kind = draw(st.sampled_from(list(KINDS)))
    if draw(st.booleans()):
        return kind, draw(KINDS[kind])
    return Kind.ARRAY, (kind, draw(st.lists(KINDS[kind], max_size=4)))


@given(st.dictionaries(st.text(min_size=1).map("x.".__add__), values(), max_size=5))
def test_what_is_packed_is_read(metadata: dict[str, Value]) -> None:
    tensors = {"t": ((2, 3), bytes(24)), "u": ((1,), b"abcd")}
    header = _read(pack(metadata, tensors))
    plain = {k: v[1][1] if v[0] is Kind.ARRAY else v[1] for k, v in metadata.items()}
    assert header.metadata == plain
    assert [(t.name, t.dimensions, t.offset) for t in header.tensors] == [
        ("t", (2, 3), 0),
        ("u", (1,), 32),
    ]


@given(st.integers(0, len(WHOLE) - 1))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(GgufError):
        _read(WHOLE[:length])


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_is_refused_or_harmless(changes: list[tuple[int, int]]) -> None:
    content = bytearray(WHOLE)
    for at, byte in changes:
        content[at] = byte
    try:
        header = _read(bytes(content))
        needs = fit.footprint(header, 4096)
        assert needs.total_bytes >= needs.weights_bytes
        facts.capabilities_of(header, embeddings=False)
        fit.choose_context(header, machine.describe(), None)
    except GgufError:
        pass


@pytest.mark.parametrize(
    "content",
    [
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62),
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 9, 1) * 50,
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 4, 1 << 40),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 99),
    ],
)
def test_announced_sizes_are_not_believed(content: bytes) -> None:
    with pytest.raises(GgufError):
        _read(content)


def test_kv_bytes_match_what_was_measured() -> None:
    """Qwen3-0.6B with f16 cache: 114,688 bytes per token predicted, 114,694 measured."""
    header = Header(
        version=3,
        metadata={
            "general.architecture": "qwen3",
            "qwen3.block_count": 28,
            "qwen3.embedding_length": 1024,
            "qwen3.attention.head_count": 16,
            "qwen3.attention.head_count_kv": 8,
            "qwen3.attention.key_length": 128,
            "qwen3.attention.value_length": 128,
            "qwen3.context_length": 40_960,
        },
        tensors=(),
        data_offset=0,
        file_bytes=639_446_688,
    )
    assert fit.kv_bytes_per_token(header) == 114_688
    small = msgspec.structs.replace(machine.describe(), available_bytes=3 << 30, gpus=())
    context, problem = fit.choose_context(header, small, None)
    assert problem is None
    assert context == 16_384  # 32,768 tokens would need 3.5 GiB of cache alone
    context, problem = fit.choose_context(header, small, 40_960)
    assert problem
    assert "KV cache 4.38" in problem
    per_layer = {**header.metadata, "qwen3.attention.head_count_kv": [8] * 14 + [0] * 14}
    half = msgspec.structs.replace(header, metadata=per_layer)
    assert fit.kv_bytes_per_token(half) == 114_688 // 2


def test_block_sizes() -> None:
    header = _read(pack({}, {"t": ((256,), bytes(1024))}))
    assert tensor_bytes(header.tensors[0]) == 1024
    assert tensor_bytes(msgspec.structs.replace(header.tensors[0], ggml_type=12)) == 144
    assert tensor_bytes(msgspec.structs.replace(header.tensors[0], ggml_type=99)) is None
