"""The events of a messages stream and the blocks of a whole message, typed."""

from typing import Any

import msgspec

from locavore.wire.anthropic_messages.usage import WireUsage

DECODE_ERRORS = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class ContentBlock(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None


class WireDelta(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class WireAnswer(msgspec.Struct, gc=False):
    """The message of `message_start` and a whole answer."""

    type: str = ""
    id: str = ""
    model: str = ""
    content: list[ContentBlock] = []
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: WireUsage | None = None
    error: msgspec.Raw = msgspec.Raw()


class WireEvent(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    message: WireAnswer | None = None
    content_block: ContentBlock | None = None
    delta: WireDelta | None = None
    usage: WireUsage | None = None


def text_alone(delta: WireDelta | None) -> str | None:
    """The text of a delta that says nothing else."""
    said = (delta.text, delta.thinking, delta.partial_json) if delta is not None else ()
    pieces = [text for text in said if text]
    return pieces[0] if len(pieces) == 1 else None


decode_event = msgspec.json.Decoder(WireEvent).decode
decode_answer = msgspec.json.Decoder(WireAnswer).decode
