"""`<think>…</think>` at the head of a text, told apart from the answer as it streams (C31)."""

OPEN = "<think>"
CLOSE = "</think>"


class ThinkSplitter:
    """Text deltas -> (reasoning, text) pieces. Only a tag that opens the answer counts."""

    __slots__ = ("_held", "_state")

    def __init__(self, *, raw: bool = False) -> None:
        self._state = "text" if raw else "head"  # head | inside | after | text
        self._held = ""

    @property
    def settled(self) -> bool:
        """Whatever follows is text."""
        return self._state == "text"

    def feed(self, text: str) -> tuple[str, str]:
        if self._state == "text":
            return "", text
        text = self._held + text
        self._held = ""
        if self._state == "head":
            return self._head(text)
        if self._state == "inside":
            return self._inside(text)
        return "", self._after(text)

    def close(self) -> tuple[str, str]:
        """What was held back because it might have been a tag."""
        held, self._held = self._held, ""
        if self._state == "inside":
            return held, ""
        return "", "" if self._state == "after" else held

    def _head(self, text: str) -> tuple[str, str]:
        start = text.lstrip()
        if start.startswith(OPEN):
            self._state = "inside"
            return self._inside(start[len(OPEN) :].lstrip("\n"))
        if OPEN.startswith(start):
            self._held = text
            return "", ""
        self._state = "text"
        return "", text

    def _inside(self, text: str) -> tuple[str, str]:
        reasoning, found, rest = text.partition(CLOSE)
        if found:
            self._state = "after"
            return reasoning, self._after(rest)
        keep = _partial_tag(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], ""

    def _after(self, text: str) -> str:
        """Blank lines between the thought and the answer belong to neither."""
        text = text.lstrip("\n")
        if text:
            self._state = "text"
        return text


def _partial_tag(text: str) -> int:
    """Length of the longest tail of `text` that a closing tag may begin with."""
    for length in range(min(len(CLOSE) - 1, len(text)), 0, -1):
        if CLOSE.startswith(text[-length:]):
            return length
    return 0
