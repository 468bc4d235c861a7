"""A scripted upstream that behaves like a model: calls the tools it is given, follows schemas.

It answers `/v1/chat/completions` and `/v1/messages`, whole and streamed. For suites that talk to a
model rather than compare bytes.
"""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from locavore.testing import Received, Reply, replies

BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class Said:
    """What the model answers."""

    text: str = ""
    call: tuple[str, dict[str, Any]] | None = None


@dataclass(frozen=True)
class Asked:
    """A request of either dialect, as far as the model looks at it."""

    last_role: str
    text: str
    tools: list[tuple[str, dict[str, Any]]]
    """(name, JSON Schema of its arguments)"""
    forced: bool
    schema: dict[str, Any] | None
    json_mode: bool


def instance(schema: dict[str, Any], text: str, root: dict[str, Any] | None = None) -> Any:
    """A value that the schema admits; numbers and quoted words come from `text`."""
    root = schema if root is None else root
    if "$ref" in schema:
        return instance(root["$defs"][schema["$ref"].rpartition("/")[2]], text, root)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return instance(schema[several][0], text, root)
    if "const" in schema or "enum" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            properties = schema.get("properties", {})
            return {name: instance(part, text, root) for name, part in properties.items()}
        case "array":
            return [instance(schema["items"], text, root)]
        case "integer" | "number":
            found = re.search(r"\d+", text)
            return int(found.group()) if found else 1
        case "boolean":
            return True
        case "null":
            return None
    quoted = re.search(r"'([^']+)'", text)
    return quoted.group(1) if quoted else "a cat"


def think(asked: Asked) -> Said:
    if asked.tools and (asked.forced or asked.last_role == "user"):
        name, schema = asked.tools[0]
        return Said(call=(name, instance(schema, asked.text)))
    if asked.schema is not None:
        return Said(json.dumps(instance(asked.schema, asked.text), ensure_ascii=False))
    if asked.json_mode:
        return Said(json.dumps(dict.fromkeys(re.findall(r"'(\w+)'", asked.text), "a cat")))
    return Said("Hello, this is a scripted model.")


def respond(received: Received) -> Reply:
    """Answer a request in the dialect of its path."""
    body = received.json
    numbers = itertools.count(len(received.body))
    tokens = {"in": len(received.body) // BYTES_PER_TOKEN, "out": 9}
    if received.path.endswith("/messages"):
        said = think(_asked_messages(body))
        return _message(said, tokens, f"toolu_{next(numbers)}", stream=body.get("stream", False))
    said = think(_asked_chat(body))
    return _chat(said, tokens, f"call_{next(numbers)}", body)


# -- chat completions ---------------------------------------------------------------------------


def _asked_chat(body: dict[str, Any]) -> Asked:
    wanted = body.get("response_format") or {}
    functions = [tool["function"] for tool in body.get("tools", [])]
    last = body["messages"][-1]
    return Asked(
        last_role=last["role"],
        text=_text(last["content"]),
        tools=[(f["name"], f.get("parameters", {})) for f in functions],
        forced=body.get("tool_choice", "auto") not in ("auto", "none"),
        schema=wanted.get("json_schema", {}).get("schema"),
        json_mode=wanted.get("type") == "json_object",
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


def _chat(said: Said, tokens: dict[str, int], call_id: str, body: dict[str, Any]) -> Reply:
    usage = {
        "prompt_tokens": tokens["in"],
        "completion_tokens": tokens["out"],
        "total_tokens": tokens["in"] + tokens["out"],
    }
    reason = "stop" if said.call is None else "tool_calls"
    if not body.get("stream"):
        calls = [] if said.call is None else [_function(said, call_id)]
        return replies.chat(
            said.text,
            model=body["model"],
            usage=usage,
            finish_reason=reason,
            tool_calls=calls or None,
        )
    chunk = partial(replies.chat_chunk, model=body["model"])
    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"content": part}) for part in _parts(said.text)]
    if said.call is not None:
        first = _function(said, call_id) | {"index": 0}
        arguments = first["function"].pop("arguments")
        first["function"]["arguments"] = ""
        events.append(chunk({"tool_calls": [first]}))
        for part in _parts(arguments):
            delta = {"index": 0, "function": {"arguments": part}}
            events.append(chunk({"tool_calls": [delta]}))
    events.append(chunk({}, finish_reason=reason))
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(replies.usage_chunk(usage))
    return Reply.sse(*events, replies.DONE)


def _function(said: Said, call_id: str) -> dict[str, Any]:
    assert said.call is not None
    name, arguments = said.call
    told = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": call_id, "type": "function", "function": told}


def _parts(text: str) -> Iterator[str]:
    for start in range(0, len(text), 5):
        yield text[start : start + 5]


# -- messages -----------------------------------------------------------------------------------


def _asked_messages(body: dict[str, Any]) -> Asked:
    last = body["messages"][-1]
    blocks = last["content"] if isinstance(last["content"], list) else []
    answered = any(block["type"] == "tool_result" for block in blocks)
    wanted = (body.get("output_config") or {}).get("format") or {}
    return Asked(
        last_role="tool" if answered else last["role"],
        text=_text(last["content"]),
        tools=[(tool["name"], tool["input_schema"]) for tool in body.get("tools", [])],
        forced=body.get("tool_choice", {}).get("type", "auto") not in ("auto", "none"),
        schema=wanted.get("schema"),
        json_mode=False,
    )


def _message(said: Said, tokens: dict[str, int], call_id: str, *, stream: bool) -> Reply:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": said.text}] if said.text else []
    if said.call is not None:
        name, arguments = said.call
        blocks.append({"type": "tool_use", "id": call_id, "name": name, "input": arguments})
    reason = "end_turn" if said.call is None else "tool_use"
    if not stream:
        return replies.message(
            content=blocks,
            stop_reason=reason,
            input_tokens=tokens["in"],
            output_tokens=tokens["out"],
        )
    return Reply.sse(
        *message_events(
            *blocks, stop_reason=reason, input_tokens=tokens["in"], output_tokens=tokens["out"]
        )
    )


def message_events(
    *blocks: dict[str, Any],
    stop_reason: str = "end_turn",
    input_tokens: int = 90,
    output_tokens: int = 12,
) -> list[bytes]:
    """A streamed message, each block in the pieces the API sends it in."""
    start: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": input_tokens, "cache_read_input_tokens": 4, "output_tokens": 1},
    }
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        empty, deltas = _pieces(block)
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    usage = {"output_tokens": output_tokens}
    events.append({"type": "message_delta", "delta": delta, "usage": usage})
    events.append({"type": "message_stop"})
    return [replies.event(event, event["type"]) for event in events]


def _pieces(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    match block["type"]:
        case "text":
            half = len(block["text"]) // 2
            parts = [block["text"][:half], block["text"][half:]]
            return block | {"text": ""}, [{"type": "text_delta", "text": p} for p in parts]
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
            return {"type": "thinking", "thinking": "", "signature": ""}, deltas
        case _:
            text = json.dumps(block["input"])
            parts = ["", text[:5], text[5:]]
            return block | {"input": {}}, [
                {"type": "input_json_delta", "partial_json": p} for p in parts
            ]
