"""JSON that a local model was asked for: looked at, and mended only where policy says so (C29).

A stream has gone out by the time its text is known, so it is looked at and never mended.
"""

import json
from collections.abc import Mapping

import msgspec

from locavore.core.backend import Backend, Capability
from locavore.core.events import Event, Failure, TextDelta
from locavore.core.request import Request
from locavore.wire.decoding import decode_object, encode
from locavore.wire.folding import fold
from locavore.wire.formats import FORMATS
from locavore.wire.json_repair import repair_json

NEEDS = frozenset({Capability.JSON_OBJECT.value, Capability.JSON_SCHEMA.value})
"""What a request needs whose answer must be JSON."""
INVALID, REPAIRED = "json_invalid", "json_repaired"
"""Flags of a record."""


def promised(request: Request, backend: Backend) -> bool:
    """Whether nobody but us looks at JSON that was asked for: a cloud keeps its own promise."""
    return backend.place.local and not NEEDS.isdisjoint(request.needs)


def checked_events(events: list[Event], *, repair: bool) -> tuple[list[Event], str | None]:
    """(events, flag) of an answer that must be JSON. Without `repair` nothing is changed.

    What is no whole answer (its client left half-way) says nothing.
    """
    if any(isinstance(event, Failure) for event in events):
        return events, None
    mended: dict[int, str] = {}
    for choice in fold(events).choices:
        if not choice.text or _parses(choice.text):
            continue
        text = repair_json(choice.text) if repair else None
        if text is None:
            return events, INVALID
        mended[choice.index] = text
    return (_with_texts(events, mended), REPAIRED) if mended else (events, None)


def checked_body(
    body: bytes, request: Request, backend: Backend, *, repair: bool
) -> tuple[bytes, str | None]:
    """The same for a whole answer in the client's format; what is not text stays as it came."""
    if not promised(request, backend):
        return body, None
    fmt = FORMATS[request.format]
    events, flag = checked_events(fmt.answer(body), repair=repair)
    if flag != REPAIRED:
        return body, flag
    if request.format != "openai_chat":
        return fmt.answer_body(events, request), flag
    texts = {choice.index: choice.text for choice in fold(events).choices}
    answer = decode_object(body)
    for choice in answer["choices"]:
        choice["message"]["content"] = texts[choice.get("index", 0)]
    return encode(answer), flag


def _with_texts(events: list[Event], texts: Mapping[int, str]) -> list[Event]:
    """The same answer with other words, all of them where a choice's first ones stood."""
    written: list[Event] = []
    said: set[int] = set()
    for event in events:
        if not (isinstance(event, TextDelta) and event.choice in texts):
            written.append(event)
        elif event.choice not in said:
            said.add(event.choice)
            text = texts[event.choice]
            written.append(msgspec.structs.replace(event, text=text, logprobs=None))
    return written


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
