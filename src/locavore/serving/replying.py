"""What the client is told: headers, and errors in its own protocol."""

from decimal import Decimal
from urllib.parse import quote

from locavore.core.backend import Backend
from locavore.core.decision import Decision
from locavore.core.errors import LocavoreError, UpstreamError
from locavore.core.events import Failure
from locavore.core.ports import Headers
from locavore.core.request import Request
from locavore.serving.outgoing import Outgoing
from locavore.wire.formats import COUNT_TOKENS, FORMATS
from locavore.wire.retry import error_headers

JSON_TYPE = b"application/json"
STREAM_TYPE = b"text/event-stream; charset=utf-8"

_FORWARDED = (b"x-ratelimit-", b"anthropic-ratelimit-")


def request_id_header(request_format: str) -> bytes:
    """The name under which each protocol's SDK looks for a request id."""
    return b"request-id" if request_format.startswith("anthropic") else b"x-request-id"


def reply_head(request_format: str, backend: Backend | None, content_type: bytes) -> bytes:
    """Header lines of an answer that are the same for every call of a kind.

    `backend` is None where nobody knows yet who will have answered (a stream that is held).
    """
    lines = [b"content-type: " + content_type]
    if backend is not None:
        lines.append(b"x-locavore-model: " + header_value(backend.id))
        lines.append(b"x-locavore-place: " + backend.place.label.encode())
    if content_type is STREAM_TYPE:
        lines.append(b"cache-control: no-cache")
    if backend is not None and backend.is_test:
        lines.append(b"x-locavore-test-model: true")
    # Last, so that the call's own id follows.
    lines.append(request_id_header(request_format) + b": ")
    return b"\r\n".join(lines)


def header_value(text: str) -> bytes:
    """Text from outside as a header value: what is not plain ASCII is percent-encoded."""
    return quote(text, safe="!#$&'()*+,/:;=?@[]~ ").encode()


def reply_lines(
    head: bytes, id_: str, *, attempts: int, cost_usd: Decimal | None, more: Headers = ()
) -> bytes:
    """All header lines of an answer, each with its CRLF. An unknown cost is left out."""
    id_bytes = id_.encode()
    lines = b"%b%b\r\nx-locavore-decision: %b\r\nx-locavore-attempts: %d\r\n" % (
        head,
        id_bytes,
        id_bytes,
        attempts,
    )
    if cost_usd is not None:
        lines += b"x-locavore-cost-usd: %b\r\n" % format(cost_usd, "f").encode()
    for name, value in more:
        lines += b"%b: %b\r\n" % (name, value)
    return lines


def error(
    cause: LocavoreError, request: Request, id_: str, *, passed: Outgoing | None = None
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """(status, headers, body) of an error in the client's protocol.

    The upstream's own body is given to a client that speaks the upstream's dialect.
    """
    return error_for(request.format, cause, id_, own_words=passed is not None and passed.passed)


def error_for(
    request_format: str, cause: LocavoreError, id_: str, *, own_words: bool = False
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """As `error`, also before there is a request."""
    fmt = FORMATS[request_format]
    body, status = b"", cause.status
    if own_words and isinstance(cause, UpstreamError) and cause.body:
        body, status = cause.body, cause.upstream_status or status
    made = [
        (b"content-type", JSON_TYPE),
        (request_id_header(request_format), id_.encode()),
        (b"x-locavore-decision", id_.encode()),
        *error_headers(cause),
    ]
    return status, made, body or fmt.error_body(cause, id_)


def counted(decision: Decision, id_: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Anthropic's `count_tokens` from our own estimate, on its safe side (C36)."""
    tokens = round(decision.facts.input_tokens.high)
    headers = [(b"content-type", JSON_TYPE), (b"request-id", id_.encode())]
    return 200, headers, COUNT_TOKENS.count_body(tokens)


def as_failure(cause: LocavoreError) -> Failure:
    """An error as an event, for a stream that has begun."""
    return Failure(
        message=cause.message,
        status=cause.status,
        code=cause.code,
        type=cause.type,
        retry_after_s=cause.retry_after_s,
    )


def forwarded_limits(headers_: Headers) -> list[tuple[bytes, bytes]]:
    """Rate-limit headers of the upstream; `retry-after` is written by `error_headers` (C50)."""
    return [(name, value) for name, value in headers_ if name.startswith(_FORWARDED)]
