"""Events in any order -> content blocks that never overlap (C20).

Anthropic streams one block at a time. Calls of other dialects may interleave, so a block waits
while the open one is a call whose arguments are not yet complete JSON.
"""

from collections import deque

import msgspec

from locavore.core.events import (
    Event,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from locavore.wire.decoding import encode, parse_arguments
from locavore.wire.sse import frame

_START = b'{"type":"content_block_start","index":%d,"content_block":%b}'
_DELTA = b'{"type":"content_block_delta","index":%d,"delta":%b}'
_STOP = b'{"type":"content_block_stop","index":%d}'


class _Block(msgspec.Struct):
    key: tuple[str, int]
    opening: bytes
    deltas: list[bytes] = []
    arguments: str = ""
    sealed: bool = False
    """Takes no more deltas: a signed thought, or sealed thinking."""

    @property
    def waiting(self) -> bool:
        """A call whose arguments are not complete."""
        return self.key[0] == "call" and not (
            self.arguments and parse_arguments(self.arguments) is not None
        )


class BlockWriter:
    """`add` and `finish` give the bytes that can be sent now."""

    def __init__(self) -> None:
        self._index = -1
        self._open: _Block | None = None
        self._queue: deque[_Block] = deque()

    def add(self, event: Event) -> bytes:
        key, opening, delta, sealed = _pieces(event)
        self._place(key, opening)
        block = self._block(key)
        if delta:
            block.deltas.append(delta)
        if isinstance(event, ToolCallDelta):
            block.arguments += event.arguments
        block.sealed = sealed
        return self._drain()

    def finish(self) -> bytes:
        """Close what is open and send what waited."""
        out = [self._drain()]
        while self._open is not None or self._queue:
            out.append(self._next())
            out.append(self._drain())
        return b"".join(out)

    def _block(self, key: tuple[str, int]) -> _Block:
        for block in reversed(self._queue):
            if block.key == key:
                return block
        assert self._open is not None  # noqa: S101 - `_place` opened it
        return self._open

    def _place(self, key: tuple[str, int], opening: bytes) -> None:
        """Make sure that a block for `key` is open or queued."""
        if key[0] == "call" and not opening:
            return  # its start came before
        last = self._queue[-1] if self._queue else self._open
        if last is None or last.key != key or last.sealed:
            self._queue.append(_Block(key=key, opening=opening or _OPENINGS[key[0]]))

    def _drain(self) -> bytes:
        """Send the open block's deltas, and go on to the next block as long as none must wait."""
        out: list[bytes] = []
        while True:
            if self._open is not None:
                out += [frame(_DELTA % (self._index, d), _D) for d in self._open.deltas]
                self._open.deltas.clear()
            if not self._queue or (self._open is not None and self._open.waiting):
                return b"".join(out)
            out.append(self._next())

    def _next(self) -> bytes:
        out = b""
        if self._open is not None:
            out = frame(_STOP % self._index, "content_block_stop")
            self._open = None
        if self._queue:
            self._index += 1
            self._open = self._queue.popleft()
            out += frame(_START % (self._index, self._open.opening), "content_block_start")
        return out


_D = "content_block_delta"
_OPENINGS = {
    "text": b'{"type":"text","text":""}',
    "thinking": b'{"type":"thinking","thinking":"","signature":""}',
}


def _pieces(event: Event) -> tuple[tuple[str, int], bytes, bytes, bool]:
    """(key of the block, its opening when it is known, the delta, whether it seals the block)."""
    if isinstance(event, TextDelta | RefusalDelta):
        return ("text", 0), b"", b'{"type":"text_delta","text":%b}' % encode(event.text), False
    if isinstance(event, ToolCallStart):
        opening = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
        return ("call", event.index), encode(opening), b"", False
    if isinstance(event, ToolCallDelta):
        text = encode(event.arguments)
        delta = b'{"type":"input_json_delta","partial_json":%b}' % text
        return ("call", event.index), b"", delta, False
    if not isinstance(event, ReasoningDelta):
        raise TypeError(f"no messages form for {type(event).__name__}")
    return _thought(event)


def _thought(event: ReasoningDelta) -> tuple[tuple[str, int], bytes, bytes, bool]:
    if event.redacted is not None:
        opening = encode({"type": "redacted_thinking", "data": event.redacted})
        return ("redacted", 0), opening, b"", True
    if event.signature is None:
        delta = b'{"type":"thinking_delta","thinking":%b}' % encode(event.text)
        return ("thinking", 0), b"", delta, False
    delta = b'{"type":"signature_delta","signature":%b}' % encode(event.signature)
    return ("thinking", 0), b"", delta, True
