"""Whose fault it was, the facts, and whether trying elsewhere can help.

    LocavoreError
    ├── ConfigError         the operator's: a file, a flag or an environment variable
    ├── RequestError        the client's: this request cannot be served as it stands
    │   └── Unauthorized
    ├── OverLimit           the caller's budget or rate limit is used up
    ├── NoCandidate         nothing allowed is left; names each excluder
    ├── Overloaded          ours: queues are full or we are shutting down
    ├── UpstreamError       an engine's or a provider's
    └── StoreError          the ledger's or the limiter's

`status`, `code` and `param` are what a client of either protocol is told; the wire formats
turn an error into bytes.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from locavore.core.decision import Decision


class LocavoreError(Exception):
    """Root of everything Locavore raises on purpose."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    elsewhere_may_help: bool = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s


class ConfigError(LocavoreError):
    """One or several problems of the configuration, each naming file, key and value."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems), code="config_invalid")
        self.problems = problems


class RequestError(LocavoreError):
    """The request cannot be served as it stands; another backend would not help."""

    status = 400
    type = "invalid_request_error"


class Unauthorized(RequestError):
    """No key, or a wrong one."""

    status = 401
    type = "authentication_error"


class OverLimit(LocavoreError):
    """A budget or a rate limit of the caller's is used up, or cannot be looked up just now."""

    status = 429
    type = "rate_limit_error"


class NoCandidate(LocavoreError):
    """Nothing that is allowed can serve this request. Fail closed."""

    status = 503
    type = "no_candidate"

    def __init__(
        self, message: str, *, excluded: dict[str, tuple[str, ...]], status: int = 503
    ) -> None:
        super().__init__(message, status=status, code="no_candidate")
        self.decision: Decision | None = None
        """The whole account, for the ledger."""
        self.excluded = excluded
        """backend id -> the reasons that exclude it, as `decide` gave them."""


class Overloaded(LocavoreError):
    """Queue full or draining: come back after `retry_after_s`."""

    status = 503
    type = "overloaded_error"


class Fault(StrEnum):
    """What went wrong upstream, as classes that breakers, retries and records share."""

    CONNECT = "connect"  # refused, unresolved, TLS failure: no byte of ours was accepted
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    STALLED = "stalled"  # bytes stopped, or trickled under the floor
    RESET = "reset"  # connection lost before the answer began
    TRUNCATED = "truncated"  # answer began and never ended properly
    PROTOCOL = "protocol"  # not HTTP, not JSON, not the dialect
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"  # 503, 529
    AUTH = "auth"  # 401, 403: our key for that provider
    BILLING = "billing"  # 402, insufficient_quota
    NOT_FOUND = "not_found"  # the model or path is unknown there
    CONTEXT_OVERFLOW = "context_overflow"
    PROMPT_TRUNCATED = "prompt_truncated"  # status 200, but the engine dropped part of the prompt
    BAD_REQUEST = "bad_request"
    SERVER_ERROR = "server_error"


# Another backend may do better; for BAD_REQUEST the client has to change something.
_ELSEWHERE = frozenset(Fault) - {Fault.BAD_REQUEST}
# The same backend may do better in a moment, and it has not begun work that would be doubled.
_AGAIN = frozenset(
    {Fault.CONNECT, Fault.CONNECT_TIMEOUT, Fault.RATE_LIMITED, Fault.OVERLOADED, Fault.SERVER_ERROR}
)


# What a client is told when the upstream gave no status of its own.
_STATUS = {
    Fault.CONNECT_TIMEOUT: 504,
    Fault.FIRST_BYTE_TIMEOUT: 504,
    Fault.STALLED: 504,
    Fault.RATE_LIMITED: 429,
    Fault.OVERLOADED: 503,
}


class UpstreamError(LocavoreError):
    """An engine or a provider failed; `fault` is the class, `status` what a client is told."""

    status = 502
    type = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        fault: Fault,
        backend_id: str = "",
        status: int | None = None,
        upstream_status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(
            message,
            status=_STATUS.get(fault) if status is None else status,
            code=code,
            param=param,
            retry_after_s=retry_after_s,
        )
        self.fault = fault
        self.backend_id = backend_id
        self.upstream_status = upstream_status
        self.body = body
        """The upstream's own error body, for a client of the same dialect; redacted before use."""
        self.elsewhere_may_help = fault in _ELSEWHERE
        self.again_may_help = fault in _AGAIN


class StoreError(LocavoreError):
    """The ledger or a limit store is locked, full, read-only or gone."""

    status = 503
    type = "store_error"
