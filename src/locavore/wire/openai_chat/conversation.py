"""Chat body -> `Conversation`."""

from collections.abc import Callable
from typing import Any

from locavore.core.errors import RequestError
from locavore.core.request import (
    AudioPart,
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
from locavore.wire.labelling import LABELS, SESSION
from locavore.wire.openai_chat.request import NAME
from locavore.wire.typed import boolean, items, mapping, number, text, whole

# Read into named fields of Conversation; every other top-level field goes to `extra`.
_READ = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop",
        "seed",
        "n",
        "logprobs",
        "top_logprobs",
        "presence_penalty",
        "frequency_penalty",
        "reasoning_effort",
        "user",
        "metadata",
        "service_tier",
    }
)
# Message fields that answers carry and histories repeat without meaning for the model.
_ECHOED = frozenset(
    {
        "annotations",
        "parsed",
        "index",
        "id",
        "type",
        "created_at",
        "provider_specific_fields",
        "reasoning_details",
        "cache_control",
        "prefix",
    }
)
_MESSAGE = frozenset(
    {
        "role",
        "content",
        "name",
        "tool_calls",
        "tool_call_id",
        "refusal",
        "reasoning_content",
        "reasoning",
    }
)


def read_conversation(body: bytes) -> Conversation:
    fields = decode_object(body)
    stop = fields.get("stop")
    return Conversation(
        origin=NAME,
        messages=tuple(
            _message(item, f"messages[{i}]") for i, item in enumerate(items(fields, "messages", ""))
        ),
        tools=tuple(
            _tool(item, f"tools[{i}]") for i, item in enumerate(items(fields, "tools", ""))
        ),
        tool_choice=_tool_choice(fields),
        output=_output(mapping(fields, "response_format", "")),
        max_output_tokens=whole(fields, "max_completion_tokens") or whole(fields, "max_tokens"),
        temperature=number(fields, "temperature"),
        top_p=number(fields, "top_p"),
        top_k=whole(fields, "top_k"),
        stop=(stop,) if isinstance(stop, str) else tuple(items(fields, "stop", "")),
        seed=whole(fields, "seed"),
        n=whole(fields, "n") or 1,
        logprobs=boolean(fields, "logprobs") or False,
        top_logprobs=whole(fields, "top_logprobs"),
        presence_penalty=number(fields, "presence_penalty"),
        frequency_penalty=number(fields, "frequency_penalty"),
        reasoning_effort=text(fields, "reasoning_effort"),
        user=text(fields, "user"),
        metadata=unmarked(mapping(fields, "metadata", "") or {}),
        service_tier=text(fields, "service_tier"),
        extra={k: v for k, v in fields.items() if k not in _READ and v is not None},
    )


def unmarked(metadata: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in metadata.items() if k not in (LABELS, SESSION)}


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, dict):
        raise RequestError(f"{where}: expected an object, got {shown(item)}", param=where)
    role = item.get("role")
    if role == "function":
        raise RequestError(f"{where}.role: 'function' is obsolete; use 'tool'", param=where)
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise RequestError(f"{where}.role: unknown role {role!r}", param=f"{where}.role")
    for name, value in item.items():
        if name not in _MESSAGE and name not in _ECHOED and value:
            param = f"{where}.{name}"
            raise RequestError(
                f"{param} cannot be translated; send it to a backend of the same format",
                param=param,
                code="untranslatable",
            )
    name = text(item, "name", where)
    return Message(role=role, parts=_message_parts(item, role, where), name=name)


def _message_parts(item: dict[str, Any], role: str, where: str) -> tuple[Part, ...]:
    parts = _parts(item.get("content"), f"{where}.content")
    if role == "tool":
        call_id = text(item, "tool_call_id", where) or ""
        content = tuple(p for p in parts if isinstance(p, TextPart | ImagePart | DocumentPart))
        return (ToolResultPart(call_id=call_id, content=content),)
    if role != "assistant":
        return tuple(parts)
    reasoning = item.get("reasoning_content") or item.get("reasoning")
    head: list[Part] = [ReasoningPart(text=str(reasoning))] if reasoning else []
    if refusal := text(item, "refusal", where):
        parts.append(RefusalPart(text=refusal))
    calls = [
        _tool_call(call, f"{where}.tool_calls[{i}]")
        for i, call in enumerate(items(item, "tool_calls", where))
    ]
    return (*head, *parts, *calls)


def _tool_call(call: Any, where: str) -> ToolCallPart:
    function = mapping(call, "function", where) if isinstance(call, dict) else None
    if function is None:
        raise RequestError(f"{where}.function is required", param=f"{where}.function")
    arguments = function.get("arguments")
    return ToolCallPart(
        id=str(call.get("id") or ""),
        name=str(function.get("name") or ""),
        arguments=arguments if isinstance(arguments, str) else json_text(arguments or {}),
    )


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
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise RequestError(f"{where}: unknown part type {shown(kind)}", param=where)
    return read(part, where)


def _text_part(part: dict[str, Any], where: str) -> Part:
    return TextPart(
        text=text(part, "text", where) or "", cache_control=mapping(part, "cache_control", where)
    )


def _refusal_part(part: dict[str, Any], where: str) -> Part:
    return RefusalPart(text=text(part, "refusal", where) or "")


def _image_part(part: dict[str, Any], where: str) -> Part:
    image = part.get("image_url")
    if isinstance(image, str):
        image = {"url": image}
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(image, dict) or not isinstance(url, str):
        raise RequestError(f"{where}.image_url.url is required", param=f"{where}.image_url.url")
    detail = text(image, "detail", where)
    media_type, data = split_data_url(url)
    if data is None:
        return ImagePart(url=url, detail=detail)
    return ImagePart(media_type=media_type, data=data, detail=detail)


def _audio_part(part: dict[str, Any], where: str) -> Part:
    audio = mapping(part, "input_audio", where) or {}
    return AudioPart(
        data=text(audio, "data", where) or "", audio_format=text(audio, "format", where) or ""
    )


def _file_part(part: dict[str, Any], where: str) -> Part:
    file = mapping(part, "file", where) or {}
    media_type, data = split_data_url(text(file, "file_data", where) or "")
    return DocumentPart(
        media_type=media_type,
        data=data,
        file_id=text(file, "file_id", where),
        name=text(file, "filename", where),
    )


_READERS: dict[str, Callable[[dict[str, Any], str], Part]] = {
    "text": _text_part,
    "refusal": _refusal_part,
    "image_url": _image_part,
    "input_audio": _audio_part,
    "file": _file_part,
}


def split_data_url(url: str) -> tuple[str | None, str | None]:
    """(media type, base64) of a data URL; (None, None) for any other."""
    if not url.startswith("data:"):
        return None, None
    head, _, data = url[5:].partition(",")
    if not head.endswith(";base64"):
        return None, None
    return head.removesuffix(";base64") or None, data


def _tool(item: Any, where: str) -> Tool:
    function = mapping(item, "function", where) if isinstance(item, dict) else None
    if function is None:
        kind = item.get("type") if isinstance(item, dict) else item
        raise RequestError(
            f"{where}: only function tools can be translated, got {shown(kind)}",
            param=where,
            code="untranslatable",
        )
    return Tool(
        name=text(function, "name", where) or "",
        description=text(function, "description", where),
        parameters=mapping(function, "parameters", where) or {},
        strict=boolean(function, "strict", where),
        cache_control=mapping(item, "cache_control", where),
    )


def _tool_choice(fields: dict[str, Any]) -> ToolChoice | None:
    choice = fields.get("tool_choice")
    parallel = boolean(fields, "parallel_tool_calls")
    if choice is None:
        return None if parallel is None else ToolChoice(parallel=parallel)
    if choice in ("auto", "none", "required"):
        return ToolChoice(mode=choice, parallel=parallel)
    function = choice.get("function") if isinstance(choice, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RequestError(
            f"tool_choice: expected auto, none, required or a function, got {shown(choice)}",
            param="tool_choice",
        )
    return ToolChoice(mode="named", name=function["name"], parallel=parallel)


def _output(spec: dict[str, Any] | None) -> OutputContract:
    kind = (spec or {}).get("type", "text")
    if spec is None or kind == "text":
        return OutputContract()
    if kind == "json_object":
        return OutputContract(kind="json_object")
    schema = mapping(spec, "json_schema", "response_format")
    if kind != "json_schema" or schema is None:
        param = "response_format"
        raise RequestError(f"{param}: expected a json_schema, got {shown(spec)}", param=param)
    where = "response_format.json_schema"
    return OutputContract(
        kind="json_schema",
        name=text(schema, "name", where),
        schema=mapping(schema, "schema", where),
        strict=boolean(schema, "strict", where),
        description=text(schema, "description", where),
    )
