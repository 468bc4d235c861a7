"""`<think>…</think>` at the head of a passed answer's text becomes `reasoning_content` (C31)."""

from typing import Any

import msgspec

from locavore.wire.decoding import encode
from locavore.wire.openai_chat.chunks import Choice, decode_chunk
from locavore.wire.sse import frame
from locavore.wire.thinking_tags import ThinkSplitter

Parts = tuple[str, str]
"""(thinking, text)"""
_decode = msgspec.json.Decoder().decode


class Thoughts:
    """Tells thinking from text, per choice, until the text has begun."""

    def __init__(self) -> None:
        self._splitters: dict[int, ThinkSplitter] = {}

    def apart(self, choice: Choice, *, last: bool) -> Parts | None:
        """What a choice says; None: it may pass as it is. `last`: nothing follows."""
        splitter = self._splitters.setdefault(choice.index, ThinkSplitter())
        if splitter.settled:
            return None
        delta = choice.delta or choice.message
        text = delta.content if delta is not None and isinstance(delta.content, str) else ""
        thought, words = splitter.feed(text) if text else ("", "")
        if last:
            rest = splitter.close()
            thought, words = thought + rest[0], words + rest[1]
        return None if (thought, words) == ("", text) else (thought, words)

    def rest(self) -> bytes:
        """Chunks with what is still held of choices that never said that they end."""
        return b"".join(
            frame(encode({"object": "chat.completion.chunk", "choices": [_chunk(index, parts)]}))
            for index, splitter in self._splitters.items()
            if any(parts := splitter.close())
        )


def _chunk(index: int, parts: Parts) -> dict[str, Any]:
    return {"index": index, "delta": _said({}, parts), "finish_reason": None}


def patch(fields: dict[str, Any], apart: dict[int, Parts]) -> None:
    """Write what was told apart into a decoded chunk or answer, by position of its choice."""
    for position, parts in apart.items():
        choice = fields["choices"][position]
        place = "message" if choice.get("message") else "delta"
        choice[place] = _said(choice.get(place) or {}, parts)


def _said(delta: dict[str, Any], parts: Parts) -> dict[str, Any]:
    thought, words = parts
    said = {**delta, "content": words}
    if thought:
        said["reasoning_content"] = (delta.get("reasoning_content") or "") + thought
    return said


_LESS, _BACKSLASH = b"<\\"
"""As integers: CPython raises and drops a TypeError before it looks for bytes in bytes."""


def thinking_apart(body: bytes) -> bytes:
    """A whole answer, for a client of chat completions."""
    # One byte is looked for ten times as fast as a word; some engines escape the bracket.
    if _LESS not in body and (_BACKSLASH not in body or b"\\u003c" not in body.lower()):
        return body
    thoughts = Thoughts()
    choices = decode_chunk(body).choices or ()
    told = {at: thoughts.apart(choice, last=True) for at, choice in enumerate(choices)}
    apart = {at: parts for at, parts in told.items() if parts is not None}
    if not apart:
        return body
    fields = _decode(body)
    patch(fields, apart)
    return encode(fields)
