"""Log-probabilities we ask for ourselves: asked, averaged, kept from a client that did not ask.

Chat takes a flag, completions a number of alternatives; both put the chosen token's own figure
into the answer (OpenAI's reference; vLLM and llama.cpp do the same).
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from locavore.core.events import Event, TextDelta
from locavore.wire.decoding import decode_object, encode

_ASKED: dict[str, object] = {"openai_chat": True, "openai_completions": 1}
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def can_ask(request_format: str) -> bool:
    """Whether a format has a field for it."""
    return request_format in _ASKED


def ask(request_format: str, body: bytes) -> bytes:
    """The body of an upstream request, asking for them."""
    fields = _FIELDS.decode(body)
    fields["logprobs"] = msgspec.Raw(encode(_ASKED[request_format]))
    return encode(fields)


def without(body: bytes) -> bytes:
    """A whole answer as it would be had nobody asked; every other field stays."""
    answer = decode_object(body)
    for choice in answer.get("choices") or ():
        if isinstance(choice, dict) and "logprobs" in choice:
            choice["logprobs"] = None
    return encode(answer)


def unasked(events: Iterable[Event]) -> list[Event]:
    """Events without them."""
    return [
        msgspec.structs.replace(event, logprobs=None)
        if isinstance(event, TextDelta) and event.logprobs is not None
        else event
        for event in events
    ]


def mean(events: Iterable[Event]) -> float | None:
    """Of the tokens of the first choice; None: the engine told none."""
    found: list[float] = []
    for event in events:
        if isinstance(event, TextDelta) and event.choice == 0 and event.logprobs is not None:
            found += _values(msgspec.json.decode(event.logprobs))
    return sum(found) / len(found) if found else None


def _values(told: Any) -> list[float]:
    if not isinstance(told, dict):
        return []
    values = told.get("token_logprobs")  # completions
    if values is None:
        values = [t.get("logprob") for t in told.get("content") or () if isinstance(t, dict)]
    return [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
