"""`Conversation` -> chat body."""

from typing import Any

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
from locavore.wire.carried import check_carried
from locavore.wire.decoding import encode, untranslatable
from locavore.wire.openai_chat.request import NAME

ERROR_PREFIX = "Error: "
"""Chat has no flag for a failed tool; the model reads it in the text."""
# Thinking budgets of Anthropic clients as efforts: (at most tokens, effort).
_EFFORTS = ((2_048, "low"), (8_192, "medium"))


def write_body(
    conversation: Conversation,
    *,
    model: str,
    stream: bool,
    budget_field: str = "max_tokens",
) -> bytes:
    """Raises RequestError (`untranslatable`) for what chat completions cannot carry.

    `budget_field`: OpenAI's reasoning models take `max_completion_tokens` only, several local
    engines `max_tokens` only.
    """
    check_carried(conversation, NAME)
    same = conversation.origin == NAME
    fields: dict[str, Any] = {"model": model, "messages": _messages(conversation, same)}
    if stream:
        fields["stream"] = True
        fields["stream_options"] = {"include_usage": True}
    if conversation.tools:
        fields["tools"] = [_tool(tool) for tool in conversation.tools]
    _put_tool_choice(fields, conversation.tool_choice)
    _put(fields, "response_format", _response_format(conversation.output))
    _put(fields, budget_field, conversation.max_output_tokens)
    for name in _SAME_NAME:
        _put(fields, name, getattr(conversation, name))
    _put(fields, "stop", list(conversation.stop) or None)
    _put(fields, "n", conversation.n if conversation.n > 1 else None)
    _put(fields, "logprobs", conversation.logprobs or None)
    _put(fields, "reasoning_effort", _effort(conversation))
    if same:
        _put(fields, "metadata", conversation.metadata or None)
        _put(fields, "service_tier", conversation.service_tier)
        fields.update(conversation.extra)
    return encode(fields)


_SAME_NAME = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "top_logprobs",
    "presence_penalty",
    "frequency_penalty",
    "user",
)


def _put(fields: dict[str, Any], name: str, value: object) -> None:
    if value is not None:
        fields[name] = value


def _effort(conversation: Conversation) -> str | None:
    if conversation.reasoning_effort is not None or conversation.reasoning_budget_tokens is None:
        return conversation.reasoning_effort
    for limit, effort in _EFFORTS:
        if conversation.reasoning_budget_tokens <= limit:
            return effort
    return "high"


def _put_tool_choice(fields: dict[str, Any], choice: ToolChoice | None) -> None:
    if choice is None or not fields.get("tools"):
        return
    if choice.mode == "named":
        fields["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice.mode != "auto":
        fields["tool_choice"] = choice.mode
    _put(fields, "parallel_tool_calls", choice.parallel)


def _response_format(output: OutputContract) -> dict[str, Any] | None:
    if output.kind == "text":
        return None
    if output.kind == "json_object":
        return {"type": "json_object"}
    spec: dict[str, Any] = {"name": output.name or "answer", "schema": output.schema or {}}
    _put(spec, "strict", output.strict)
    _put(spec, "description", output.description)
    return {"type": "json_schema", "json_schema": spec}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    _put(function, "description", tool.description)
    _put(function, "strict", tool.strict)
    return {"type": "function", "function": function}


def _messages(conversation: Conversation, same: bool) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = []
    for message in conversation.messages:
        if message.role == "assistant":
            written.append(_assistant(message, same))
        else:
            written.extend(_others(message, same))
    return written


def _assistant(message: Message, same: bool) -> dict[str, Any]:
    calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
    refusal = "".join(part.text for part in message.parts if isinstance(part, RefusalPart))
    words = [part.text for part in message.parts if isinstance(part, TextPart)]
    fields: dict[str, Any] = {"role": "assistant"}
    fields["content"] = "".join(words) if words else None
    _put(fields, "name", message.name)
    _put(fields, "refusal", refusal or None)
    if calls:
        fields["tool_calls"] = [_call(part) for part in calls]
    reasoning = "".join(part.text for part in message.parts if isinstance(part, ReasoningPart))
    if same and reasoning:
        fields["reasoning_content"] = reasoning
    if fields["content"] is None and not calls and not refusal:
        fields["content"] = ""
    return fields


def _call(part: ToolCallPart) -> dict[str, Any]:
    function = {"name": part.name, "arguments": part.arguments}
    return {"id": part.id, "type": "function", "function": function}


def _others(message: Message, same: bool) -> list[dict[str, Any]]:
    """Tool results become messages of their own, first; what they show follows as a user turn."""
    results = [part for part in message.parts if isinstance(part, ToolResultPart)]
    rest = [part for part in message.parts if not isinstance(part, ToolResultPart)]
    written = [_result(part) for part in results]
    shown = [p for part in results for p in part.content if not isinstance(p, TextPart)]
    if shown or rest:
        role = "user" if message.role == "tool" else message.role
        if role == "developer" and not same:
            role = "system"
        fields: dict[str, Any] = {"role": role, "content": _content([*shown, *rest])}
        _put(fields, "name", message.name)
        written.append(fields)
    elif not results:
        written.append({"role": message.role, "content": ""})
    return written


def _result(part: ToolResultPart) -> dict[str, Any]:
    words = "\n".join(p.text for p in part.content if isinstance(p, TextPart))
    if part.is_error and not words.startswith(ERROR_PREFIX):
        words = ERROR_PREFIX + words
    return {"role": "tool", "tool_call_id": part.call_id, "content": words}


def _content(parts: list[Part]) -> str | list[dict[str, Any]]:
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text
    return [_part(part) for part in parts]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        return _image(part)
    if isinstance(part, AudioPart):
        audio = {"data": part.data, "format": part.audio_format}
        return {"type": "input_audio", "input_audio": audio}
    if isinstance(part, DocumentPart):
        return _document(part)
    raise untranslatable(f"a {part.__struct_config__.tag} part of a user message", NAME)


def _image(part: ImagePart) -> dict[str, Any]:
    image: dict[str, Any] = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
    _put(image, "detail", part.detail)
    return {"type": "image_url", "image_url": image}


def _document(part: DocumentPart) -> dict[str, Any]:
    if part.url is not None:
        raise untranslatable("a document by URL", NAME, "chat completions take file data or ids")
    if part.media_type == "text/plain" and part.data is not None:
        return {"type": "text", "text": part.data}
    file: dict[str, Any] = {}
    if part.data is not None:
        file["file_data"] = f"data:{part.media_type};base64,{part.data}"
    _put(file, "file_id", part.file_id)
    _put(file, "filename", part.name)
    return {"type": "file", "file": file}
