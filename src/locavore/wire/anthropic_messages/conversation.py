"""Messages body -> `Conversation`."""

from collections.abc import Callable
from typing import Any

from locavore.core.errors import RequestError
from locavore.core.request import (
    Conversation,
    DocumentPart,
    ImagePart,
    Message,
    OutputContract,
    Part,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from locavore.wire.anthropic_messages.request import NAME
from locavore.wire.decoding import decode_object, json_text, shown
from locavore.wire.openai_chat.conversation import unmarked
from locavore.wire.typed import boolean, items, mapping, number, text, whole

_READ = frozenset(
    {
        "model",
        "messages",
        "system",
        "max_tokens",
        "stream",
        "tools",
        "tool_choice",
        "stop_sequences",
        "temperature",
        "top_p",
        "top_k",
        "metadata",
        "service_tier",
        "output_format",
    }
)
_Blocks = dict[str, Any]


def read_conversation(body: bytes) -> Conversation:
    fields = decode_object(body)
    config = mapping(fields, "output_config", "") or {}
    thinking = mapping(fields, "thinking", "") or {}
    metadata = mapping(fields, "metadata", "") or {}
    return Conversation(
        origin=NAME,
        messages=(*_system(fields.get("system")), *_messages(fields)),
        tools=tuple(
            _tool(item, f"tools[{i}]") for i, item in enumerate(items(fields, "tools", ""))
        ),
        tool_choice=_tool_choice(mapping(fields, "tool_choice", "")),
        output=_output(fields, config),
        max_output_tokens=whole(fields, "max_tokens"),
        temperature=number(fields, "temperature"),
        top_p=number(fields, "top_p"),
        top_k=whole(fields, "top_k"),
        stop=tuple(items(fields, "stop_sequences", "")),
        reasoning_effort=_effort(config, thinking),
        reasoning_budget_tokens=whole(thinking, "budget_tokens", "thinking"),
        user=text(metadata, "user_id", "metadata"),
        metadata={k: v for k, v in unmarked(metadata).items() if k != "user_id"},
        service_tier=text(fields, "service_tier"),
        extra=_extra(fields, config, thinking),
    )


def _effort(config: _Blocks, thinking: _Blocks) -> str | None:
    if thinking.get("type") == "disabled":
        return "none"
    return text(config, "effort", "output_config")


def _extra(fields: _Blocks, config: _Blocks, thinking: _Blocks) -> _Blocks:
    extra = {k: v for k, v in fields.items() if k not in _READ and v is not None}
    if thinking.get("type") in ("enabled", "disabled", None):
        extra.pop("thinking", None)
    rest = {k: v for k, v in config.items() if k not in ("effort", "format")}
    extra.pop("output_config", None)
    if rest:
        extra["output_config"] = rest
    return extra


def _output(fields: _Blocks, config: _Blocks) -> OutputContract:
    spec = mapping(config, "format", "output_config") or mapping(fields, "output_format", "")
    if spec is None:
        return OutputContract()
    schema = mapping(spec, "schema", "output_config.format")
    if spec.get("type") != "json_schema" or schema is None:
        param = "output_config.format"
        raise RequestError(f"{param}: expected a json_schema, got {shown(spec)}", param=param)
    return OutputContract(kind="json_schema", schema=schema, strict=True)


def _system(system: Any) -> list[Message]:
    parts = tuple(_parts(system, "system")) if system else ()
    return [Message(role="system", parts=parts)] if parts else []


def _messages(fields: _Blocks) -> list[Message]:
    return [
        _message(item, f"messages[{i}]") for i, item in enumerate(items(fields, "messages", ""))
    ]


def _message(item: Any, where: str) -> Message:
    role = item.get("role") if isinstance(item, dict) else None
    if role not in ("user", "assistant", "system"):
        raise RequestError(
            f"{where}.role: expected user or assistant, got {shown(role)}", param=f"{where}.role"
        )
    return Message(role=role, parts=tuple(_parts(item.get("content"), f"{where}.content")))


def _parts(content: Any, where: str) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [TextPart(text=content)]
    if not isinstance(content, list):
        raise RequestError(f"{where}: expected text or blocks, got {shown(content)}", param=where)
    return [_part(block, f"{where}[{i}]") for i, block in enumerate(content)]


def _part(block: Any, where: str) -> Part:
    kind = block.get("type") if isinstance(block, dict) else None
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise RequestError(
            f"{where}: a block of type {shown(kind)} can be served by Anthropic only",
            param=where,
            code="untranslatable",
        )
    return read(block, where)


def _text(block: _Blocks, where: str) -> Part:
    return TextPart(
        text=text(block, "text", where) or "", cache_control=mapping(block, "cache_control", where)
    )


def _image(block: _Blocks, where: str) -> Part:
    source = mapping(block, "source", where) or {}
    cache = mapping(block, "cache_control", where)
    if source.get("type") == "url":
        return ImagePart(url=text(source, "url", where), cache_control=cache)
    if source.get("type") != "base64":
        raise _foreign_source(source, where)
    return ImagePart(
        media_type=text(source, "media_type", where),
        data=text(source, "data", where),
        cache_control=cache,
    )


def _foreign_source(source: _Blocks, where: str) -> RequestError:
    param = f"{where}.source"
    kind = shown(source.get("type"))
    return RequestError(
        f"{param}: a source of type {kind} can be served by Anthropic only",
        param=param,
        code="untranslatable",
    )


def _document(block: _Blocks, where: str) -> Part:
    source = mapping(block, "source", where) or {}
    kind = source.get("type")
    if kind not in ("base64", "text", "url", "file"):
        raise _foreign_source(source, where)
    media_type = text(source, "media_type", where)
    return DocumentPart(
        media_type="text/plain" if kind == "text" else media_type,
        data=text(source, "data", where),
        url=text(source, "url", where),
        file_id=text(source, "file_id", where),
        name=text(block, "title", where),
        cache_control=mapping(block, "cache_control", where),
    )


def _thinking(block: _Blocks, where: str) -> Part:
    return ReasoningPart(
        text=text(block, "thinking", where) or "", signature=text(block, "signature", where)
    )


def _redacted(block: _Blocks, where: str) -> Part:
    return ReasoningPart(redacted=text(block, "data", where) or "")


def _tool_use(block: _Blocks, where: str) -> Part:
    return ToolCallPart(
        id=text(block, "id", where) or "",
        name=text(block, "name", where) or "",
        arguments=json_text(block.get("input") or {}),
        cache_control=mapping(block, "cache_control", where),
    )


def _tool_result(block: _Blocks, where: str) -> Part:
    content = _parts(block.get("content"), f"{where}.content")
    for part in content:
        if not isinstance(part, TextPart | ImagePart | DocumentPart):
            raise RequestError(f"{where}.content: cannot hold {part!r}", param=where)
    return ToolResultPart(
        call_id=text(block, "tool_use_id", where) or "",
        content=tuple(content),  # type: ignore[arg-type] # narrowed by the loop above
        is_error=boolean(block, "is_error", where) or False,
        cache_control=mapping(block, "cache_control", where),
    )


_READERS: dict[str, Callable[[_Blocks, str], Part]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
}


def _tool(item: Any, where: str) -> Tool:
    if not isinstance(item, dict) or item.get("type") not in (None, "custom"):
        kind = item.get("type") if isinstance(item, dict) else item
        raise RequestError(
            f"{where}: the built-in tool {shown(kind)} can be served by Anthropic only",
            param=where,
            code="untranslatable",
        )
    return Tool(
        name=text(item, "name", where) or "",
        description=text(item, "description", where),
        parameters=mapping(item, "input_schema", where) or {},
        strict=boolean(item, "strict", where),
        cache_control=mapping(item, "cache_control", where),
    )


_CHOICES = {"auto": "auto", "any": "required", "tool": "named", "none": "none"}


def _tool_choice(choice: _Blocks | None) -> ToolChoice | None:
    if choice is None:
        return None
    mode = _CHOICES.get(str(choice.get("type")))
    if mode is None:
        raise RequestError(
            f"tool_choice.type: expected auto, any, tool or none, got {shown(choice.get('type'))}",
            param="tool_choice.type",
        )
    serial = boolean(choice, "disable_parallel_tool_use", "tool_choice")
    return ToolChoice(
        mode=mode,  # type: ignore[arg-type] # a value of the table above
        name=text(choice, "name", "tool_choice"),
        parallel=None if serial is None else not serial,
    )
