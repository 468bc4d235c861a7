"""What the wire layer costs per call and per chunk, in CPU microseconds of one core.

Run: `python benchmarks/gateway/wire.py`; prints JSON with versions. Minimum over repeats, because
what is above it is the machine's and not the code's.
"""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from locavore.wire.formats import CHAT, MESSAGES, RESPONSES

REPEATS = 7
CALLS = 2_000


def cost_us(work: Callable[[], object]) -> float:
    """CPU microseconds of one call."""
    best = float("inf")
    for _ in range(REPEATS):
        begin = time.process_time_ns()
        for _ in range(CALLS):
            work()
        best = min(best, (time.process_time_ns() - begin) / CALLS / 1_000)
    return round(best, 2)


def chat_body(size_bytes: int, messages: int) -> bytes:
    words = "The quick brown fox jumps over it. " * (size_bytes // 35 // messages)
    turns = [{"role": "user", "content": words}] * messages
    metadata = {"labels": "public"}
    return msgspec.json.encode(
        {"messages": turns, "model": "gpt", "max_tokens": 100, "stream": True, "metadata": metadata}
    )


CHAT_CHUNK = (
    b'data: {"id":"chatcmpl-abc","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"gpt-4.1-mini","system_fingerprint":"fp_abc","choices":[{"index":0,"delta":'
    b'{"content":" hello"},"logprobs":null,"finish_reason":null}]}\n\n'
)
MESSAGES_CHUNK = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":" hello"}}\n\n'
)
RESPONSES_CHUNK = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
    b'"item_id":"msg_1","output_index":0,"content_index":0,"delta":" hello","logprobs":[],'
    b'"sequence_number":7}\n\n'
)
ANSWER = msgspec.json.encode(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "word " * 160},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 300, "completion_tokens": 160, "total_tokens": 460},
    }
)


def per_request(name: str, size_bytes: int, messages: int) -> dict[str, float]:
    body = chat_body(size_bytes, messages)
    request = CHAT.request(body)
    return {
        f"{name}: request": cost_us(lambda: CHAT.request(body)),
        f"{name}: rewrite": cost_us(lambda: CHAT.rewrite(body, request, model="up")),
        f"{name}: messages request": cost_us(lambda: MESSAGES.request(body)),
        f"{name}: translation to messages": cost_us(
            lambda: MESSAGES.body(CHAT.conversation(body), model="up", stream=True)
        ),
    }


def per_chunk() -> dict[str, float]:
    chunks = ((CHAT, CHAT_CHUNK), (MESSAGES, MESSAGES_CHUNK), (RESPONSES, RESPONSES_CHUNK))
    costs: dict[str, float] = {}
    for fmt, chunk in chunks:
        feed = fmt.scanner().feed
        feed(chunk)  # from the second piece of content on nothing is decoded
        costs[f"{fmt.name}: one chunk of {len(chunk)} bytes"] = cost_us(partial(feed, chunk))
        burst = cost_us(partial(feed, chunk * 64)) / 64
        costs[f"{fmt.name}: each of 64 chunks at once"] = round(burst, 3)
    return costs


def measure() -> dict[str, Any]:
    costs = {
        **per_request("1.5 KB, 2 messages", 1_500, 2),
        **per_request("30 KB, 4 messages", 30_000, 4),
        **per_request("30 KB, 60 messages", 30_000, 60),
        **per_chunk(),
        "usage of a whole answer of 1 KB": cost_us(lambda: CHAT.usage(ANSWER)),
    }
    return {"unit": "CPU microseconds", "costs": costs, **versions()}


def versions() -> dict[str, str]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "msgspec": msgspec.__version__,
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    json.dump(measure(), sys.stdout, indent=2)
    sys.stdout.write("\n")
