"""What a call sends its client: head lines, the opening of a stream, errors in its own protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from locavore.serving import replying
from locavore.serving.watching import Copying
from locavore.wire.formats import FORMATS

if TYPE_CHECKING:
    from decimal import Decimal

    from locavore.core.backend import Backend
    from locavore.core.decision import Decision
    from locavore.core.errors import LocavoreError
    from locavore.core.outcome import Attempt as AttemptRecord
    from locavore.core.ports import Headers
    from locavore.core.request import Request
    from locavore.serving.attempt import Attempt
    from locavore.serving.client import Reply
    from locavore.serving.state import State


class ClientReply:
    """The client's half of `serving.call.ServedCall`, which owns these fields."""

    __slots__ = (
        "_attempt",
        "_attempts",
        "_copy",
        "_head_sent",
        "_limit_headers",
        "_reply",
        "_state",
        "backend",
        "decision",
        "request",
    )
    request: Request
    decision: Decision
    backend: Backend
    """Who is asked now, or who answered."""
    _state: State
    _reply: Reply
    _copy: Copying | None
    """What the client was sent, where somebody looks at that."""
    _head_sent: bool
    _limit_headers: Headers
    _attempt: Attempt | None
    """The one that waits or runs, or the last one that did."""
    _attempts: list[AttemptRecord]

    def _copied(self) -> None:
        if self._copy is None:
            self._reply = self._copy = Copying(self._reply, self.request)

    def _reply_lines(self, content_type: bytes, cost_usd: Decimal | None = None) -> bytes:
        state, backend, attempt = self._state, self.backend, self._attempt
        key = (self.request.format, backend.id, content_type)
        head = state.reply_heads.get(key)
        if head is None:
            head = replying.reply_head(self.request.format, backend, content_type)
            state.remember_head(key, head)
        running = attempt is not None and attempt.sent and not attempt.over
        return replying.reply_lines(
            head,
            self.decision.id,
            attempts=len(self._attempts) + running,
            cost_usd=cost_usd,
            more=self._more_headers(),
        )

    def _more_headers(self) -> Headers:
        attempt = self._attempt
        more = self._limit_headers
        if attempt is not None and not more:
            more = self._state.limits_told(attempt.headers)
        if self.decision.explored is not None:
            more = [*more, (b"x-locavore-explored", b"true")]
        if attempt is None or attempt.outgoing is None or not attempt.outgoing.dropped:
            return more
        dropped = replying.header_value(", ".join(attempt.outgoing.dropped))
        return [*more, (b"x-locavore-dropped", dropped)]

    def _open(self) -> None:
        if not self._head_sent:
            self._head_sent = True
            self._reply.start(200, self._reply_lines(replying.STREAM_TYPE))

    def _respond_error(self, error: LocavoreError) -> None:
        attempt = self._attempt
        passed = attempt.outgoing if attempt is not None else None
        status, headers, body = replying.error(error, self.request, self.decision.id, passed=passed)
        if attempt is not None:
            headers += replying.forwarded_limits(attempt.headers)
        self._reply.respond(status, headers, body)

    def _stream_failure(self, error: LocavoreError) -> bytes:
        attempt = self._attempt
        writer = getattr(attempt.stream, "writer", None) if attempt is not None else None
        if writer is None:
            writer = FORMATS[self.request.format].stream_writer(self.request)
        data: bytes = writer.write(replying.as_failure(error))
        return data
