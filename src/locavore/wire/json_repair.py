"""JSON out of an answer that wrapped it in prose or a code fence (C29). Policy decides on use."""

import json
import re

_FENCE = re.compile(r"```[a-zA-Z0-9]*\s*\n?(.*?)```", re.DOTALL)
_DECODER = json.JSONDecoder()
MAX_STARTS = 200
"""Braces tried before giving up: each try costs one pass over the text."""


def repair_json(text: str) -> str | None:
    """The one JSON object or list that `text` holds, exactly as it stands there; None: no such."""
    if is_json(text):
        return text.strip()
    for fenced in _FENCE.findall(text):
        if is_json(fenced):
            return str(fenced).strip()
    return _widest(text)


def is_json(text: str) -> bool:
    """Whether the whole text is a JSON object or list."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _widest(text: str) -> str | None:
    """The longest object or list found from any opening brace."""
    best: str | None = None
    position = tried = 0
    while tried < MAX_STARTS and (found := re.compile(r"[{\[]").search(text, position)):
        tried += 1
        start = found.start()
        try:
            _, position = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            position = start + 1
            continue
        if best is None or position - start > len(best):
            best = text[start:position]
    return best
