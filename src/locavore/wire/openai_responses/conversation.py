"""Responses body -> `Conversation`."""

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
    RefusalPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from locavore.wire.decoding import decode_object, json_text, shown
from locavore.wire.openai_chat.conversation import split_data_url, unmarked
from locavore.wire.openai_responses.request import NAME
from locavore.wire.typed import boolean, items, mapping, number, text, whole

_READ = frozenset(
    {
        "model",
        "input",
        "instructions",
        "stream",
        "stream_options",
        "max_output_tokens",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "text",
        "reasoning",
        "temperature",
        "top_p",
        "user",
        "metadata",
        "service_tier",
        "store",
        "background",
        "previous_response_id",
        "conversation",
        "top_logprobs",
    }
)
_Fields = dict[str, Any]


def read_conversation(body: bytes) -> Conversation:
    fields = decode_object(body)
    spec = mapping(fields, "text", "") or {}
    reasoning = mapping(fields, "reasoning", "") or {}
    top_logprobs = whole(fields, "top_logprobs")
    return Conversation(
        origin=NAME,
        messages=(*_instructions(fields), *_messages(fields.get("input"))),
        tools=tuple(
            _tool(item, f"tools[{i}]") for i, item in enumerate(items(fields, "tools", ""))
        ),
        tool_choice=_tool_choice(fields),
        output=_output(mapping(spec, "format", "text")),
        max_output_tokens=whole(fields, "max_output_tokens"),
        temperature=number(fields, "temperature"),
        top_p=number(fields, "top_p"),
        logprobs=bool(top_logprobs),
        top_logprobs=top_logprobs,
        reasoning_effort=text(reasoning, "effort", "reasoning"),
        user=text(fields, "user"),
        metadata=unmarked(mapping(fields, "metadata", "") or {}),
        service_tier=text(fields, "service_tier"),
        extra=_extra(fields, spec, reasoning),
    )


def _extra(fields: _Fields, spec: _Fields, reasoning: _Fields) -> _Fields:
    extra = {k: v for k, v in fields.items() if k not in _READ and v is not None}
    if "verbosity" in spec:
        extra["verbosity"] = spec["verbosity"]
    if rest := {k: v for k, v in reasoning.items() if k != "effort" and v is not None}:
        extra["reasoning"] = rest
    return extra


def _instructions(fields: _Fields) -> list[Message]:
    words = text(fields, "instructions")
    return [Message(role="system", parts=(TextPart(text=words),))] if words else []


def _messages(given: Any) -> list[Message]:
    if isinstance(given, str):
        return [Message(role="user", parts=(TextPart(text=given),))]
    if not isinstance(given, list):
        raise RequestError(f"input: expected text or items, got {shown(given)}", param="input")
    messages: list[Message] = []
    for position, item in enumerate(given):
        _add(messages, _message(item, f"input[{position}]"))
    return messages


def _add(messages: list[Message], message: Message) -> None:
    """Thought, words and calls of one turn are items of their own; here they are one message."""
    last = messages[-1] if messages else None
    if last is not None and last.role == message.role == "assistant":
        messages[-1] = Message(role="assistant", parts=(*last.parts, *message.parts))
    else:
        messages.append(message)


def _message(item: Any, where: str) -> Message:
    kind = item.get("type") or "message" if isinstance(item, dict) else None
    read = _ITEMS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise RequestError(
            f"{where}: an item of type {shown(kind)} needs a server that speaks responses itself",
            param=where,
            code="untranslatable",
        )
    return read(item, where)


def _plain(item: _Fields, where: str) -> Message:
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise RequestError(f"{where}.role: unknown role {shown(role)}", param=f"{where}.role")
    return Message(role=role, parts=tuple(_parts(item.get("content"), f"{where}.content")))


def _call(item: _Fields, where: str) -> Message:
    part = ToolCallPart(
        id=text(item, "call_id", where) or "",
        name=text(item, "name", where) or "",
        arguments=text(item, "arguments", where) or "",
    )
    return Message(role="assistant", parts=(part,))


def _call_output(item: _Fields, where: str) -> Message:
    output = item.get("output")
    if isinstance(output, dict):
        output = json_text(output)
    content = tuple(
        part
        for part in _parts(output, f"{where}.output")
        if isinstance(part, TextPart | ImagePart | DocumentPart)
    )
    part = ToolResultPart(call_id=text(item, "call_id", where) or "", content=content)
    return Message(role="tool", parts=(part,))


def _reasoning(item: _Fields, where: str) -> Message:
    thoughts = items(item, "content", where) or items(item, "summary", where)
    words = "".join(str(t.get("text") or "") for t in thoughts if isinstance(t, dict))
    sealed = text(item, "encrypted_content", where)
    return Message(role="assistant", parts=(ReasoningPart(text=words, signature=sealed),))


_ITEMS: dict[str, Callable[[_Fields, str], Message]] = {
    "message": _plain,
    "function_call": _call,
    "function_call_output": _call_output,
    "reasoning": _reasoning,
}


def _parts(content: Any, where: str) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [TextPart(text=content)]
    if not isinstance(content, list):
        raise RequestError(f"{where}: expected text or parts, got {shown(content)}", param=where)
    return [_part(part, f"{where}[{i}]") for i, part in enumerate(content)]


def _part(part: Any, where: str) -> Part:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text"):
        return TextPart(text=text(part, "text", where) or "")
    if kind == "refusal":
        return RefusalPart(text=text(part, "refusal", where) or "")
    if kind == "input_image" and part.get("file_id") is None:
        url = text(part, "image_url", where) or ""
        media_type, data = split_data_url(url)
        detail = text(part, "detail", where)
        detail = None if detail == "auto" else detail  # the default, and required in the schema
        if data is not None:
            return ImagePart(media_type=media_type, data=data, detail=detail)
        return ImagePart(url=url, detail=detail)
    if kind == "input_file":
        media_type, data = split_data_url(text(part, "file_data", where) or "")
        return DocumentPart(
            media_type=media_type,
            data=data,
            url=text(part, "file_url", where),
            file_id=text(part, "file_id", where),
            name=text(part, "filename", where),
        )
    raise RequestError(
        f"{where}: a part of type {shown(kind)} cannot be translated",
        param=where,
        code="untranslatable",
    )


def _tool(item: Any, where: str) -> Tool:
    kind = item.get("type") if isinstance(item, dict) else None
    if kind != "function":
        raise RequestError(
            f"{where}: the built-in tool {shown(kind)} needs a server that speaks responses itself",
            param=where,
            code="untranslatable",
        )
    return Tool(
        name=text(item, "name", where) or "",
        description=text(item, "description", where),
        parameters=mapping(item, "parameters", where) or {},
        strict=boolean(item, "strict", where),
    )


def _tool_choice(fields: _Fields) -> ToolChoice | None:
    choice = fields.get("tool_choice")
    parallel = boolean(fields, "parallel_tool_calls")
    if choice is None:
        return None if parallel is None else ToolChoice(parallel=parallel)
    if choice in ("auto", "none", "required"):
        return ToolChoice(mode=choice, parallel=parallel)
    if isinstance(choice, dict) and choice.get("type") == "function":
        name = text(choice, "name", "tool_choice")
        return ToolChoice(mode="named", name=name, parallel=parallel)
    raise RequestError(
        f"tool_choice: {shown(choice)} cannot be translated",
        param="tool_choice",
        code="untranslatable",
    )


def _output(spec: _Fields | None) -> OutputContract:
    kind = (spec or {}).get("type", "text")
    if spec is None or kind == "text":
        return OutputContract()
    if kind == "json_object":
        return OutputContract(kind="json_object")
    where = "text.format"
    if kind != "json_schema":
        raise RequestError(f"{where}.type: unknown format {shown(kind)}", param=f"{where}.type")
    return OutputContract(
        kind="json_schema",
        name=text(spec, "name", where),
        schema=mapping(spec, "schema", where),
        strict=boolean(spec, "strict", where),
        description=text(spec, "description", where),
    )
