"""Watch a stream that passes through: forward bytes, find content, usage, errors and the end.

Only complete events are forwarded, so that an error can be put after any of them. Once content
has begun, a piece without any marker of its dialect is forwarded without being decoded: a JSON
text escapes the quotes inside strings, so `"usage"` with bare quotes can only be a key or a value.
"""

from abc import ABC, abstractmethod

from locavore.core.events import Failure, FinishReason
from locavore.core.money import Usage
from locavore.wire.faults import broken, cut_off, truncated
from locavore.wire.sse import EventTooLarge, Framer, SseEvent, blocks, parse


class StreamScanner(ABC):
    """`feed` gives the bytes to forward; the attributes tell what was seen so far."""

    def __init__(self, *, strip_usage: bool = False) -> None:
        self.strip_usage = strip_usage
        """Remove usage that is there only because we asked for it (C14)."""
        self.content_started = False
        """A first piece of the answer came; pings and openings do not count (C12)."""
        self.ended = False
        """The dialect's own end marker was seen; whatever follows is dropped."""
        self.failure: Failure | None = None
        """An error inside the stream; nothing from it on was returned."""
        self.usage: Usage | None = None
        self.finish_reasons: dict[int, FinishReason] = {}
        self.trailer = b""
        """After `close` without failure: bytes still to forward."""
        self._framer = Framer()

    def feed(self, data: bytes) -> bytes:
        if self.ended or self.failure is not None:
            return b""
        try:
            framed = self._framer.feed(data)
        except EventTooLarge as error:
            self.failure = broken(error.message)
            return b""
        if not framed:
            return b""
        if self.content_started and (quick := self._quick(framed)) is not None:
            return quick
        return self._scan(framed)

    def close(self) -> Failure | None:
        """The bytes ended. A Failure when the dialect's end was not among them (C01)."""
        if not self.ended:
            self._finish()
        return self.failure

    def _finish(self) -> None:
        held = self._framer.close()
        if self.failure is None:
            self.trailer = self._scan(held)
            self._check_end()

    def _check_end(self) -> None:
        if self.failure is not None:
            self.failure = cut_off(self.failure)
        elif not self.ended:
            self._close()
        if self.failure is not None:
            self.trailer = b""

    def _close(self) -> None:
        self.failure = truncated()

    def _scan(self, framed: bytes) -> bytes:
        kept: list[bytes] = []
        for block in blocks(framed):
            event = parse(block)
            piece = self._event(block, event) if event.data else block
            if self.failure is not None:
                break
            kept.append(piece)
            if self.ended:
                break
        return b"".join(kept)

    @abstractmethod
    def _quick(self, framed: bytes) -> bytes | None:
        """What to forward of events that need no look inside; None: look."""

    @abstractmethod
    def _event(self, block: bytes, event: SseEvent) -> bytes:
        """Note what one event says; the bytes to forward for it."""
