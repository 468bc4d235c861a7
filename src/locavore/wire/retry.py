"""`Retry-After` in its three spellings, and the headers that tell an SDK whether to come back.

Source: retry code of openai-python and anthropic-python: they retry 408, 409, 429 and >= 500
unless `x-should-retry` says otherwise, and prefer `retry-after-ms` to `retry-after`.
"""

import math
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

from locavore.core.errors import Fault, LocavoreError, NoCandidate, Overloaded, UpstreamError

MAX_RETRY_AFTER_S = 24 * 3600.0


def read_retry_after(
    headers: Sequence[tuple[bytes, bytes]], *, now_s: float | None = None
) -> float | None:
    """Seconds to wait, or None. Reads `retry-after-ms`, then `retry-after` (seconds or a date)."""
    found = {name.lower(): value for name, value in headers}
    if (milliseconds := _seconds(found.get(b"retry-after-ms"))) is not None:
        return _bounded(milliseconds / 1000)
    value = found.get(b"retry-after")
    if (seconds := _seconds(value)) is not None:
        return _bounded(seconds)
    return _until(value, now_s) if value else None


def _seconds(value: bytes | None) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _until(value: bytes, now_s: float | None) -> float | None:
    try:
        moment = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, TypeError, UnicodeDecodeError):
        return None
    return _bounded(moment.timestamp() - (time.time() if now_s is None else now_s))


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


# The same call would fail again: only the operator or the client can change that.
_FINAL = frozenset(
    {
        Fault.AUTH,
        Fault.BILLING,
        Fault.NOT_FOUND,
        Fault.BAD_REQUEST,
        Fault.CONTEXT_OVERFLOW,
        Fault.PROMPT_TRUNCATED,
    }
)


def should_retry(error: LocavoreError) -> bool:
    """Whether the client's SDK should send the same call again."""
    if isinstance(error, UpstreamError):
        return error.fault not in _FINAL
    if isinstance(error, NoCandidate):
        return error.retry_after_s is not None
    return isinstance(error, Overloaded) or error.status in (408, 409, 429)


def error_headers(error: LocavoreError) -> list[tuple[bytes, bytes]]:
    """`x-should-retry`, and `retry-after` with its millisecond form when a time is known."""
    headers = [(b"x-should-retry", b"true" if should_retry(error) else b"false")]
    if error.retry_after_s is not None:
        whole = max(1, math.ceil(error.retry_after_s))
        headers.append((b"retry-after", b"%d" % whole))
        headers.append((b"retry-after-ms", b"%d" % max(1, math.ceil(error.retry_after_s * 1000))))
    return headers
