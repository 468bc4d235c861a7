"""Error answers of engines and providers -> `core.errors.UpstreamError`.

The status alone misleads: a context overflow is a 400 here and a 500 there, an empty purse is a
429. So the provider's `code` and `type` are read first, then its words, then the status.
"""

import re
from collections.abc import Sequence

import msgspec

from locavore.core.errors import Fault, UpstreamError
from locavore.core.events import Failure
from locavore.wire.redact import redact, redact_body
from locavore.wire.retry import read_retry_after

Headers = Sequence[tuple[bytes, bytes]]


class ErrorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an error body said, in any dialect."""

    message: str = ""
    code: str | None = None
    type: str | None = None
    param: str | None = None
    status: int | None = None
    """A status inside the body (vLLM, llama.cpp: `code: 400`)."""


# Exact words in `code` or `type`. Sources: OpenAI and Anthropic error references; llama.cpp
# `exceed_context_size_error` (tools/server); Mistral, Groq and DeepSeek API references.
NAMED: dict[str, Fault] = {
    "context_length_exceeded": Fault.CONTEXT_OVERFLOW,
    "context_window_exceeded": Fault.CONTEXT_OVERFLOW,
    "exceed_context_size_error": Fault.CONTEXT_OVERFLOW,
    "model_context_window_exceeded": Fault.CONTEXT_OVERFLOW,
    "string_above_max_length": Fault.CONTEXT_OVERFLOW,
    "request_too_large": Fault.CONTEXT_OVERFLOW,
    "insufficient_quota": Fault.BILLING,
    "billing_error": Fault.BILLING,
    "billing_hard_limit_reached": Fault.BILLING,
    "billing_not_active": Fault.BILLING,
    "insufficient_balance": Fault.BILLING,
    "insufficient_credits": Fault.BILLING,
    "rate_limit_exceeded": Fault.RATE_LIMITED,
    "rate_limit_error": Fault.RATE_LIMITED,
    "rate_limited": Fault.RATE_LIMITED,
    "overloaded_error": Fault.OVERLOADED,
    "overloaded": Fault.OVERLOADED,
    "unavailable_error": Fault.OVERLOADED,
    "engine_overloaded": Fault.OVERLOADED,
    "invalid_api_key": Fault.AUTH,
    "authentication_error": Fault.AUTH,
    "permission_error": Fault.AUTH,
    "account_deactivated": Fault.AUTH,
    "model_not_found": Fault.NOT_FOUND,
    "not_found_error": Fault.NOT_FOUND,
    "notfounderror": Fault.NOT_FOUND,
    "timeout_error": Fault.SERVER_ERROR,
    "api_error": Fault.SERVER_ERROR,
    "server_error": Fault.SERVER_ERROR,
    "internal_server_error": Fault.SERVER_ERROR,
}

# Wordings that mean "the prompt does not fit", by engine (C41).
OVERFLOW = re.compile(
    r"""(?ix)
      maximum\ context\ length                        # OpenAI, vLLM, SGLang, Ollama, OpenRouter
    | context\ length\ of\ only                       # vLLM 0.9+, LM Studio
    | max_model_len                                   # vLLM
    | longer\ than\ the\ (?:maximum\ model\ length|model'?s\ context\ length)   # vLLM, SGLang
    | exceeds?\ the\ (?:available\ )?(?:model'?s\ )?(?:maximum\ )?context       # llama.cpp, Ollama
    | (?:exceeds?|exceeding|larger\ than)\ (?:the\ )?(?:model'?s\ )?(?:max(?:imum)?\ )?
        (?:context|prompt)\ (?:size|window|length)
    | prompt\ is\ too\ long                           # Anthropic; llama.cpp before 2025
    | input\ is\ too\ long                            # Bedrock; llama.cpp embeddings
    | input\ (?:tokens\ )?(?:exceeds|is\ too\ large\ to\ process)   # llama.cpp
    | inputs?`?\ (?:tokens\ \+\ `?max_new_tokens`?\ must\ be|must\ have\ less\ than)     # TGI
    | tokens\ to\ keep\ from\ the\ initial\ prompt\ is\ greater\ than  # LM Studio
    | trying\ to\ keep\ the\ first\ \d+\ tokens       # LM Studio
    | context\ the\ overflows                         # LM Studio, in its own spelling
    | reached\ context\ length                        # LM Studio
    | requested\ token\ count\ exceeds                # SGLang
    | exceed(?:s|ed)?\ (?:the\ )?context\ (?:limit|window|length)      # Anthropic, Gemini
    | context\ (?:length|window|size)\ (?:was\ |is\ |has\ been\ )?exceeded  # llama.cpp, in streams
    | maximum\ prompt\ length\ is                     # xAI
    | exceeded\ model\ token\ limit                   # Moonshot
    | too\ many\ tokens\ in                           # Mistral
    | input\ token\ count\ .{0,40}exceeds             # Gemini
    | reduce\ the\ length\ of\ the\ (?:messages|input|prompt)
    """
)
_WORDS: tuple[tuple[re.Pattern[str], Fault], ...] = (
    (OVERFLOW, Fault.CONTEXT_OVERFLOW),
    (
        re.compile(r"(?i)insufficient (?:balance|quota|credit|funds)|credit balance|billing"),
        Fault.BILLING,
    ),
    (re.compile(r"(?i)quota exceeded|exceeded your current quota"), Fault.BILLING),
    (re.compile(r"(?i)rate limit|too many requests"), Fault.RATE_LIMITED),
    (re.compile(r"(?i)overloaded|loading model|at capacity|no slots? available"), Fault.OVERLOADED),
    (re.compile(r"(?i)incorrect api key|invalid api key|unauthorized"), Fault.AUTH),
    (
        re.compile(r"(?i)model\b.{0,80}\b(?:not found|does not exist|not loaded)"),
        Fault.NOT_FOUND,
    ),
)
_STATUS: dict[int, Fault] = {
    401: Fault.AUTH,
    402: Fault.BILLING,
    403: Fault.AUTH,
    404: Fault.NOT_FOUND,
    405: Fault.NOT_FOUND,
    408: Fault.SERVER_ERROR,
    409: Fault.SERVER_ERROR,
    413: Fault.CONTEXT_OVERFLOW,
    425: Fault.SERVER_ERROR,
    429: Fault.RATE_LIMITED,
    503: Fault.OVERLOADED,
    529: Fault.OVERLOADED,
}
# What a client is told: our relation to the upstream is ours, so 401 there is a 502 here.
_TOLD: dict[Fault, int] = {
    Fault.RATE_LIMITED: 429,
    Fault.OVERLOADED: 503,
    Fault.CONTEXT_OVERFLOW: 400,
    Fault.BAD_REQUEST: 400,
    Fault.NOT_FOUND: 502,
    Fault.AUTH: 502,
    Fault.BILLING: 502,
    Fault.SERVER_ERROR: 502,
    Fault.PROTOCOL: 502,
    Fault.TRUNCATED: 502,
}
_CODES: dict[Fault, str] = {
    Fault.CONTEXT_OVERFLOW: "context_length_exceeded",
    Fault.RATE_LIMITED: "rate_limit_exceeded",
}


def classify(status: int, facts: ErrorFacts) -> Fault:
    """The class of an error answer; `status` 0 when there was none (an error inside a stream)."""
    for word in (facts.code, facts.type):
        named = NAMED.get(word.lower()) if word else None
        # `invalid_request_error` and the generic server types leave the words to decide.
        if named is not None and named is not Fault.SERVER_ERROR:
            return named
    if status in (401, 402, 403):  # never a reason to think of the prompt
        return _STATUS[status]
    for pattern, fault in _WORDS:
        if pattern.search(facts.message):
            return fault
    status = status or facts.status or 0
    if status in _STATUS:
        return _STATUS[status]
    return Fault.BAD_REQUEST if 400 <= status < 500 else Fault.SERVER_ERROR


def to_error(
    status: int, headers: Headers, facts: ErrorFacts, body: bytes, backend_id: str
) -> UpstreamError:
    fault = classify(status, facts)
    message = redact(facts.message) or f"{backend_id or 'the upstream'} answered {status}"
    told = _TOLD.get(fault, 502)
    if fault is Fault.BAD_REQUEST and 400 <= status < 500:
        told = status
    return UpstreamError(
        message,
        fault=fault,
        backend_id=backend_id,
        status=told,
        upstream_status=status or None,
        code=_CODES.get(fault) or facts.code,
        param=facts.param,
        retry_after_s=read_retry_after(headers),
        body=redact_body(body),
    )


def from_failure(failure: Failure, backend_id: str) -> UpstreamError:
    """An error inside a stream, as the error it would have been as an answer."""
    if failure.code in (Fault.TRUNCATED, Fault.PROTOCOL):
        fault = Fault(failure.code)
    else:
        facts = ErrorFacts(message=failure.message, code=failure.code, type=failure.type)
        fault = classify(failure.status if failure.status != 502 else 0, facts)
    return UpstreamError(
        redact(failure.message),
        fault=fault,
        backend_id=backend_id,
        status=_TOLD.get(fault, 502),
        code=_CODES.get(fault) or failure.code,
        retry_after_s=failure.retry_after_s,
    )


def to_failure(facts: ErrorFacts) -> Failure:
    """An error object found inside an answer."""
    status = facts.status or _TOLD.get(classify(0, facts), 502)
    message = redact(facts.message) or "the upstream reported an error without a message"
    return Failure(message=message, status=status, code=facts.code, type=facts.type)


def truncated() -> Failure:
    message = "the upstream closed the stream before its end marker"
    return Failure(message=message, code=Fault.TRUNCATED.value, type="upstream_error")


def cut_off(failure: Failure) -> Failure:
    """A last event that makes no sense where the bytes end is half an event."""
    return truncated() if failure.code == Fault.PROTOCOL else failure


def broken(what: str) -> Failure:
    return Failure(message=what, code=Fault.PROTOCOL.value, type="upstream_error")
