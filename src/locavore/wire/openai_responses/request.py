"""A responses body as the router sees it. What needs stored state is refused here (C35)."""

from typing import Any

import msgspec

from locavore.core.backend import Capability
from locavore.core.errors import RequestError
from locavore.core.request import Request, Turn
from locavore.wire.decoding import decode_request, shown
from locavore.wire.labelling import read_marks
from locavore.wire.openai_chat.request import size, text_bytes

NAME = "openai_responses"


class Part(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None


class Item(msgspec.Struct, gc=False):
    type: str | None = None
    role: str | None = None
    content: str | list[Part] | None = None
    arguments: str | None = None
    output: str | list[Part] | dict[str, Any] | None = None


class Kind(msgspec.Struct, gc=False):
    type: str = ""


class Text(msgspec.Struct, gc=False):
    format: Kind | None = None


class Reasoning(msgspec.Struct, gc=False):
    effort: str | None = None


class ResponsesRequest(msgspec.Struct, gc=False):
    model: str
    input: str | list[Item]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: list[Kind] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    top_logprobs: int | None = None
    user: str | None = None
    metadata: msgspec.Raw = msgspec.Raw()
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None


class _ToolsOnly(msgspec.Struct, gc=False):
    tools: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(ResponsesRequest)
_TOOLS = msgspec.json.Decoder(_ToolsOnly).decode
_PART_NEEDS = {
    "input_image": Capability.VISION,
    "input_audio": Capability.AUDIO,
    "input_file": Capability.DOCUMENTS,
}
_FORMAT_NEEDS = {
    "json_object": Capability.JSON_OBJECT,
    "json_schema": Capability.JSON_SCHEMA,
}
# Items that only a server speaking responses itself can read.
PORTABLE_ITEMS = frozenset({None, "message", "function_call", "function_call_output", "reasoning"})
_STATE = "no answers are stored here; send the whole history in `input`"


def read_request(body: bytes) -> Request:
    """Raises RequestError naming the field and the value."""
    wire = decode_request(_DECODER, body)
    _refuse_state(wire)
    marks = read_marks(wire.metadata)
    prompt_bytes, images, needs = _weigh(wire)
    if wire.tools:
        prompt_bytes += size(_TOOLS(body).tools)
    return Request(
        format=NAME,
        model=wire.model,
        body=body,
        stream=wire.stream is True,
        include_usage=True,
        max_output_tokens=wire.max_output_tokens,
        needs=_needs(wire, needs),
        labels=marks.labels,
        session=marks.session,
        user=wire.user,
        prompt_bytes=prompt_bytes,
        images=images,
    )


def _refuse_state(wire: ResponsesRequest) -> None:
    if not wire.model:
        raise RequestError("model: expected a name, got ''", param="model")
    if wire.max_output_tokens is not None and wire.max_output_tokens < 1:
        raise RequestError(
            f"max_output_tokens: expected at least 1, got {wire.max_output_tokens}",
            param="max_output_tokens",
        )
    for name in ("previous_response_id", "conversation", "background", "store", "prompt"):
        value = getattr(wire, name)
        if value:
            raise RequestError(
                f"{name}: got {shown(value)}, but {_STATE}",
                param=name,
                code="unsupported_parameter",
            )


def _weigh(wire: ResponsesRequest) -> tuple[int, int, set[str]]:
    """(bytes of text, images, needs that items imply)."""
    total = text_bytes(wire.instructions or "")
    images = 0
    needs: set[str] = set()
    if isinstance(wire.input, str):
        return total + text_bytes(wire.input), 0, needs
    for position, item in enumerate(wire.input):
        if item.type == "item_reference":
            param = f"input[{position}]"
            raise RequestError(f"{param}: an item_reference, but {_STATE}", param=param)
        if item.type not in PORTABLE_ITEMS:
            needs.add(Capability.RESPONSES)
        total += text_bytes(item.arguments or "")
        for content in (item.content, item.output):
            if isinstance(content, str):
                total += text_bytes(content)
            elif isinstance(content, list):
                for part in content:
                    total += text_bytes(part.text) if part.text else 0
                    images += part.type == "input_image"
                    if part.type in _PART_NEEDS:
                        needs.add(_PART_NEEDS[part.type])
    return total, images, needs


def _needs(wire: ResponsesRequest, needs: set[str]) -> frozenset[str]:
    needs.add(Capability.CHAT)
    if wire.tools:
        needs.add(Capability.TOOLS)
        if any(tool.type != "function" for tool in wire.tools):
            needs.add(Capability.RESPONSES)
        if wire.tool_choice not in (None, "auto", "none"):
            needs.add(Capability.TOOL_CHOICE)
    if wire.text is not None and wire.text.format is not None:
        need = _FORMAT_NEEDS.get(wire.text.format.type)
        needs.update({need} if need else ())
    if wire.reasoning is not None and wire.reasoning.effort not in (None, "none"):
        needs.add(Capability.REASONING)
    if wire.top_logprobs:
        needs.add(Capability.LOGPROBS)
    return frozenset(needs)


def read_turns(body: bytes) -> list[Turn]:
    """The conversation without instructions."""
    given = decode_request(_DECODER, body).input
    if isinstance(given, str):
        return [Turn("user", given)]
    return [Turn(role, _said(item)) for item in given if (role := _role(item)) is not None]


def _role(item: Item) -> str | None:
    if item.role is not None:
        return item.role if item.role in ("user", "assistant") else None
    if item.type is not None and item.type.endswith("_output"):
        return "tool"
    return "assistant"  # its calls and its reasoning


def _said(item: Item) -> str:
    for content in (item.content, item.output):
        if content and not isinstance(content, dict):
            return _text(content)
    return item.arguments or ""


def _text(content: str | list[Part]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content if part.text)
