"""A chat body as the router sees it: one typed decode, no dictionaries."""

from typing import Any

import msgspec

from locavore.core.backend import Capability
from locavore.core.errors import RequestError
from locavore.core.request import Request, Turn
from locavore.wire.decoding import decode_request, shown
from locavore.wire.labelling import NONE as NO_MARKS
from locavore.wire.labelling import read_marks

NAME = "openai_chat"
_NULL = b"null"
_ABSENT = msgspec.Raw()


class Part(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    image_url: msgspec.Raw = msgspec.Raw()
    input_audio: msgspec.Raw = msgspec.Raw()
    file: msgspec.Raw = msgspec.Raw()


class ChatMessage(msgspec.Struct, gc=False):
    role: str
    content: str | list[Part] | None = None
    tool_calls: msgspec.Raw = _ABSENT


class StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct, gc=False):
    type: str = "text"


class ChatRequest(msgspec.Struct, gc=False):
    model: str
    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    seed: int | None = None
    logprobs: bool | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    tools: msgspec.Raw = _ABSENT
    functions: msgspec.Raw = _ABSENT
    tool_choice: str | dict[str, Any] | None = None
    response_format: ResponseFormat | None = None
    modalities: list[str] | None = None
    metadata: msgspec.Raw = _ABSENT


_DECODER = msgspec.json.Decoder(ChatRequest)

_FORMAT_NEEDS: dict[str, str | None] = {
    "text": None,
    "json_object": Capability.JSON_OBJECT,
    "json_schema": Capability.JSON_SCHEMA,
}
_PART_NEEDS: dict[str, str | None] = {
    "text": None,
    "refusal": None,
    "image_url": Capability.VISION,
    "input_audio": Capability.AUDIO,
    "file": Capability.DOCUMENTS,
}
_PLAIN = frozenset({Capability.CHAT.value})


def read_request(body: bytes) -> Request:
    """Raises RequestError naming the field and the value."""
    wire = decode_request(_DECODER, body)
    _check(wire)
    prompt_bytes, images, needs = _weigh(wire.messages)
    marked = wire.metadata is not _ABSENT
    if wire.tools is not _ABSENT:
        prompt_bytes += size(wire.tools)
    marks = read_marks(wire.metadata) if marked else NO_MARKS
    options = wire.stream_options
    return Request(
        format=NAME,
        model=wire.model,
        body=body,
        stream=wire.stream is True,
        include_usage=options is not None and options.include_usage is True,
        max_output_tokens=wire.max_completion_tokens or wire.max_tokens,
        n=wire.n or 1,
        needs=_needs(wire, needs),
        labels=marks.labels,
        session=marks.session,
        user=wire.user,
        prompt_bytes=prompt_bytes,
        images=images,
        marked=marked,
    )


def size(raw: msgspec.Raw) -> int:
    """Bytes of an undecoded value; 0 when the field was missing."""
    return memoryview(raw).nbytes


def present(raw: msgspec.Raw) -> bool:
    """Whether a raw list or object field says anything."""
    return size(raw) > 2 and bytes(memoryview(raw)[:4]) != _NULL


def text_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _check(wire: ChatRequest) -> None:
    if not wire.model:
        raise RequestError("model: expected a name, got ''", param="model")
    if not wire.messages:
        raise RequestError("messages: expected at least one message, got []", param="messages")
    if wire.n is not None or wire.max_tokens is not None or wire.max_completion_tokens is not None:
        _check_counts(wire)


def _check_counts(wire: ChatRequest) -> None:
    for name in ("n", "max_tokens", "max_completion_tokens"):
        value = getattr(wire, name)
        if value is not None and value < 1:
            raise RequestError(f"{name}: expected at least 1, got {value}", param=name)


def _weigh(messages: list[ChatMessage]) -> tuple[int, int, set[str]]:
    """(bytes of text, images, needs that parts imply)."""
    total = images = 0
    needs: set[str] = set()
    for position, message in enumerate(messages):
        content = message.content
        if isinstance(content, str):
            total += len(content) if content.isascii() else len(content.encode())
        elif content is not None:
            for part in content:
                total += text_bytes(part.text) if part.text else 0
                images += part.type == "image_url"
                if need := _part_need(part, position):
                    needs.add(need)
        if message.tool_calls is not _ABSENT:
            total += size(message.tool_calls)
    return total, images, needs


def _part_need(part: Part, position: int) -> str | None:
    try:
        return _PART_NEEDS[part.type]
    except KeyError:
        param = f"messages[{position}].content"
        raise RequestError(f"{param}: unknown part type {part.type!r}", param=param) from None


def _needs(wire: ChatRequest, needs: set[str]) -> frozenset[str]:
    tools, functions = wire.tools, wire.functions
    if (tools is not _ABSENT and present(tools)) or (
        functions is not _ABSENT and present(functions)
    ):
        needs.add(Capability.TOOLS)
        if wire.tool_choice not in (None, "auto", "none"):
            needs.add(Capability.TOOL_CHOICE)
    if wire.response_format is not None:
        needs.update(_format_need(wire.response_format.type))
    if wire.logprobs:
        needs.add(Capability.LOGPROBS)
    if wire.seed is not None:
        needs.add(Capability.SEED)
    if wire.n is not None and wire.n > 1:
        needs.add(Capability.CHOICES)
    if wire.reasoning_effort is not None and wire.reasoning_effort != "none":
        needs.add(Capability.REASONING)
    if wire.modalities is not None and "audio" in wire.modalities:
        needs.add(Capability.AUDIO)
    if not needs:
        return _PLAIN
    needs.add(Capability.CHAT)
    return frozenset(needs)


def _format_need(kind: str) -> set[str]:
    if kind not in _FORMAT_NEEDS:
        known = ", ".join(_FORMAT_NEEDS)
        message = f"response_format.type: expected one of {known}, got {shown(kind)}"
        raise RequestError(message, param="response_format.type")
    need = _FORMAT_NEEDS[kind]
    return {need} if need else set()


_ROLES = {"user": "user", "assistant": "assistant", "tool": "tool", "function": "tool"}


def read_turns(body: bytes) -> list[Turn]:
    """The conversation without system and developer messages."""
    return [
        Turn(_ROLES[message.role], _text(message.content))
        for message in decode_request(_DECODER, body).messages
        if message.role in _ROLES
    ]


def _text(content: str | list[Part] | None) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content or () if part.text)
