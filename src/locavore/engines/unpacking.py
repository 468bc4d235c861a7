"""Compressed answers, which we never ask for and some servers send all the same (C13)."""

import zlib

from locavore.core.ports import Headers

MAX_BODY_BYTES = 1024 * 1024 * 1024


class Unpacker:
    """gzip and deflate, streamed; ValueError for bytes that are neither."""

    def __init__(self, coding: bytes) -> None:
        self._coding = coding
        self._start = b""
        self._state: zlib._Decompress | None = None

    @classmethod
    def for_coding(cls, coding: bytes) -> "Unpacker | None":
        return cls(coding) if coding in (b"gzip", b"x-gzip", b"deflate") else None

    @property
    def ended(self) -> bool:
        return self._state.eof if self._state is not None else not self._start

    def feed(self, data: bytes) -> bytes:
        if self._state is None:
            data = self._start = self._start + data
            if len(data) < 2:
                return b""
            self._state = zlib.decompressobj(self._window(data))
        try:
            plain = self._state.decompress(data, MAX_BODY_BYTES // 16)
        except zlib.error as error:
            raise ValueError(f"its compressed answer is broken: {error}") from error
        if self._state.unconsumed_tail:
            raise ValueError("its compressed answer unpacks to an absurd size")
        if self._state.unused_data:
            raise ValueError("bytes follow its compressed answer")
        return plain

    def _window(self, start: bytes) -> int:
        """Some servers say deflate and mean raw deflate, without the zlib head (RFC 1950, 2.2)."""
        if self._coding != b"deflate":
            return 16 + zlib.MAX_WBITS
        has_head = start[0] & 15 == 8 and (start[0] * 256 + start[1]) % 31 == 0
        return zlib.MAX_WBITS if has_head else -zlib.MAX_WBITS


def coding_of(headers: Headers) -> bytes | None:
    """The Content-Encoding, lower-case; None when the body is plain."""
    for name, value in headers:
        if name == b"content-encoding":
            coding = value.strip().lower()
            return None if coding in (b"identity", b"") else coding
    return None
