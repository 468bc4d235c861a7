"""Server-sent events, incrementally: whatever the cuts between the bytes, the same events.

Source: WHATWG HTML, "9.2.6 Interpreting an event stream". Two leniencies that engines need: an
event that the stream's end leaves without its blank line is still delivered, and a BOM is dropped.
"""

from typing import NamedTuple

from locavore.core.errors import LocavoreError

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""More than any answer in one event; a stream past it is not one we can hold back."""

_CR = ord("\r")
"""As an integer: CPython raises and drops a TypeError before it looks for bytes in bytes."""


class SseEvent(NamedTuple):
    event: str | None
    """The `event:` field; None when there was none."""
    data: bytes
    """The `data:` lines joined by newlines; empty for a comment-only block."""


class EventTooLarge(LocavoreError):
    """One event without an end, longer than `MAX_EVENT_BYTES`."""

    status = 502


class Framer:
    """Cuts a byte stream into complete blocks (events with their blank line), `\\n` framed.

    `\\r\\n` and `\\r` become `\\n`: a raw carriage return cannot stand inside a JSON text.
    """

    __slots__ = ("_after_cr", "_fresh", "_held", "_held_bytes", "_last")

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._last = b""
        self._after_cr = False
        self._fresh = True

    def feed(self, data: bytes) -> bytes:
        """The bytes of all blocks that are now complete; the rest is held."""
        if self._fresh or self._after_cr or _CR in data:
            data = self._normalise(data)
        if not self._held and data.endswith(b"\n\n"):
            return data
        cut = (self._last + data).rfind(b"\n\n")
        if cut < 0:
            self._hold(data)
            return b""
        cut += 2 - len(self._last)
        done = b"".join((*self._held, data[:cut]))
        self._held = []
        self._held_bytes = 0
        self._last = b""
        if cut < len(data):
            self._hold(data[cut:])
        return done

    def close(self) -> bytes:
        """What was held, completed with a blank line; empty when nothing was."""
        rest = b"".join(self._held).rstrip(b"\n")
        self._held = []
        self._last = b""
        return rest + b"\n\n" if rest else b""

    def _hold(self, data: bytes) -> None:
        if not data:
            return
        self._held_bytes += len(data)
        if self._held_bytes > MAX_EVENT_BYTES:
            raise EventTooLarge(f"an event of the stream exceeds {MAX_EVENT_BYTES} bytes")
        self._held.append(data)
        self._last = data[-1:]

    def _normalise(self, data: bytes) -> bytes:
        if self._fresh:
            data = self._without_bom(data)
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if data.endswith(b"\r"):
            self._after_cr = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _without_bom(self, data: bytes) -> bytes:
        """Drop a byte order mark, which may arrive in pieces."""
        if self._held:
            data = b"".join((*self._held, data))
            self._held = []
            self._held_bytes = 0
            self._last = b""
        if len(data) < 3 and b"\xef\xbb\xbf".startswith(data):
            self._hold(data)
            return b""
        self._fresh = False
        return data.removeprefix(b"\xef\xbb\xbf")


def parse(block: bytes) -> SseEvent:
    """One `\\n`-framed block."""
    if block.startswith(b"data: ") and block.find(b"\n") == len(block) - 2:
        return SseEvent(None, block[6:-2])  # most events are one line
    name: str | None = None
    lines: list[bytes] = []
    for line in block.split(b"\n"):
        field, colon, value = line.partition(b":")
        if not field:
            continue
        if colon and value.startswith(b" "):
            value = value[1:]
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"error":  # llama.cpp before 2024-12 wrote errors as a field of their own
            name = "error"
            lines.append(value)
    return SseEvent(name, b"\n".join(lines))


class SseDecoder:
    """`feed` and `close` give the events with data; comments vanish."""

    __slots__ = ("_framer",)

    def __init__(self) -> None:
        self._framer = Framer()

    def feed(self, data: bytes) -> list[SseEvent]:
        framed = self._framer.feed(data)
        return _events(framed) if framed else []

    def close(self) -> list[SseEvent]:
        return _events(self._framer.close())


def _events(framed: bytes) -> list[SseEvent]:
    return [event for block in framed.split(b"\n\n") if (event := parse(block)).data]


def frame(data: bytes, event: str | None = None) -> bytes:
    """One event as bytes; `data` must hold no raw newline (JSON text does not)."""
    if event is None:
        return b"data: " + data + b"\n\n"
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"
