"""What an upstream did wrong, as the error that retries, breakers and clients understand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from locavore.core.backend import Backend
from locavore.core.errors import Fault, UpstreamError
from locavore.core.events import Failure
from locavore.serving.health import CREDENTIAL
from locavore.wire.faults import from_failure

if TYPE_CHECKING:
    from locavore.serving.attempt import Attempt
    from locavore.serving.snapshot import Target


def no_address(backend: Backend) -> UpstreamError:
    return UpstreamError(
        f"no address is configured for {backend.id!r}",
        fault=Fault.CONNECT,
        backend_id=backend.id,
    )


def of_status(attempt: Attempt, body: bytes) -> UpstreamError:
    """An answer with an error status."""
    assert attempt.outgoing is not None  # noqa: S101 - it was sent
    error = attempt.outgoing.format.upstream_error(
        attempt.status or 0, attempt.headers, body, attempt.backend.id
    )
    return credential_error(error, attempt.target) if error.fault in CREDENTIAL else error


def of_failure(backend_id: str, failure: Failure, fault: Fault | None = None) -> UpstreamError:
    """An error inside an answer, as the error it would have been as a status."""
    error = from_failure(failure, backend_id)
    if fault is not None:
        error.fault = fault
    return error


def of_protocol(backend_id: str, cause: Exception) -> UpstreamError:
    return UpstreamError(
        f"{backend_id} sent an answer that is not its dialect: {cause}",
        fault=Fault.PROTOCOL,
        backend_id=backend_id,
    )


def of_json_for_stream(attempt: Attempt, body: bytes) -> UpstreamError:
    """A stream was asked for and a JSON body came: an error object, or an engine's mistake."""
    assert attempt.outgoing is not None  # noqa: S101 - it was sent
    backend_id = attempt.backend.id
    try:
        _, _, failure = attempt.outgoing.whole.read(body)
    except (msgspec.MsgspecError, ValueError) as error:
        return of_protocol(backend_id, error)
    if failure is not None:
        return of_failure(backend_id, failure)
    return of_protocol(backend_id, ValueError("JSON instead of an event stream"))


def credential_error(cause: UpstreamError, target: Target) -> UpstreamError:
    """A refused key is the operator's to mend: the client must not think its own was refused."""
    whence = f"the key in {target.key_variable}" if target.key_variable else "which has no key set"
    return UpstreamError(
        f"the gateway's own credential for {target.name} ({whence}) was refused "
        f"(status {cause.upstream_status}): {cause.message}",
        fault=cause.fault,
        backend_id=cause.backend_id,
        status=502,
        upstream_status=cause.upstream_status,
        code="upstream_credential_refused",
    )
