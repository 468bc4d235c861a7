"""Force a tool call on an engine that lets a model ramble first (C25).

llama.cpp's grammar for `tool_choice: required` is "any text, then a call". A JSON schema leaves
no room: the answer is one object `{"name": …, "arguments": …}`, read back here as a tool call.
"""

from typing import Any

import msgspec

from locavore.core.errors import RequestError
from locavore.core.events import (
    Event,
    Finish,
    FinishReason,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from locavore.core.ports import EventReader
from locavore.core.request import Conversation, Message, OutputContract, TextPart, Tool
from locavore.wire.decoding import encode, json_text
from locavore.wire.faults import broken
from locavore.wire.json_repair import repair_json
from locavore.wire.openai_chat.tool_calls import new_call_id


def force(conversation: Conversation) -> Conversation:
    """The same question with the call as an output contract. Raises RequestError."""
    tools = _demanded(conversation)
    instruction = Message(role="system", parts=(TextPart(text=_instruction(tools)),))
    return msgspec.structs.replace(
        conversation,
        messages=(instruction, *conversation.messages),
        tools=(),
        tool_choice=None,
        output=OutputContract(kind="json_schema", name="tool_call", schema=_schema(tools)),
    )


def _demanded(conversation: Conversation) -> tuple[Tool, ...]:
    if conversation.output.kind != "text":
        raise RequestError(
            "response_format: a forced tool call leaves no room for another output contract",
            param="response_format",
        )
    choice = conversation.tool_choice
    if choice is None or choice.mode != "named":
        return conversation.tools
    found = tuple(tool for tool in conversation.tools if tool.name == choice.name)
    if not found:
        names = ", ".join(tool.name for tool in conversation.tools)
        message = f"tool_choice: no tool is named {choice.name!r}; there are: {names}"
        raise RequestError(message, param="tool_choice")
    return found


def _schema(tools: tuple[Tool, ...]) -> dict[str, Any]:
    calls = [_call_schema(tool) for tool in tools]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _call_schema(tool: Tool) -> dict[str, Any]:
    arguments = tool.parameters or {"type": "object", "properties": {}}
    return {
        "type": "object",
        "properties": {"name": {"enum": [tool.name]}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _instruction(tools: tuple[Tool, ...]) -> str:
    lines = [
        encode(
            {"name": t.name, "description": t.description or "", "parameters": t.parameters}
        ).decode()
        for t in tools
    ]
    listed = "\n".join(lines)
    return (
        'Call one of these tools. Answer with a JSON object {"name": ..., "arguments": ...} '
        f"and nothing else.\n{listed}"
    )


class ForcedToolReader:
    """Wraps the reader of a forced answer; implements `core.ports.EventReader`."""

    def __init__(self, reader: EventReader) -> None:
        self._reader = reader
        self._texts: dict[int, list[str]] = {}

    def feed(self, data: bytes) -> list[Event]:
        return self._turn(self._reader.feed(data))

    def close(self) -> list[Event]:
        return self._turn(self._reader.close())

    def _turn(self, events: list[Event]) -> list[Event]:
        turned: list[Event] = []
        for event in events:
            if isinstance(event, TextDelta):
                self._texts.setdefault(event.choice, []).append(event.text)
            elif isinstance(event, Finish):
                turned += _as_call(event, "".join(self._texts.pop(event.choice, [])))
            else:
                turned.append(event)
        return turned


class _Whole:
    """A whole answer as a reader that gives everything at once."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def feed(self, data: bytes) -> list[Event]:  # noqa: ARG002 - the shape of a reader
        return []

    def close(self) -> list[Event]:
        return self._events


def forced_answer(events: list[Event]) -> list[Event]:
    """Events of a whole forced answer, with its JSON text as a tool call."""
    return ForcedToolReader(_Whole(events)).close()


def _as_call(finish: Finish, text: str) -> list[Event]:
    """A cut-off object stays text, with its reason; anything else is the engine's fault."""
    call = _parse(text)
    if call is None:
        if finish.reason is FinishReason.LENGTH:
            return [TextDelta(choice=finish.choice, text=text), finish]
        return [broken(f"the engine was to call a tool and answered {text[:200]!r}")]
    name, arguments = call
    return [
        ToolCallStart(choice=finish.choice, index=0, id=new_call_id(), name=name),
        ToolCallDelta(choice=finish.choice, index=0, arguments=arguments),
        Finish(choice=finish.choice, reason=FinishReason.TOOL_CALLS),
    ]


def _parse(text: str) -> tuple[str, str] | None:
    found = repair_json(text)
    if found is None:
        return None
    value = msgspec.json.decode(found)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    return value["name"], json_text(value.get("arguments") or {})
