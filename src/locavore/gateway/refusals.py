"""Requests that are refused before any handler sees them."""

import logging

from httptools import HttpParserCallbackError

log = logging.getLogger("locavore.gateway")


class Refusal(Exception):
    """The request is refused before any handler; the connection ends with it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def refusal_of(error: HttpParserCallbackError) -> Refusal:
    """What a callback raised inside the parser."""
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    log.error("a parser callback failed", exc_info=error)
    return Refusal(400, "bad_http", "Malformed HTTP.")


def too_large(limit: int) -> Refusal:
    return Refusal(413, "body_too_large", f"The body is larger than {limit} bytes.")


def too_long(headers: list[tuple[bytes, bytes]], target_limit: int) -> Refusal:
    if not headers:
        return Refusal(
            414, "target_too_long", f"The request line is longer than {target_limit} bytes."
        )
    return Refusal(431, "headers_too_large", "The request's headers are too large.")
