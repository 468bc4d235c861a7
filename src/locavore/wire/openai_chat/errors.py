"""OpenAI's error object, both ways. vLLM, SGLang, llama.cpp, Ollama, TGI and LM Studio vary it."""

from typing import Any

import msgspec

from locavore.core.errors import LocavoreError, NoCandidate, UpstreamError
from locavore.core.events import Failure
from locavore.wire.decoding import encode, json_text
from locavore.wire.faults import ErrorFacts, Headers, to_error

# Types the OpenAI SDKs and their users know; ours otherwise pass as they are.
_TYPES = {"upstream_error": "server_error", "no_candidate": "server_error"}
_STATUS_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


def error_body(error: LocavoreError, request_id: str = "") -> bytes:
    """The JSON of an error answer; `param` and `code` are there even when null."""
    return encode({"error": error_fields(error, request_id)})


def error_fields(error: LocavoreError, request_id: str = "") -> dict[str, Any]:
    kind = _STATUS_TYPES.get(error.status) or _TYPES.get(error.type, error.type)
    ours = isinstance(error, UpstreamError | NoCandidate)
    if ours and 400 <= error.status < 500 and error.status != 429:
        kind = "invalid_request_error"
    fields: dict[str, Any] = {
        "message": error.message,
        "type": kind,
        "param": error.param,
        "code": error.code,
    }
    if request_id:
        fields["request_id"] = request_id
    return fields


def failure_fields(failure: Failure) -> dict[str, Any]:
    kind = failure.type or "server_error"
    return {
        "message": failure.message,
        "type": _TYPES.get(kind, kind),
        "param": None,
        "code": failure.code,
    }


def upstream_error(status: int, headers: Headers, body: bytes, backend_id: str) -> UpstreamError:
    """Classify an error answer of an OpenAI-compatible server."""
    return to_error(status, headers, read_error(body), body, backend_id)


def read_error(body: bytes) -> ErrorFacts:
    """Facts of an error body of any shape; the text itself when it is not JSON."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ErrorFacts(message=_plain_text(body))
    if isinstance(value, list) and value:  # Gemini's compatible endpoint wraps errors in a list
        value = value[0]
    if isinstance(value, dict):
        return facts_of(value.get("error", value), value)
    return ErrorFacts(message=str(value))


def _plain_text(body: bytes) -> str:
    text = body[:4_000].decode("utf-8", "replace").strip()
    return "" if text.startswith("<") else text  # an HTML page of some proxy says nothing


def facts_of(error: Any, around: dict[str, Any] | None = None) -> ErrorFacts:
    """`error` as an object (OpenAI), a text (Ollama, TGI) or missing (vLLM, Mistral: flat)."""
    if isinstance(error, str):
        around = around or {}
        kind = around.get("error_type")  # TGI
        return ErrorFacts(message=error, type=kind if isinstance(kind, str) else None)
    if not isinstance(error, dict):
        return ErrorFacts(message="" if error is None else str(error))
    code = error.get("code")
    number = code if isinstance(code, int) and not isinstance(code, bool) else None
    return ErrorFacts(
        message=_message(error),
        code=code if isinstance(code, str) else None,
        type=_optional(error.get("type")) or _optional(error.get("status")),
        param=_optional(error.get("param")),
        status=number if number is not None and 400 <= number < 600 else None,
    )


def _message(error: dict[str, Any]) -> str:
    for name in ("message", "detail", "error", "msg"):
        value = error.get(name)
        if isinstance(value, str) and value:
            return value
        if value:
            return json_text(value)
    return ""


def _optional(value: Any) -> str | None:
    return value if isinstance(value, str) else None
