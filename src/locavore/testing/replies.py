"""Replies in the shapes real providers and engines send, for `ScriptedUpstream`."""

import json
from collections.abc import Iterable
from typing import Any

from locavore.testing.upstream import Chunk, Reply, Step

CREATED_S = 1_760_000_000
USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


def event(data: Any, name: str | None = None) -> bytes:
    """One server-sent event holding JSON (or the text as it is)."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    prefix = f"event: {name}\n" if name else ""
    return f"{prefix}data: {text}\n\n".encode()


def chat(
    text: str = "Hello",
    *,
    model: str = "m",
    usage: dict[str, Any] | None = USAGE,
    finish_reason: str = "stop",
    **message: Any,
) -> Reply:
    """A whole chat completion; `usage=None` leaves it out, as some engines do."""
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": CREATED_S,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
    }
    if usage is not None:
        body["usage"] = usage
    return Reply.json(body)


def chat_chunk(
    delta: dict[str, Any],
    *,
    finish_reason: str | None = None,
    model: str = "m",
    usage: dict[str, Any] | None = None,
    with_usage: bool = False,
) -> bytes:
    """One event of a streamed chat completion; `with_usage` adds the field even when null."""
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": CREATED_S,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }
    if with_usage or usage is not None:
        body["usage"] = usage
    return event(body)


def usage_chunk(usage: dict[str, Any] = USAGE, model: str = "m") -> bytes:
    """The last chunk before `[DONE]` when usage was asked for: no choices."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": CREATED_S,
        "model": model,
        "choices": [],
        "usage": usage,
    }
    return event(body)


DONE = b"data: [DONE]\n\n"


def chat_stream(
    texts: Iterable[str] = ("Hel", "lo"),
    *,
    usage: dict[str, Any] | None = USAGE,
    model: str = "m",
    finish_reason: str = "stop",
    between: tuple[Step, ...] = (),
) -> Reply:
    """A streamed chat completion, one write per event; `between` stands before the finish."""
    noted = usage is not None
    steps: list[Step] = [
        Chunk(chat_chunk({"role": "assistant", "content": ""}, model=model, with_usage=noted))
    ]
    steps += [Chunk(chat_chunk({"content": t}, model=model, with_usage=noted)) for t in texts]
    steps += between
    steps.append(Chunk(chat_chunk({}, finish_reason=finish_reason, model=model, with_usage=noted)))
    if usage is not None:
        steps.append(Chunk(usage_chunk(usage, model)))
    return Reply.sse(*steps, DONE)


def message(
    text: str = "Hello",
    *,
    model: str = "claude",
    input_tokens: int = 12,
    output_tokens: int = 3,
    stop_reason: str = "end_turn",
    content: list[dict[str, Any]] | None = None,
) -> Reply:
    """A whole Anthropic message."""
    return Reply.json(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": content or [{"type": "text", "text": text}],
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {"input_tokens": input_tokens, "output_tokens": output_tokens},
        }
    )


def message_stream(
    texts: Iterable[str] = ("Hel", "lo"),
    *,
    model: str = "claude",
    input_tokens: int = 12,
    output_tokens: int = 3,
    between: tuple[Step, ...] = (),
) -> Reply:
    """A streamed Anthropic message with one text block."""
    start: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": input_tokens, "output_tokens": 1},
    }
    block = {"type": "text", "text": ""}
    steps: list[Step | bytes] = [
        event({"type": "message_start", "message": start}, "message_start"),
        event(
            {"type": "content_block_start", "index": 0, "content_block": block},
            "content_block_start",
        ),
        event({"type": "ping"}, "ping"),
    ]
    for text in texts:
        delta = {"type": "text_delta", "text": text}
        steps.append(
            event(
                {"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta"
            )
        )
    steps += between
    steps += [
        event({"type": "content_block_stop", "index": 0}, "content_block_stop"),
        event(
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": output_tokens},
            },
            "message_delta",
        ),
        event({"type": "message_stop"}, "message_stop"),
    ]
    return Reply.sse(*steps)


def embeddings(vectors: Iterable[Iterable[float]] = ((0.1, 0.2),), *, model: str = "e") -> Reply:
    """An embeddings answer."""
    data = [
        {"object": "embedding", "index": i, "embedding": list(vector)}
        for i, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return Reply.json({"object": "list", "data": data, "model": model, "usage": usage})


def openai_error(
    status: int,
    message: str = "scripted failure",
    *,
    code: str | None = None,
    kind: str = "invalid_request_error",
    **headers: str,
) -> Reply:
    """An error in OpenAI's shape; header names may use `_` for `-`."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Reply.json({"error": error}, status=status, **headers)


def anthropic_error(
    status: int, message: str = "scripted failure", *, kind: str = "api_error", **headers: str
) -> Reply:
    """An error in Anthropic's shape."""
    body = {"type": "error", "error": {"type": kind, "message": message}}
    return Reply.json(body, status=status, **headers)
