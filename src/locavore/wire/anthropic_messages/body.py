"""`Conversation` -> messages body."""

import re
from typing import Any

from locavore.core.request import (
    Conversation,
    DocumentPart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from locavore.wire.anthropic_messages.request import NAME
from locavore.wire.anthropic_messages.writer import as_input
from locavore.wire.carried import check_carried
from locavore.wire.decoding import encode, untranslatable

DEFAULT_MAX_TOKENS = 4_096
"""`max_tokens` is required there; the caller sets a better figure when it knows one."""
_FOREIGN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_EFFORTS = {"minimal": "low"}
_MODES = {"auto": "auto", "required": "any", "named": "tool", "none": "none"}


def write_body(
    conversation: Conversation, *, model: str, stream: bool, count: bool = False
) -> bytes:
    """Raises RequestError (`untranslatable`) for what messages cannot carry."""
    check_carried(conversation, NAME)
    same = conversation.origin == NAME
    fields: dict[str, Any] = {"model": model}
    if not count:
        fields["max_tokens"] = conversation.max_output_tokens or DEFAULT_MAX_TOKENS
    system, messages = _turns(conversation, same)
    if system:
        fields["system"] = system
    fields["messages"] = messages
    if conversation.tools:
        fields["tools"] = [_tool(tool) for tool in conversation.tools]
        _put(fields, "tool_choice", _tool_choice(conversation.tool_choice))
    _put_thinking(fields, conversation)
    if not count:
        _put_sampling(fields, conversation, stream)
    if same:
        fields.update({k: v for k, v in conversation.extra.items() if k != "output_config"})
    return encode(fields)


def _put(fields: dict[str, Any], name: str, value: object) -> None:
    if value is not None:
        fields[name] = value


def _put_sampling(fields: dict[str, Any], conversation: Conversation, stream: bool) -> None:
    if stream:
        fields["stream"] = True
    _put(fields, "temperature", conversation.temperature)
    _put(fields, "top_p", conversation.top_p)
    _put(fields, "top_k", conversation.top_k)
    _put(fields, "stop_sequences", list(conversation.stop) or None)
    same = conversation.origin == NAME
    metadata = dict(conversation.metadata) if same else {}
    _put(metadata, "user_id", conversation.user)
    _put(fields, "metadata", metadata or None)
    if same:
        _put(fields, "service_tier", conversation.service_tier)


def _put_thinking(fields: dict[str, Any], conversation: Conversation) -> None:
    effort = conversation.reasoning_effort
    config = dict(conversation.extra.get("output_config", {}))
    if effort == "none":
        fields["thinking"] = {"type": "disabled"}
    else:
        _put(config, "effort", _EFFORTS.get(effort, effort) if effort else None)
        if budget := conversation.reasoning_budget_tokens:
            fields["thinking"] = {"type": "enabled", "budget_tokens": budget}
    if conversation.output.kind == "json_schema":
        config["format"] = {"type": "json_schema", "schema": conversation.output.schema or {}}
    _put(fields, "output_config", config or None)


def _tool(tool: Tool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": tool.name,
        "input_schema": tool.parameters or {"type": "object", "properties": {}},
    }
    _put(fields, "description", tool.description)
    _put(fields, "strict", tool.strict)
    _put(fields, "cache_control", tool.cache_control)
    return fields


def _tool_choice(choice: ToolChoice | None) -> dict[str, Any] | None:
    if choice is None:
        return None
    fields: dict[str, Any] = {"type": _MODES[choice.mode]}
    _put(fields, "name", choice.name)
    if choice.parallel is not None and choice.mode != "none":
        fields["disable_parallel_tool_use"] = not choice.parallel
    return fields


def _turns(
    conversation: Conversation, same: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(system blocks, turns). Other dialects' system messages keep their rank, not their place."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for position, message in enumerate(conversation.messages):
        leading = position == 0 or not same
        if message.role in ("system", "developer") and leading:
            system += _blocks(message, same)
        else:
            _add_turn(turns, message, _blocks(message, same))
    return system, turns


def _add_turn(turns: list[dict[str, Any]], message: Message, blocks: list[dict[str, Any]]) -> None:
    """Turns of one role in a row become one; results of tools must open theirs."""
    role = "user" if message.role == "tool" else message.role
    if not blocks:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _blocks(message: Message, same: bool) -> list[dict[str, Any]]:
    written = [block for part in message.parts if (block := _block(part, same)) is not None]
    if message.role in ("user", "tool"):
        written.sort(key=lambda block: block["type"] != "tool_result")
    return written


def _block(part: Part, same: bool) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return _cached({"type": "text", "text": part.text}, part) if part.text else None
    if isinstance(part, ToolResultPart):
        return _result(part)
    if isinstance(part, ToolCallPart):
        call = {"type": "tool_use", "id": _id(part.id), "name": part.name}
        return _cached({**call, "input": as_input(part.arguments)}, part)
    if isinstance(part, ReasoningPart):
        return _thought(part) if same else None
    if isinstance(part, RefusalPart):
        return {"type": "text", "text": part.text} if part.text else None
    if isinstance(part, ImagePart):
        return _cached({"type": "image", "source": _image_source(part)}, part)
    if isinstance(part, DocumentPart):
        return _document(part)
    raise untranslatable("input_audio", NAME)


def _cached(
    block: dict[str, Any], part: TextPart | ImagePart | DocumentPart | ToolCallPart | ToolResultPart
) -> dict[str, Any]:
    _put(block, "cache_control", part.cache_control)
    return block


def _thought(part: ReasoningPart) -> dict[str, Any] | None:
    """Only what carries the model's own signature or seal; the rest would be refused (C30)."""
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    if not part.signature:
        return None
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _id(call_id: str) -> str:
    """Other engines' ids may hold signs that are refused here; call and result change alike."""
    return _FOREIGN_ID.sub("_", call_id)


def _result(part: ToolResultPart) -> dict[str, Any]:
    content = [block for p in part.content if (block := _block(p, same=True)) is not None]
    fields: dict[str, Any] = {"type": "tool_result", "tool_use_id": _id(part.call_id)}
    _put(fields, "content", content or None)
    if part.is_error:
        fields["is_error"] = True
    return _cached(fields, part)


def _image_source(part: ImagePart) -> dict[str, Any]:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    return {"type": "base64", "media_type": part.media_type, "data": part.data}


def _document(part: DocumentPart) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": "document", "source": _document_source(part)}
    _put(fields, "title", part.name)
    return _cached(fields, part)


def _document_source(part: DocumentPart) -> dict[str, Any]:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    if part.file_id is not None:
        return {"type": "file", "file_id": part.file_id}
    kind = "text" if part.media_type == "text/plain" else "base64"
    return {"type": kind, "media_type": part.media_type, "data": part.data}
