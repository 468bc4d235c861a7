"""Stream events and output items of responses, typed as far as they are read."""

import msgspec

from locavore.wire.openai_responses.usage import WireUsage

DECODE_ERRORS = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class OutputPart(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw()


class OutputItem(msgspec.Struct, gc=False):
    type: str = ""
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    content: list[OutputPart] | None = None
    summary: list[OutputPart] | None = None
    encrypted_content: str | None = None


class IncompleteDetails(msgspec.Struct, gc=False):
    reason: str | None = None


class WireResponse(msgspec.Struct, gc=False):
    """The whole answer, and what the first and the last event of a stream carry."""

    object: str = ""
    id: str = ""
    model: str = ""
    created_at: float | None = None
    status: str | None = None
    output: list[OutputItem] = []
    usage: WireUsage | None = None
    incomplete_details: IncompleteDetails | None = None
    error: msgspec.Raw = msgspec.Raw()


class WireEvent(msgspec.Struct, gc=False):
    type: str = ""
    output_index: int = 0
    delta: str | None = None
    response: WireResponse | None = None
    item: OutputItem | None = None


decode_event = msgspec.json.Decoder(WireEvent).decode
decode_response = msgspec.json.Decoder(WireResponse).decode
