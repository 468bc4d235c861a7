"""Conformance: error answers, retry headers, redaction and usage shapes (C41, C50, C64, C104)."""

import json
from typing import Any

import pytest

from locavore.core.errors import Fault, NoCandidate, Overloaded, RequestError, UpstreamError
from locavore.core.events import Failure
from locavore.core.money import Usage
from locavore.wire.formats import CHAT, EMBEDDINGS, FORMATS, MESSAGES, RESPONSES, from_failure
from locavore.wire.redact import MAX_MESSAGE_CHARS, redact
from locavore.wire.retry import error_headers, read_retry_after


def said(status: int, body: Any, name: str = "openai_chat") -> UpstreamError:
    return FORMATS[name].upstream_error(status, (), json.dumps(body).encode(), "home/m")


# Wordings seen in public issue threads and in the engines' sources.
OVERFLOWS: list[tuple[str, int, Any]] = [
    (
        "vllm",
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 16384 tokens. However, you "
            "requested 122946 tokens (112946 in the messages, 10000 in the completion).",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    (
        "vllm max_tokens",
        400,
        {
            "error": {
                "message": "'max_tokens' or 'max_completion_tokens' is too large: 2000. This "
                "model's maximum context length is 4096 tokens and your request has 2104 input "
                "tokens (2000 > 4096 - 2104).",
                "type": "BadRequestError",
                "code": 400,
            }
        },
    ),
    (
        "vllm prompt",
        400,
        {
            "error": {
                "message": "The decoder prompt (length 9000) is longer than the maximum model "
                "length of 8192. Make sure that `max_model_len` is no smaller",
                "code": 400,
            }
        },
    ),
    (
        "sglang input",
        400,
        {
            "object": "error",
            "message": "The input (10009 tokens) is longer than the model's "
            "context length (128 tokens).",
            "type": "BadRequestError",
            "code": 400,
        },
    ),
    (
        "sglang total",
        400,
        {
            "error": {
                "message": "Requested token count exceeds the model's maximum context length "
                "of 64000 tokens. You requested a total of 71897 tokens"
            }
        },
    ),
    (
        "llama.cpp",
        400,
        {
            "error": {
                "code": 400,
                "message": "request (4476 tokens) exceeds the available context "
                "size (4096 tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 4476,
                "n_ctx": 4096,
            }
        },
    ),
    (
        "llama.cpp old",
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size, try increasing it",
                "type": "invalid_request_error",
            }
        },
    ),
    (
        "llama.cpp batch",
        500,
        {
            "error": {
                "code": 500,
                "message": "input is too large to process. increase the physical batch size",
                "type": "server_error",
            }
        },
    ),
    ("ollama", 500, {"error": "the input length exceeds the context length"}),
    ("ollama v1", 400, {"error": {"message": "input length exceeds maximum context length"}}),
    (
        "ollama runner",
        400,
        {
            "error": json.dumps(
                {
                    "error": {
                        "code": 400,
                        "message": "request (2622 tokens) exceeds "
                        "the available context size (512 tokens)",
                    }
                }
            )
        },
    ),
    (
        "tgi",
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. "
            "Given: 4031 `inputs` tokens and 200 `max_new_tokens`",
            "error_type": "validation",
        },
    ),
    (
        "tgi inputs",
        422,
        {
            "error": "Input validation error: `inputs` must have less than 1000 tokens. "
            "Given: 2000",
            "error_type": "validation",
        },
    ),
    (
        "lm studio",
        400,
        {
            "error": "Trying to keep the first 9000 tokens when context the overflows. However, "
            "the model is loaded with context length of only 4096 tokens"
        },
    ),
    (
        "lm studio old",
        400,
        {
            "error": "The number of tokens to keep from the initial prompt is greater than the "
            "context length."
        },
    ),
    (
        "openai",
        400,
        {
            "error": {
                "message": "Your input exceeds the context window of this model.",
                "type": "invalid_request_error",
                "code": "context_length_exceeded",
            }
        },
    ),
    (
        "gemini",
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (1196265) exceeds the maximum "
                    "number of tokens allowed (1048576).",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
    ),
]


@pytest.mark.parametrize(("engine", "status", "body"), OVERFLOWS, ids=lambda v: str(v)[:20])
def test_c41_every_engines_overflow_is_recognised(engine: str, status: int, body: Any) -> None:
    error = said(status, body)
    assert error.fault is Fault.CONTEXT_OVERFLOW
    assert (error.status, error.code) == (400, "context_length_exceeded")
    assert error.elsewhere_may_help
    assert not error.again_may_help


def test_c41_anthropic_overflow_is_recognised() -> None:
    message = "prompt is too long: 205000 tokens > 200000 maximum"
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    assert said(400, body, "anthropic_messages").fault is Fault.CONTEXT_OVERFLOW


def test_c41_an_overflow_inside_a_stream_is_recognised() -> None:
    scanner = CHAT.scanner()
    scanner.feed(b'data: {"error":{"message":"Context size has been exceeded.","code":500}}\n\n')
    assert scanner.failure is not None
    assert from_failure(scanner.failure, "home/m").fault is Fault.CONTEXT_OVERFLOW


@pytest.mark.parametrize(
    ("status", "body", "fault", "told"),
    [
        (429, {"error": {"code": "rate_limit_exceeded", "message": "slow"}}, "rate_limited", 429),
        (429, {"error": {"code": "insufficient_quota", "message": "pay"}}, "billing", 502),
        (402, {"error": {"message": "Insufficient Balance"}}, "billing", 502),
        (401, {"error": {"code": "invalid_api_key", "message": "no"}}, "auth", 502),
        (403, {"error": {"message": "country not supported"}}, "auth", 502),
        (404, {"error": {"code": "model_not_found", "message": "no m"}}, "not_found", 502),
        (404, {"error": "model 'm' not found"}, "not_found", 502),
        (503, {"error": {"message": "Loading model", "code": 503}}, "overloaded", 503),
        (500, {"error": {"message": "boom", "type": "server_error"}}, "server_error", 502),
        (400, {"error": {"message": "temperature must be < 2"}}, "bad_request", 400),
        (422, {"detail": [{"msg": "field required"}]}, "bad_request", 422),
    ],
)
def test_error_answers_are_classified(status: int, body: Any, fault: str, told: int) -> None:
    error = said(status, body)
    assert (error.fault.value, error.status) == (fault, told)
    assert error.upstream_status == status
    assert error.message


@pytest.mark.parametrize(
    ("status", "kind", "fault"),
    [
        (529, "overloaded_error", Fault.OVERLOADED),
        (429, "rate_limit_error", Fault.RATE_LIMITED),
        (401, "authentication_error", Fault.AUTH),
        (404, "not_found_error", Fault.NOT_FOUND),
        (500, "api_error", Fault.SERVER_ERROR),
        (400, "invalid_request_error", Fault.BAD_REQUEST),
    ],
)
def test_anthropic_errors_are_classified(status: int, kind: str, fault: Fault) -> None:
    body = {"type": "error", "error": {"type": kind, "message": "so it is"}}
    assert said(status, body, "anthropic_messages").fault is fault


def test_an_empty_purse_at_anthropic_is_billing() -> None:
    message = "Your credit balance is too low to access the Anthropic API."
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    assert said(400, body, "anthropic_messages").fault is Fault.BILLING


@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b"\xff\xfe", b"[]", b"[" * 90_000])
def test_foreign_error_bodies_still_say_something(body: bytes) -> None:
    error = CHAT.upstream_error(502, (), body, "home/m")
    assert error.fault is Fault.SERVER_ERROR
    assert "html" not in error.message
    assert error.message


def test_an_error_event_inside_a_messages_stream_has_its_status() -> None:
    scanner = MESSAGES.scanner()
    data = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    assert scanner.feed(b"event: error\ndata: " + data + b"\n\n") == b""
    assert scanner.failure is not None
    assert scanner.failure.status == 529
    assert from_failure(scanner.failure, "c").fault is Fault.OVERLOADED


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([(b"retry-after", b"3")], 3.0),
        ([(b"Retry-After", b"1.5")], 1.5),
        ([(b"retry-after-ms", b"250"), (b"retry-after", b"9")], 0.25),
        ([(b"retry-after", b"Fri, 31 Dec 1999 23:59:59 GMT")], 0.0),
        ([(b"retry-after", b"Thu, 01 Jan 1970 00:02:00 GMT")], 20.0),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"nan")], None),
        ([(b"retry-after", b"-4")], None),
        ([], None),
    ],
)
def test_c50_retry_after_is_read_in_all_spellings(
    headers: list[tuple[bytes, bytes]], seconds: float | None
) -> None:
    now_s = 100.0 if headers and b"1970" in headers[0][1] else None
    assert read_retry_after(headers, now_s=now_s) == seconds


def test_c50_retry_after_is_passed_on() -> None:
    error = CHAT.upstream_error(429, [(b"retry-after-ms", b"1200")], b"{}", "b")
    assert error.retry_after_s == 1.2
    assert dict(error_headers(error)) == {
        b"x-should-retry": b"true",
        b"retry-after": b"2",
        b"retry-after-ms": b"1200",
    }


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (RequestError("no"), b"false"),
        (Overloaded("full", retry_after_s=1), b"true"),
        (NoCandidate("none", excluded={}), b"false"),
        (UpstreamError("x", fault=Fault.SERVER_ERROR), b"true"),
        (UpstreamError("x", fault=Fault.BILLING), b"false"),
        (UpstreamError("x", fault=Fault.CONTEXT_OVERFLOW), b"false"),
    ],
)
def test_c51_x_should_retry_tells_the_sdk(error: Any, retry: bytes) -> None:
    assert dict(error_headers(error))[b"x-should-retry"] == retry


@pytest.mark.parametrize("name", ["openai_chat", "openai_responses", "openai_embeddings"])
def test_openai_error_bodies_hold_all_four_fields(name: str) -> None:
    error = RequestError("n: expected at least 1, got 0", param="n")
    body = json.loads(FORMATS[name].error_body(error, "req-1"))["error"]
    assert body["message"] == "n: expected at least 1, got 0"
    assert (body["type"], body["param"], body["code"]) == ("invalid_request_error", "n", None)


def test_anthropic_error_bodies_have_their_own_shape() -> None:
    error = UpstreamError("later", fault=Fault.RATE_LIMITED, status=429)
    assert json.loads(MESSAGES.error_body(error, "req-1")) == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "later"},
        "request_id": "req-1",
    }


def test_nothing_allowed_is_not_told_as_overload() -> None:
    error = NoCandidate("nothing is allowed: cloud (label health)", excluded={})
    body = json.loads(MESSAGES.error_body(error))
    assert (error.status, body["error"]["type"]) == (503, "api_error")


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (503, "server_error")]
)
def test_a_refusal_by_policy_has_the_type_of_its_status(status: int, kind: str) -> None:
    error = NoCandidate("nothing is allowed", excluded={}, status=status)
    body = json.loads(CHAT.error_body(error, "req-1"))["error"]
    assert (body["type"], body["code"]) == (kind, "no_candidate")


SECRETS = [
    "sk-proj-abcDEF123456_7890",
    "sk-ant-api03-AAAAbbbbCCCC",
    "sk-abc***************wxyz",
    "xai-AbCdEf0123456789",
    "gsk_AbCdEf0123456789",
    "AIzaSyA-1234567890abcdefghij",
    "hf_AbCdEfGhIjKlMnOp",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig-nature",
    "0123456789abcdef0123456789abcdef",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "around",
    [
        "Incorrect API key provided: {}. Find yours at https://example.com.",
        "header Authorization: Bearer {} refused",
        "GET https://api.example.com/v1?key={}&alt=json failed",
        '{{"api_key": "{}"}}',
    ],
)
def test_c104_secrets_are_removed_from_error_text(secret: str, around: str) -> None:
    text = redact(around.format(secret))
    assert secret not in text
    assert "[redacted]" in text


@pytest.mark.parametrize(
    "text",
    [
        "Bearer opaque-token-123456",
        "https://user:pa55word@proxy.example.com/x",
        "password=hunter2hunter2",
        "x-api-key: abcdef123456",
    ],
)
def test_c104_unnamed_secrets_are_removed_where_they_stand(text: str) -> None:
    assert "[redacted]" in redact(text)


def test_c104_ordinary_words_stay() -> None:
    text = "This model's maximum context length is 4096 tokens; max_tokens: 2000 is too large."
    assert redact(text) == text
    assert len(redact("word " * 2_000)) == MAX_MESSAGE_CHARS + 1


def test_c104_error_answers_and_stream_errors_are_redacted() -> None:
    body = {"error": {"message": "Incorrect API key provided: sk-live-abcdef123456"}}
    error = said(401, body)
    assert "abcdef123456" not in error.message
    assert b"abcdef123456" not in error.body
    scanner = CHAT.scanner()
    scanner.feed(b"data: " + json.dumps(body).encode() + b"\n\n")
    assert isinstance(scanner.failure, Failure)
    assert "abcdef123456" not in scanner.failure.message


CHAT_USAGE: list[tuple[str, dict[str, Any], Usage]] = [
    (
        "openai",
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 7,
                "total_tokens": 17,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0},
            }
        },
        Usage(
            input_tokens=10,
            output_tokens=7,
            cache_read_tokens=4,
            reasoning_tokens=5,
            input_audio_tokens=0,
            output_audio_tokens=0,
        ),
    ),
    (
        "vllm",
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 7,
                "total_tokens": 17,
                "prompt_tokens_details": None,
            }
        },
        Usage(input_tokens=10, output_tokens=7),
    ),
    (
        "deepseek",
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 7,
                "total_tokens": 17,
                "prompt_cache_hit_tokens": 6,
                "prompt_cache_miss_tokens": 4,
                "completion_tokens_details": {"reasoning_tokens": 2},
            }
        },
        Usage(input_tokens=10, output_tokens=7, cache_read_tokens=6, reasoning_tokens=2),
    ),
    (
        "gemini counts thoughts in the total only",
        {"usage": {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 40}},
        Usage(input_tokens=10, output_tokens=30, reasoning_tokens=23),
    ),
    (
        "xai counts reasoning beside the completion",
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 7,
                "total_tokens": 40,
                "completion_tokens_details": {"reasoning_tokens": 23},
            }
        },
        Usage(input_tokens=10, output_tokens=30, reasoning_tokens=23),
    ),
    (
        "llama.cpp",
        {
            "usage": {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17},
            "timings": {"prompt_n": 3, "cache_n": 7, "predicted_n": 7, "predicted_ms": 1.5},
        },
        Usage(input_tokens=10, output_tokens=7, cache_read_tokens=7),
    ),
    (
        "llama.cpp timings alone",
        {"timings": {"prompt_n": 3, "cache_n": 7, "predicted_n": 7}},
        Usage(input_tokens=10, output_tokens=7, cache_read_tokens=7),
    ),
    (
        "moonshot",
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 7,
                "total_tokens": 17,
                "cached_tokens": 8,
            }
        },
        Usage(input_tokens=10, output_tokens=7, cache_read_tokens=8),
    ),
    (
        "groq",
        {"x_groq": {"usage": {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}}},
        Usage(input_tokens=10, output_tokens=7),
    ),
]


@pytest.mark.parametrize(("provider", "body", "usage"), CHAT_USAGE, ids=lambda v: str(v)[:20])
def test_c64_chat_usage_shapes_have_one_meaning(
    provider: str, body: dict[str, Any], usage: Usage
) -> None:
    assert CHAT.usage(json.dumps(body).encode()) == usage
    assert (usage.cache_read_tokens or 0) <= (usage.input_tokens or 0)
    assert (usage.reasoning_tokens or 0) <= (usage.output_tokens or 0)


def test_c64_anthropic_input_includes_its_cache_here() -> None:
    usage = {
        "input_tokens": 5,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    assert MESSAGES.usage(json.dumps({"usage": usage}).encode()) == Usage(
        input_tokens=125,
        output_tokens=9,
        cache_read_tokens=100,
        cache_write_tokens=20,
        reasoning_tokens=4,
    )


def test_c64_responses_usage_is_read() -> None:
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 5},
    }
    assert RESPONSES.usage(json.dumps({"usage": usage}).encode()) == Usage(
        input_tokens=10, output_tokens=7, cache_read_tokens=4, reasoning_tokens=5
    )


def test_c64_embeddings_generate_nothing() -> None:
    body = b'{"usage":{"prompt_tokens":6,"total_tokens":6}}'
    assert EMBEDDINGS.usage(body) == Usage(input_tokens=6, output_tokens=0)


def test_c67_zero_is_not_missing() -> None:
    zero = CHAT.usage(b'{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}')
    assert zero == Usage(input_tokens=0, output_tokens=0)
    assert not zero.missing
    for silent in (b"{}", b'{"usage":null}', b'{"usage":"x"}', b"not json"):
        assert CHAT.usage(silent) is None
    empty = CHAT.usage(b'{"usage":{}}')
    assert empty is not None
    assert empty.missing
