"""Prompts and windows: C40-C43 through the gateway."""

import pytest

from locavore.testing import Reply, ScriptedUpstream, replies
from tests.conformance.client import backend
from tests.conformance.conftest import Start

LONG = "The quick brown fox jumps over the lazy dog. " * 500
READ_LITTLE = {"prompt_tokens": 2048, "completion_tokens": 3, "total_tokens": 2051}
FALLBACK = '[fallback]\n"home/m" = ["home/second"]\n'

# Wording as each engine gives it; the status and shape are theirs too.
OVERFLOWS: dict[str, Reply] = {
    "vllm": replies.openai_error(
        400,
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens "
        "(4000 in the messages, 1000 in the completion).",
        kind="BadRequestError",
    ),
    "llama.cpp": Reply.json(
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size, try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 5000,
                "n_ctx": 4096,
            }
        },
        status=400,
    ),
    "openai": replies.openai_error(
        400,
        "Your input exceeds the context window of this model.",
        code="context_length_exceeded",
    ),
}


def prompt(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("stream", [False, True])
def test_c40_a_silently_truncated_prompt_is_never_a_success(
    start: Start, upstream: ScriptedUpstream, stream: bool
) -> None:
    client = start(backend("home/m", upstream))
    upstream.script(
        replies.chat_stream(["invented"], usage=READ_LITTLE)
        if stream
        else replies.chat("invented", usage=READ_LITTLE)
    )
    answer = client.chat(stream=stream, messages=prompt(LONG))
    assert "read only 2048" in answer.error["message"]
    assert "[DONE]" not in answer.body.decode()
    if not stream:
        assert answer.status == 400
        assert answer.error["code"] == "context_length_exceeded"
    record = client.record
    assert record.outcome == "failed"
    assert record.attempts[0].fault == "prompt_truncated"


def test_c40_a_truncated_prompt_goes_to_a_larger_window(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    larger = backend("home/second", other, context_tokens=65536)
    client = start(backend("home/m", upstream) + larger + FALLBACK)
    upstream.script(replies.chat("invented", usage=READ_LITTLE))
    other.script(replies.chat("true", usage=READ_LITTLE | {"prompt_tokens": 5400}))
    answer = client.chat(messages=prompt(LONG))
    assert answer.status == 200, answer.body
    assert answer.json["choices"][0]["message"]["content"] == "true"


@pytest.mark.parametrize("reply", OVERFLOWS.values(), ids=OVERFLOWS.keys())
def test_c41_an_engines_overflow_is_recognised_and_moves_on(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream, reply: Reply
) -> None:
    client = start(backend("home/m", upstream) + backend("home/second", other) + FALLBACK)
    upstream.script(reply)
    other.script(replies.chat("fits"))
    assert client.chat().status == 200
    assert [a.fault for a in client.record.attempts] == ["context_overflow", None]


def test_c42_fallback_never_goes_to_a_window_too_small_for_the_request(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    small = backend("home/second", other, context_tokens=4096)
    client = start(backend("home/m", upstream, context_tokens=65536) + small + FALLBACK)
    upstream.always(replies.openai_error(503))
    other.always(replies.chat())
    assert client.chat(messages=prompt(LONG), max_tokens=100).status == 503
    assert not other.requests
    assert client.chat(max_tokens=100).status == 200


def test_c43_the_output_budget_counts_against_the_window(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, context_tokens=4096))
    upstream.always(replies.chat())
    assert client.chat(model="local", max_tokens=1000).status == 200
    refused = client.chat(model="local", max_tokens=4096)
    assert refused.status == 400
    assert refused.error["code"] == "context_length_exceeded"
    assert len(upstream.requests) == 1
