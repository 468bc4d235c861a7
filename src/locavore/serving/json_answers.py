"""JSON that a local model was asked for: looked at, and mended only where policy says so (C29)."""

import json

from locavore.core.backend import Backend, Capability
from locavore.core.request import Request
from locavore.wire.json_repair import repair_json

_ASKED = frozenset({Capability.JSON_OBJECT.value, Capability.JSON_SCHEMA.value})
INVALID, REPAIRED = "json_invalid", "json_repaired"
"""Flags of a record."""


def promised(request: Request, backend: Backend) -> bool:
    """Whether the answer must be JSON and nobody but us looks: a cloud keeps its own promise."""
    return not _ASKED.isdisjoint(request.needs) and backend.place.local


def checked_text(
    text: str, request: Request, backend: Backend, *, repair: bool
) -> tuple[str, str | None]:
    """(text, flag). Without `repair` nothing is changed: the flag says what was seen."""
    if not promised(request, backend) or not text or _parses(text):
        return text, None
    mended = repair_json(text) if repair else None
    return (text, INVALID) if mended is None else (mended, REPAIRED)


def checked_body(
    body: bytes, request: Request, backend: Backend, *, repair: bool
) -> tuple[bytes, str | None]:
    """The same for a whole chat completion, all its choices."""
    if not promised(request, backend) or request.format != "openai_chat":
        return body, None
    answer = json.loads(body)
    flag: str | None = None
    for choice in answer.get("choices", ()):
        message = choice.get("message") or {}
        text = message.get("content")
        if not isinstance(text, str):
            continue
        mended, seen = checked_text(text, request, backend, repair=repair)
        if seen == INVALID:
            return body, INVALID
        if seen is not None:
            message["content"], flag = mended, seen
    return (json.dumps(answer).encode(), flag) if flag else (body, None)


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
