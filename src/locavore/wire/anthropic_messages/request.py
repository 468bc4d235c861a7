"""A messages body as the router sees it: one typed decode."""

from typing import Any, TypeGuard, Union

import msgspec

from locavore.core.backend import Capability
from locavore.core.errors import RequestError
from locavore.core.request import Request, Turn
from locavore.wire.decoding import decode_object, decode_request, encode
from locavore.wire.labelling import read_marks
from locavore.wire.openai_chat.request import present, size, text_bytes

NAME = "anthropic_messages"
COUNT_NAME = "anthropic_count_tokens"


class Block(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    input: msgspec.Raw = msgspec.Raw()
    content: Union[str, list["Block"], dict[str, Any], None] = None  # noqa: UP007
    source: msgspec.Raw = msgspec.Raw()


class WireMessage(msgspec.Struct, gc=False):
    role: str
    content: str | list[Block]


class Kind(msgspec.Struct, gc=False):
    type: str | None = None


class OutputConfig(msgspec.Struct, gc=False):
    format: Kind | None = None
    effort: str | None = None


class CountRequest(msgspec.Struct, gc=False):
    model: str
    messages: list[WireMessage]
    system: str | list[Block] | None = None
    tools: msgspec.Raw = msgspec.Raw()
    tool_choice: Kind | None = None
    thinking: Kind | None = None
    output_config: OutputConfig | None = None
    output_format: Kind | None = None
    metadata: msgspec.Raw = msgspec.Raw()


class MessagesRequest(CountRequest, gc=False, kw_only=True):
    max_tokens: int
    stream: bool | None = None


_MESSAGES = msgspec.json.Decoder(MessagesRequest)
_COUNT = msgspec.json.Decoder(CountRequest)
_BLOCK_NEEDS = {"image": Capability.VISION, "document": Capability.DOCUMENTS}
_PLAIN = frozenset({Capability.CHAT.value})


class _Weight:
    """What a walk over the blocks finds."""

    __slots__ = ("images", "needs", "text_bytes", "unsigned")

    def __init__(self) -> None:
        self.text_bytes = 0
        self.images = 0
        self.needs: set[str] = set()
        self.unsigned = False

    def add(self, content: str | list[Block] | dict[str, Any] | None) -> None:
        if isinstance(content, str):
            self.text_bytes += text_bytes(content)
        elif isinstance(content, list):
            for block in content:
                self._block(block)

    def _block(self, block: Block) -> None:
        if block.text:
            self.text_bytes += text_bytes(block.text)
        if block.type in _BLOCK_NEEDS:
            self.needs.add(_BLOCK_NEEDS[block.type])
            self.images += block.type == "image"
        elif block.type == "thinking":
            self.unsigned = self.unsigned or not block.signature
        self.text_bytes += size(block.input)
        if block.content is not None:
            self.add(block.content)


def read_request(body: bytes) -> Request:
    """Raises RequestError naming the field and the value."""
    wire = decode_request(_MESSAGES, body)
    if wire.max_tokens < 1:
        raise RequestError(
            f"max_tokens: expected at least 1, got {wire.max_tokens}", param="max_tokens"
        )
    weight = _weigh(wire)
    marks = read_marks(wire.metadata)
    return Request(
        format=NAME,
        model=wire.model,
        body=without_unsigned(body) if weight.unsigned else body,
        stream=wire.stream is True,
        include_usage=True,
        max_output_tokens=wire.max_tokens,
        needs=_needs(wire, weight.needs),
        labels=marks.labels,
        session=marks.session,
        user=marks.user,
        prompt_bytes=weight.text_bytes,
        images=weight.images,
    )


def read_count_request(body: bytes) -> Request:
    """`count_tokens`: the same prompt without an answer. Raises RequestError."""
    wire = decode_request(_COUNT, body)
    weight = _weigh(wire)
    marks = read_marks(wire.metadata)
    return Request(
        format=COUNT_NAME,
        model=wire.model,
        body=body,
        max_output_tokens=None,
        needs=frozenset({Capability.COUNT_TOKENS.value}),
        labels=marks.labels,
        session=marks.session,
        user=marks.user,
        prompt_bytes=weight.text_bytes,
        images=weight.images,
    )


def _weigh(wire: CountRequest) -> _Weight:
    if not wire.model:
        raise RequestError("model: expected a name, got ''", param="model")
    if not wire.messages:
        raise RequestError("messages: expected at least one message, got []", param="messages")
    weight = _Weight()
    for message in wire.messages:
        weight.add(message.content)
    weight.add(wire.system)
    weight.text_bytes += size(wire.tools)
    return weight


def _needs(wire: CountRequest, needs: set[str]) -> frozenset[str]:
    if present(wire.tools):
        needs.add(Capability.TOOLS)
        if wire.tool_choice is not None and wire.tool_choice.type in ("any", "tool"):
            needs.add(Capability.TOOL_CHOICE)
    if wire.thinking is not None and wire.thinking.type == "enabled":
        needs.add(Capability.REASONING)
    config = wire.output_config
    if wire.output_format is not None or (config is not None and config.format is not None):
        needs.add(Capability.JSON_SCHEMA)
    if not needs:
        return _PLAIN
    needs.add(Capability.CHAT)
    return frozenset(needs)


def without_unsigned(body: bytes) -> bytes:
    """The body without thinking that no signature vouches for: another model's, shown by us.

    Anthropic refuses such blocks, and no other model reads them (C30).
    """
    fields = decode_object(body)
    fields["messages"] = [_signed(message) for message in fields["messages"]]
    return encode(fields)


def _signed(message: dict[str, Any]) -> dict[str, Any]:
    content = message["content"]
    if isinstance(content, str):
        return message
    kept = [b for b in content if b.get("type") != "thinking" or b.get("signature")]
    return {**message, "content": kept or [{"type": "text", "text": "…"}]}


def read_turns(body: bytes) -> list[Turn]:
    """The conversation; what tools gave back stands in user messages and is its own turn."""
    turns: list[Turn] = []
    for message in decode_request(_COUNT, body).messages:
        if message.role != "user":
            turns.append(Turn("assistant", _text(message.content)))
            continue
        results = _results(message.content)
        if results is not None:
            turns.append(Turn("tool", results))
        text = _text(message.content)
        if text or results is None:
            turns.append(Turn("user", text))
    return turns


def _results(content: str | list[Block]) -> str | None:
    """What tools gave back; None: no tool did."""
    if isinstance(content, str):
        return None
    results = [block.content for block in content if block.type == "tool_result"]
    if not results:
        return None
    return "\n".join(r if isinstance(r, str) else _text(r) for r in results if _is_text(r))


def _is_text(content: str | list[Block] | dict[str, Any] | None) -> TypeGuard[str | list[Block]]:
    return isinstance(content, str | list)


def _text(content: str | list[Block]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block.text for block in content if block.type == "text" and block.text)
