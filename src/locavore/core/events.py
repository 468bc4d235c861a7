"""An answer as a sequence of events; a whole answer is a fold over them.

One order holds for every dialect: `Start`, then deltas and whole parts per choice, one `Finish`
per choice, at most one `UsageReport`, then `End`. `Failure` may stand anywhere after which
nothing follows. A reader that has seen no `End` when its bytes end has seen a truncated answer.
"""

from enum import StrEnum

import msgspec

from locavore.core.money import Usage


class FinishReason(StrEnum):
    """Why a choice ended; each dialect has its own words for these."""

    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    PAUSE = "pause"  # Anthropic's pause_turn


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="event"):
    """Root of the answer's events."""


class Start(Event, frozen=True, kw_only=True):
    id: str
    model: str
    created_s: int
    input_usage: Usage | None = None
    """Anthropic tells the prompt's tokens at the start."""


class TextDelta(Event, frozen=True, kw_only=True):
    choice: int = 0
    text: str
    logprobs: msgspec.Raw | None = None
    """The dialect's own JSON for the tokens of this delta; carried only between equal dialects."""


class RefusalDelta(Event, frozen=True, kw_only=True):
    choice: int = 0
    text: str


class ReasoningDelta(Event, frozen=True, kw_only=True):
    choice: int = 0
    text: str = ""
    signature: str | None = None
    """Anthropic's proof that the thinking is the model's own; useless to any other model."""
    redacted: str | None = None
    """Opaque encrypted thinking, returned as it came."""


class ToolCallStart(Event, frozen=True, kw_only=True):
    choice: int = 0
    index: int
    """Position among this choice's calls, counted by the reader, not trusted from the engine."""
    id: str
    name: str


class ToolCallDelta(Event, frozen=True, kw_only=True):
    choice: int = 0
    index: int
    arguments: str
    """A fragment of the JSON text of the arguments."""


class Finish(Event, frozen=True, kw_only=True):
    choice: int = 0
    reason: FinishReason
    stop_sequence: str | None = None


class UsageReport(Event, frozen=True, kw_only=True):
    usage: Usage


class Ping(Event, frozen=True, kw_only=True):
    """Keep-alive: not content, never counts as a first token."""


class Failure(Event, frozen=True, kw_only=True):
    """An error inside the answer. `status` is what it would have been as an HTTP status."""

    message: str
    status: int = 502
    code: str | None = None
    type: str | None = None
    retry_after_s: float | None = None


class End(Event, frozen=True, kw_only=True):
    """The dialect's own end marker was seen."""
