"""`Conversation` -> responses body."""

from typing import Any

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
from locavore.wire.carried import check_carried
from locavore.wire.decoding import encode, untranslatable
from locavore.wire.openai_chat.body import ERROR_PREFIX
from locavore.wire.openai_responses.request import NAME

_Fields = dict[str, Any]


def write_body(conversation: Conversation, *, model: str, stream: bool) -> bytes:
    """Raises RequestError (`untranslatable`) for what responses cannot carry."""
    check_carried(conversation, NAME)
    same = conversation.origin == NAME
    messages = list(conversation.messages)
    fields: _Fields = {"model": model, "store": False}
    if messages and messages[0].role == "system" and _is_text(messages[0]):
        fields["instructions"] = _joined(messages.pop(0))
    fields["input"] = [item for message in messages for item in _items(message, same)]
    if stream:
        fields["stream"] = True
    if conversation.tools:
        fields["tools"] = [_tool(tool) for tool in conversation.tools]
        _put_choice(fields, conversation.tool_choice)
    _put(fields, "max_output_tokens", conversation.max_output_tokens)
    _put(fields, "temperature", conversation.temperature)
    _put(fields, "top_p", conversation.top_p)
    _put(fields, "user", conversation.user)
    _put(fields, "top_logprobs", conversation.top_logprobs)
    _put_settings(fields, conversation, same)
    return encode(fields)


def _put(fields: _Fields, name: str, value: object) -> None:
    if value is not None:
        fields[name] = value


def _put_settings(fields: _Fields, conversation: Conversation, same: bool) -> None:
    extra = dict(conversation.extra) if same else {}
    text: _Fields = {}
    _put(text, "verbosity", extra.pop("verbosity", None))
    _put(text, "format", _format(conversation.output))
    _put(fields, "text", text or None)
    reasoning = dict(extra.pop("reasoning", {}))
    _put(reasoning, "effort", conversation.reasoning_effort)
    _put(fields, "reasoning", reasoning or None)
    if same:
        _put(fields, "metadata", conversation.metadata or None)
        _put(fields, "service_tier", conversation.service_tier)
        fields.update(extra)


def _is_text(message: Message) -> bool:
    return all(isinstance(part, TextPart) for part in message.parts)


def _joined(message: Message) -> str:
    return "\n".join(part.text for part in message.parts if isinstance(part, TextPart))


def _format(output: OutputContract) -> _Fields | None:
    if output.kind == "text":
        return None
    if output.kind == "json_object":
        return {"type": "json_object"}
    spec: _Fields = {
        "type": "json_schema",
        "name": output.name or "answer",
        "schema": output.schema or {},
    }
    _put(spec, "strict", output.strict)
    _put(spec, "description", output.description)
    return spec


def _tool(tool: Tool) -> _Fields:
    fields: _Fields = {"type": "function", "name": tool.name, "parameters": tool.parameters}
    _put(fields, "description", tool.description)
    _put(fields, "strict", tool.strict)
    return fields


def _put_choice(fields: _Fields, choice: ToolChoice | None) -> None:
    if choice is None:
        return
    if choice.mode == "named":
        fields["tool_choice"] = {"type": "function", "name": choice.name}
    elif choice.mode != "auto":
        fields["tool_choice"] = choice.mode
    _put(fields, "parallel_tool_calls", choice.parallel)


def _items(message: Message, same: bool) -> list[_Fields]:
    """Words of a turn in one message item; calls, results and thoughts in items of their own."""
    items: list[_Fields] = []
    words: list[_Fields] = []

    def flush() -> None:
        if words:
            role = "user" if message.role == "tool" else message.role
            items.append({"type": "message", "role": role, "content": list(words)})
            words.clear()

    for part in message.parts:
        item = _item(part, same)
        if item is None:
            words.extend(_content(part, message.role))
        elif item:
            flush()
            items.append(item)
    flush()
    return items


def _item(part: Part, same: bool) -> _Fields | None:
    """An item of its own; None: part of a message; empty: left out."""
    if isinstance(part, ToolCallPart):
        return {
            "type": "function_call",
            "call_id": part.id,
            "name": part.name,
            "arguments": part.arguments,
        }
    if isinstance(part, ToolResultPart):
        return {
            "type": "function_call_output",
            "call_id": part.call_id,
            "output": _output(part),
        }
    if isinstance(part, ReasoningPart):
        return _thought(part) if same else {}
    return None


def _output(part: ToolResultPart) -> str | list[_Fields]:
    if all(isinstance(p, TextPart) for p in part.content):
        words = "\n".join(p.text for p in part.content if isinstance(p, TextPart))
        marked = part.is_error and not words.startswith(ERROR_PREFIX)
        return ERROR_PREFIX + words if marked else words
    return [block for p in part.content for block in _content(p, "user")]


def _thought(part: ReasoningPart) -> _Fields:
    fields: _Fields = {"type": "reasoning", "summary": []}
    if part.text:
        fields["summary"] = [{"type": "summary_text", "text": part.text}]
    _put(fields, "encrypted_content", part.signature)
    return fields


def _content(part: Part, role: str) -> list[_Fields]:
    if isinstance(part, TextPart):
        return [{"type": "output_text" if role == "assistant" else "input_text", "text": part.text}]
    if isinstance(part, RefusalPart):
        return [{"type": "refusal", "refusal": part.text}]
    if isinstance(part, ImagePart):
        url = part.url or f"data:{part.media_type};base64,{part.data}"
        return [{"type": "input_image", "image_url": url, "detail": part.detail or "auto"}]
    if isinstance(part, DocumentPart):
        return [_document(part)]
    raise untranslatable("input_audio", NAME)


def _document(part: DocumentPart) -> _Fields:
    fields: _Fields = {"type": "input_file"}
    if part.data is not None:
        fields["file_data"] = f"data:{part.media_type};base64,{part.data}"
    _put(fields, "file_url", part.url)
    _put(fields, "file_id", part.file_id)
    _put(fields, "filename", part.name)
    return fields
