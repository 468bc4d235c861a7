"""A head seen before on a connection: compared as bytes instead of parsed again.

Clients and engines repeat themselves: on a kept connection one head differs from the next in the
digits of Content-Length and little else. A head that llhttp accepted, with other digits in that
place, is a head llhttp would accept, and means the same. So the comparison is exact: any other
difference, and any body that is not there in full, is left to the parser.
"""

MAX_DIGITS = 10


class KnownHead:
    """What stands before and after the digits of Content-Length."""

    __slots__ = ("_after", "_before", "_digits_at")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._digits_at = len(before)

    @classmethod
    def of(cls, data: bytes) -> "KnownHead | None":
        """From one whole message that the parser accepted; None without a plain Content-Length."""
        end = data.find(b"\r\n\r\n")
        name_at = data[:end].lower().find(b"\r\ncontent-length:")
        if end < 0 or name_at < 0:
            return None
        stop = data.find(b"\r\n", name_at + 2)
        value = data[name_at + 17 : stop].lstrip(b" \t")
        if not value.isdigit():
            return None
        return cls(data[: stop - len(value)], data[stop : end + 4])

    def body_of(self, data: bytes) -> bytes | None:
        """The body, when `data` is this head, whatever its length, and exactly its body."""
        if not data.startswith(self._before):
            return None
        at = self._digits_at
        stop = data.find(b"\r\n", at, at + MAX_DIGITS + 2)
        if stop < 0 or not data.startswith(self._after, stop):
            return None
        digits = data[at:stop]
        body_at = stop + len(self._after)
        if not digits.isdigit() or int(digits) != len(data) - body_at:
            return None
        return data[body_at:]
