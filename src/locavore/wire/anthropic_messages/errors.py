"""Anthropic's error object, both ways."""

from typing import Any

import msgspec

from locavore.core.errors import LocavoreError, NoCandidate, UpstreamError
from locavore.core.events import Failure
from locavore.wire.decoding import encode
from locavore.wire.faults import ErrorFacts, Headers, to_error
from locavore.wire.openai_chat.errors import read_error as read_any_error

# Source: Anthropic API reference, "Errors".
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_type(status: int) -> str:
    if status in _TYPES:
        return _TYPES[status]
    return "invalid_request_error" if 400 <= status < 500 else "api_error"


def error_body(error: LocavoreError, request_id: str = "") -> bytes:
    fields = error_fields(error.message, error.status)
    if isinstance(error, NoCandidate) and error.status >= 500:
        fields["error"]["type"] = "api_error"  # nothing is overloaded: nothing is allowed
    if request_id:
        fields["request_id"] = request_id
    return encode(fields)


def error_fields(message: str, status: int) -> dict[str, Any]:
    return {"type": "error", "error": {"type": error_type(status), "message": message}}


def failure_fields(failure: Failure) -> dict[str, Any]:
    return error_fields(failure.message, failure.status)


def upstream_error(status: int, headers: Headers, body: bytes, backend_id: str) -> UpstreamError:
    """Classify an error answer of a server that speaks messages."""
    return to_error(status, headers, read_error(body), body, backend_id)


_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def read_error(body: bytes) -> ErrorFacts:
    """Like OpenAI's, plus the status that Anthropic's type stands for."""
    facts = read_any_error(body)
    if facts.status is None and facts.type in _STATUS:
        return msgspec.structs.replace(facts, status=_STATUS[facts.type])
    return facts
