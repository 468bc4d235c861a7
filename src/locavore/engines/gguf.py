"""Read and write GGUF headers: metadata and tensor infos, never trusting a length in the file.

Layout (version 3, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version,
counts, key-values, tensor infos, padding to `general.alignment`, tensor data.
"""

import struct
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

MAGIC = b"GGUF"
ALIGNMENT = 32
_MAX_COUNT = 1 << 20  # key-values, tensors; the largest published models have thousands
_MAX_STRING = 64 << 20
_MAX_ARRAY = 1 << 24
_MAX_DEPTH = 4


class GgufError(ValueError):
    """The file is not a GGUF this reader can trust; the message says where and why."""


class Kind(IntEnum):
    """Value types of the specification."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


Value = tuple[Kind, Any]
"""Kind and value; for an array the value is `(element kind, list)`."""

_CODES = {
    Kind.UINT8: "B",
    Kind.INT8: "b",
    Kind.UINT16: "H",
    Kind.INT16: "h",
    Kind.UINT32: "I",
    Kind.INT32: "i",
    Kind.FLOAT32: "f",
    Kind.BOOL: "?",
    Kind.UINT64: "Q",
    Kind.INT64: "q",
    Kind.FLOAT64: "d",
}


def pack(
    metadata: Mapping[str, Value], tensors: Mapping[str, tuple[tuple[int, ...], bytes]]
) -> bytes:
    """A whole file; every tensor is F32, `(dimensions, little-endian bytes)`."""
    head = [MAGIC, struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    head += [_packed_string(key) + _packed(value) for key, value in metadata.items()]
    offset, data = 0, []
    for name, (shape, content) in tensors.items():
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head.append(_packed_string(name) + dimensions + struct.pack("<IQ", 0, offset))
        padded = content + bytes(-len(content) % ALIGNMENT)
        data.append(padded)
        offset += len(padded)
    header = b"".join(head)
    return header + bytes(-len(header) % ALIGNMENT) + b"".join(data)


def _packed(value: Value) -> bytes:
    kind, content = value
    return struct.pack("<I", kind) + _packed_content(kind, content)


def _packed_content(kind: Kind, content: Any) -> bytes:
    if kind is Kind.STRING:
        return _packed_string(content)
    if kind is Kind.ARRAY:
        inner, items = content
        body = b"".join(_packed_content(inner, item) for item in items)
        return struct.pack("<IQ", inner, len(items)) + body
    return struct.pack("<" + _CODES[kind], content)


def _packed_string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


class TensorInfo(msgspec.Struct, frozen=True):
    """One tensor: `dimensions` as stored (fastest first), `offset` from the data section."""

    name: str
    dimensions: tuple[int, ...]
    ggml_type: int
    offset: int

    @property
    def elements(self) -> int:
        product = 1
        for size in self.dimensions:
            product *= size
        return product


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a GGUF says about itself, without its weights."""

    version: int
    metadata: dict[str, Any]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    """Byte where tensor data begins."""
    file_bytes: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def of_architecture(self, key: str) -> Any:
        """`{architecture}.{key}`, or None."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def number(self, key: str) -> int | None:
        """`{architecture}.{key}` as a whole number, the largest where it is given per layer."""
        value = self.of_architecture(key)
        values = value if isinstance(value, list) else [value]
        if value is None or not values:
            return None
        if not all(isinstance(v, int) and 0 <= v < 1 << 40 for v in values):
            raise GgufError(f"{self.architecture}.{key} is {str(value)[:60]!r}, not a size")
        return int(max(values))

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)


def read_header(path: Path) -> Header:
    """Metadata and tensor infos of the file at `path`; GgufError if it is damaged.

    Also checks that every tensor lies inside the file: a truncated download is found here,
    in the parent, before the engine maps it.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = _Reader(file, size, path.name).header()
    _check_extent(header, path.name)
    return header


class _Reader:
    """Reads little-endian values, never more than what is left of the file."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file, self._left, self._size, self._name = file, size, size, name

    def header(self) -> Header:
        magic = self._take(4)
        if magic != MAGIC:
            raise GgufError(f"{self._name} is not a GGUF file: it begins with {magic!r}")
        version = self._number("I")
        if version not in (2, 3):
            raise self._bad(f"version {version!r} is not supported (2 and 3 are)")
        tensor_count, pair_count = self._count("tensors"), self._count("keys")
        metadata = dict(self._pair() for _ in range(pair_count))
        tensors = tuple(self._tensor() for _ in range(tensor_count))
        return Header(
            version=version,
            metadata=metadata,
            tensors=tensors,
            data_offset=self._data_offset(metadata),
            file_bytes=self._size,
        )

    def _data_offset(self, metadata: dict[str, Any]) -> int:
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
            raise self._bad(f"alignment {alignment!r} is not a sensible number")
        return -(-self._at // alignment) * alignment

    @property
    def _at(self) -> int:
        return self._size - self._left

    def _bad(self, what: str) -> GgufError:
        return GgufError(f"{self._name}, byte {self._at:,}: {what}")

    def _take(self, count: int) -> bytes:
        if count > self._left:
            raise self._bad(f"{count:,} bytes expected, {self._left:,} are left (truncated?)")
        data = self._file.read(count)
        if len(data) != count:
            raise self._bad("the file became shorter while it was read")
        self._left -= count
        return data

    def _number(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _count(self, of: str) -> int:
        count: int = self._number("Q")
        if count > _MAX_COUNT:
            raise self._bad(f"{count:,} {of} are announced; the file is damaged")
        return count

    def _string(self) -> str:
        length: int = self._number("Q")
        if length > _MAX_STRING:
            raise self._bad(f"a string of {length:,} bytes is announced; the file is damaged")
        return self._take(length).decode("utf-8", "replace")

    def _kind(self) -> Kind:
        number = self._number("I")
        try:
            return Kind(number)
        except ValueError:
            raise self._bad(f"value type {number!r} is unknown") from None

    def _pair(self) -> tuple[str, Any]:
        key = self._string()
        return key, self._value(self._kind(), 0)

    def _value(self, kind: Kind, depth: int) -> Any:
        if kind is Kind.STRING:
            return self._string()
        if kind is Kind.ARRAY:
            return self._array(depth + 1)
        if kind is Kind.BOOL:
            return self._number("B") != 0
        return self._number(_CODES[kind])

    def _array(self, depth: int) -> list[Any]:
        if depth > _MAX_DEPTH:
            raise self._bad(f"arrays are nested deeper than {_MAX_DEPTH}")
        kind = self._kind()
        length: int = self._number("Q")
        if length > _MAX_ARRAY:
            raise self._bad(f"an array of {length:,} values is announced; the file is damaged")
        if kind in (Kind.STRING, Kind.ARRAY):
            return [self._value(kind, depth) for _ in range(length)]
        code = "B" if kind is Kind.BOOL else _CODES[kind]
        data = self._take(length * struct.calcsize("<" + code))
        return list(struct.unpack(f"<{length}{code}", data))

    def _tensor(self) -> TensorInfo:
        name = self._string()
        rank = self._number("I")
        if not 0 < rank <= 4:
            raise self._bad(f"tensor {name!r} has {rank!r} dimensions")
        dimensions = tuple(struct.unpack(f"<{rank}Q", self._take(8 * rank)))
        return TensorInfo(name, dimensions, self._number("I"), self._number("Q"))


# Bytes per block and elements per block of each ggml type
# (https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h, read 2026-11).
BLOCKS: dict[int, tuple[int, int]] = {
    0: (4, 1),  # F32
    1: (2, 1),  # F16
    2: (18, 32),  # Q4_0
    3: (20, 32),  # Q4_1
    6: (22, 32),  # Q5_0
    7: (24, 32),  # Q5_1
    8: (34, 32),  # Q8_0
    10: (84, 256),  # Q2_K
    11: (110, 256),  # Q3_K
    12: (144, 256),  # Q4_K
    13: (176, 256),  # Q5_K
    14: (210, 256),  # Q6_K
    30: (2, 1),  # BF16
}


def tensor_bytes(tensor: TensorInfo) -> int | None:
    """Size in the file; None for a type this table does not hold."""
    block = BLOCKS.get(tensor.ggml_type)
    return None if block is None else -(-tensor.elements // block[1]) * block[0]


def _check_extent(header: Header, name: str) -> None:
    for tensor in header.tensors:
        end = header.data_offset + tensor.offset + (tensor_bytes(tensor) or 0)
        if end > header.file_bytes:
            raise GgufError(
                f"{name} is truncated: tensor {tensor.name!r} ends at byte {end:,}, "
                f"the file has {header.file_bytes:,}; pull it again"
            )
