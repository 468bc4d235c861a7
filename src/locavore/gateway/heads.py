"""Status lines and header lines as bytes."""

from http import HTTPStatus

import msgspec

from locavore.core.ports import Headers

STATUS_LINES: dict[int, bytes] = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


def status_line(status: int) -> bytes:
    """Also for codes that have no registered phrase, such as Anthropic's 529."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def header_lines(headers: Headers) -> bytes:
    """`name: value` lines; a line break inside a name or value raises ValueError."""
    block = b"".join([b"%b: %b\r\n" % pair for pair in headers])
    if block.count(b"\n") != len(headers) or block.count(b"\r") != len(headers):
        raise ValueError(f"a header name or value holds a line break: {headers!r}")
    return block


def error_body(status: int, code: str, message: str) -> bytes:
    """OpenAI's error shape, for errors raised before any handler exists."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return msgspec.json.encode({"error": error})
