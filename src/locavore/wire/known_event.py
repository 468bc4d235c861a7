"""An event seen before in a stream: compared as bytes instead of decoded again.

Engines repeat themselves: from one piece of text to the next, only the text differs. An event that
was decoded and said nothing but a text, with other characters between the same two quotes, is the
same JSON with another text. A text with a quote or a line break in it is left to the decoder.
"""

_KEYS = (
    b'"content":',
    b'"reasoning_content":',
    b'"reasoning":',
    b'"text":',
    b'"thinking":',
    b'"partial_json":',
    b'"delta":',
)
"""Keys that hold a piece of the answer in one dialect or another."""


class KnownEvent:
    """What stands before and after the text."""

    __slots__ = ("_after", "_after_size", "_before", "_before_size", "events")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._before_size = len(before)
        self._after_size = len(after)
        self.events = 0
        """How many events the last `run` passed."""

    @classmethod
    def of(cls, block: bytes, text: str) -> "KnownEvent | None":
        """From one event and its text; None when the text is not certain to stand there once."""
        quoted = b'"%b"' % text.encode()
        at = block.find(quoted)
        if at < 0 or b"\\" in quoted or block.find(quoted, at + 1) >= 0:
            return None
        if not block[:at].rstrip(b" ").endswith(_KEYS) or block.find(b"\n", at) != len(block) - 2:
            return None
        return cls(block[: at + 1], block[at + len(quoted) - 1 :])

    def run(self, framed: bytes, at: int = 0) -> int:
        """Where the events that are this one with another text end; `at` when none is there."""
        begins, find = framed.startswith, framed.find
        before, skip, after, size = self._before, self._before_size, self._after, self._after_size
        count = 0
        while begins(before, at):
            text_at = at + skip
            quote_at = find(b'"', text_at)
            end = quote_at + size
            # The quote that ends the text, and no raw line break in it: the next one is the last.
            if not begins(after, quote_at) or find(b"\n", text_at) != end - 2:
                break
            if framed[quote_at - 1] == 0x5C:  # an escaped quote: the text goes on
                break
            at = end
            count += 1
        self.events = count
        return at
