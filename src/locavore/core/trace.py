"""W3C trace context: which trace of the client's a call belongs to."""

import re
from typing import NamedTuple

_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
"""https://www.w3.org/TR/trace-context/, `traceparent`. Later versions may append fields."""
LONGEST = 128


class Parent(NamedTuple):
    trace_id: int
    span_id: int
    flags: int


def parent_of(traceparent: str | None) -> Parent | None:
    """None: there is none, or it is not one; the specification wants such a header ignored."""
    found = _HEADER.fullmatch(traceparent) if traceparent else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    parent = Parent(int(found[2], 16), int(found[3], 16), int(found[4], 16))
    return parent if parent.trace_id and parent.span_id else None


def kept(header: bytes) -> str | None:
    """What of a client's `traceparent` header goes into the record."""
    text = header.decode("latin-1")
    return text if len(header) <= LONGEST and parent_of(text) else None
