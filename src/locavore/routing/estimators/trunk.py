"""The shipped artifact: where a text lies among texts, and how hard texts like it are.

`benchmarks/routing/train.py` makes it. Each n-gram has a row of `DIMS` signed bytes; a text is the
sum of its rows. A row is one Python integer of 32-bit fields, so one addition adds all fields.
"""

import sys
import zlib
from itertools import repeat
from math import sqrt
from pathlib import Path

import msgspec

from locavore.core.errors import ConfigError
from locavore.routing.estimators import features
from locavore.routing.estimators.boost import Forest
from locavore.routing.estimators.odds import Odds

DIMS = 64
SHIPPED = Path(__file__).with_name("shipped.bin")
_MAGIC = b"locavore-trunk-3\n"


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds, as msgpack under zlib behind a magic line and a CRC-32."""

    hashes: bytes
    """Little-endian uint32 per n-gram, ascending."""
    rows: bytes
    """`DIMS` bytes per n-gram, each the value times `scale` of its column plus 128."""
    scale: list[float]
    generic: Forest
    """Features -> how much less the weaker model loses here than on average, in deviations."""
    easier: Forest
    """`Reading.row` -> how much easier than average for models in general, in logits."""
    answers: Forest
    """`signals.numbers` -> as `generic`, from what the local answer looks like."""
    gain_pre: Odds
    """What the score of `pair.unlabelled` says over pairs of models; see `promise`."""
    gain_post: Odds
    trained_on: str
    """The data and the figures behind it."""


class Reading(msgspec.Struct, frozen=True):
    """One text as the estimators see it."""

    grams: set[int]
    row: list[float]
    """`features.dense`, then `DIMS` coordinates of unit length."""
    generic: float
    easier: float
    artifact: str
    """`Trunk.mark` of what read it."""


class Trunk:
    """Reads texts. Immutable; one per process."""

    def __init__(self, contents: Contents, mark: str = "") -> None:
        self.mark = mark
        """Of the file: scores of another artifact mean something else."""
        many = len(contents.rows) // DIMS
        hashes = memoryview(contents.hashes).cast("I")
        if sys.byteorder != "little":
            raise ConfigError(["the routing artifact needs a little-endian machine"])
        if len(hashes) != many or len(contents.scale) != DIMS:
            raise ConfigError([f"routing artifact: {len(hashes)} n-grams but {many} rows"])
        self._table = {h: _packed(contents.rows, k) for k, h in enumerate(hashes)}
        self._scale = contents.scale
        self.generic = contents.generic
        self.easier = contents.easier
        self.answers = contents.answers
        self.gain_pre = contents.gain_pre
        self.gain_post = contents.gain_post
        self.trained_on = contents.trained_on

    def read(self, text: str) -> Reading:
        seen = features.read(text)
        grams = features.ngrams(seen)
        row = features.dense(seen, len(text), grams) + self._place(grams)
        return Reading(grams, row, self.generic(row), self.easier(row), self.mark)

    def _place(self, grams: set[int]) -> list[float]:
        found = list(filter(None, map(self._table.get, grams, repeat(0))))
        fields = memoryview(sum(found).to_bytes(4 * DIMS, "little")).cast("I")
        bias = 128 * len(found)
        values = [(v - bias) / s for v, s in zip(fields, self._scale, strict=True)]
        norm = sqrt(sum([v * v for v in values])) or 1.0
        return [v / norm for v in values]


def _packed(rows: bytes, k: int) -> int:
    wide = bytearray(4 * DIMS)
    wide[::4] = rows[k * DIMS : (k + 1) * DIMS]
    return int.from_bytes(wide, "little")


def load(path: Path = SHIPPED) -> Trunk:
    """The artifact of a file; raises ConfigError when it is missing, cut or changed."""
    try:
        data = path.read_bytes()
        return Trunk(_opened(data), data[len(_MAGIC) :][:4].hex())
    except (OSError, ValueError, zlib.error, msgspec.DecodeError) as error:
        raise ConfigError([f"routing artifact {path}: {error}"]) from error


def _opened(data: bytes) -> Contents:
    start = len(_MAGIC) + 4
    if not data.startswith(_MAGIC):
        raise ValueError("not a routing artifact of this version")
    if zlib.crc32(data[start:]).to_bytes(4, "little") != data[len(_MAGIC) : start]:
        raise ValueError("its checksum does not match")
    return msgspec.msgpack.decode(zlib.decompress(data[start:]), type=Contents)


def dump(contents: Contents) -> bytes:
    """The bytes that `load` reads."""
    body = zlib.compress(msgspec.msgpack.encode(contents), 9)
    return _MAGIC + zlib.crc32(body).to_bytes(4, "little") + body
