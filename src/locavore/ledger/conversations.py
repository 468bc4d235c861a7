"""Where conversations were served, in one small memory-mapped table that all workers share.

Workers share a port, so the turns of a conversation reach different ones. A table of fixed size in
a file costs a microsecond, needs no lock and survives a restart. Each slot carries a checksum: a
slot that two workers wrote at once, or that a crash cut, counts as empty. A key that meets another
in its slot replaces it; what is forgotten costs a conversation its place, nothing else.

No text is kept: keys are digests, keyed with a secret of this file.
"""

import mmap
import os
import secrets
import struct
import time
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

from locavore.core.errors import StoreError
from locavore.core.ports import Home

SLOTS = 1 << 16
_SLOT = struct.Struct("<16sQI")
"""Key, mark of the backend, Unix time in seconds; behind it the CRC-32 of the three."""
_WIDTH = _SLOT.size + 4
_HEADER = 64
_MAGIC = b"locavore-talks-1"
_SECRET_BYTES = 32


class FileHomes:
    """`core.ports.Homes` over a file."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Opens the table and makes it if need be; raises StoreError when it cannot."""
        self._clock = clock
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_table(path):
                _make(path)
            with path.open("r+b") as file:
                self._map = mmap.mmap(file.fileno(), _HEADER + SLOTS * _WIDTH)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: conversations cannot be kept here: {error}") from error
        self.secret = self._map[len(_MAGIC) : len(_MAGIC) + _SECRET_BYTES]

    def get(self, key: bytes) -> Home | None:
        at = _place(key)
        raw = self._map[at : at + _WIDTH]
        if raw[:16] != key or crc32(raw[:-4]).to_bytes(4, "little") != raw[-4:]:
            return None
        _, mark, seen_s = _SLOT.unpack_from(raw)
        return Home(mark, max(0.0, self._clock() - seen_s))

    def put(self, key: bytes, mark: int) -> None:
        raw = _SLOT.pack(key, mark, int(self._clock()))
        at = _place(key)
        self._map[at : at + _WIDTH] = raw + crc32(raw).to_bytes(4, "little")

    def close(self) -> None:
        self._map.close()


def _place(key: bytes) -> int:
    return _HEADER + int.from_bytes(key[:4], "little") % SLOTS * _WIDTH


def _is_table(path: Path) -> bool:
    if not path.exists() or path.stat().st_size != _HEADER + SLOTS * _WIDTH:
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _make(path: Path) -> None:
    """Whole or not at all: several workers start at once, and the first one's table is kept."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(_MAGIC + secrets.token_bytes(_SECRET_BYTES))
        file.truncate(_HEADER + SLOTS * _WIDTH)
    try:
        if path.exists() and not _is_table(path):
            draft.replace(path)
        else:
            os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
