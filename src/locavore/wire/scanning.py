"""Watch a stream that passes through: forward bytes, find content, usage, errors and the end.

Only complete events are forwarded, so that an error can be put after any of them. Each event is
decoded, except one that differs from an event decoded before in nothing but a piece of text: see
`wire.known_event`. What an event says does not depend on which others came in the same read.
"""

from abc import ABC, abstractmethod

from locavore.core.events import Failure, FinishReason
from locavore.core.money import Usage
from locavore.wire.faults import broken, cut_off, truncated
from locavore.wire.known_event import KnownEvent
from locavore.wire.sse import EventTooLarge, Framer, SseEvent, parse

LEARN_TRIES = 8
"""How often a stream's usual event is learnt anew: one whose events all differ is not worth it."""


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
        self.events = 0
        """Events with data: with no usage, the best estimate of the answer's tokens."""
        self._framer = Framer()
        self._known: KnownEvent | None = None
        self._tries = LEARN_TRIES

    def feed(self, data: bytes) -> bytes:
        if self.ended or self.failure is not None:
            return b""
        try:
            framed = self._framer.feed(data)
        except EventTooLarge as error:
            self.failure = broken(error.message)
            return b""
        known = self._known
        if known is not None:
            end = known.run(framed)
            if end:
                self.events += known.events
                if end == len(framed):
                    return framed
                return self._scan(framed, end)
        return self._scan(framed) if framed else b""

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

    def _scan(self, framed: bytes, at: int = 0) -> bytes:
        """What to forward of complete events; those before `at` need no look."""
        kept = [framed[:at]]
        size = len(framed)
        while at < size:
            end = framed.find(b"\n\n", at)
            end = size if end < 0 else end + 2
            block = framed[at:end]
            kept.append(self._one(block))
            if self.failure is not None or self.ended:
                break
            at = end
            if self._known is not None and at < size:
                end = self._known.run(framed, at)
                self.events += self._known.events
                kept.append(framed[at:end])
                at = end
        return b"".join(kept)

    def _one(self, block: bytes) -> bytes:
        event = parse(block)
        if not event.data:
            return block
        self.events += 1
        piece, text = self._event(block, event)
        if text is not None and piece is block and self._tries:
            known = KnownEvent.of(block, text)
            if known is not None:
                self._tries -= 1
                self._known = known
        return piece

    @abstractmethod
    def _event(self, block: bytes, event: SseEvent) -> tuple[bytes, str | None]:
        """Note what one event says: (bytes to forward for it, its text if that is all it says)."""
