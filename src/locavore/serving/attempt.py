"""One try at one backend: its slot, its bytes, its line in the record.

It is the `Receiver` of the upstream's answer and tells its `Owner` what came of it. A stream is
relayed from its first content on; before that it is held, so that a failing attempt can still be
replaced. A whole answer is collected. One object per try, because nothing of a try before it may
be left over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from locavore.core.errors import (
    Fault,
    LocavoreError,
    Overloaded,
    RequestError,
    UpstreamError,
)
from locavore.core.events import Failure
from locavore.core.outcome import Attempt as AttemptRecord
from locavore.serving import upstream_errors
from locavore.serving.record import LATE, SHADOW, attempt_record

if TYPE_CHECKING:
    from locavore.core.backend import Backend
    from locavore.core.money import Usage
    from locavore.core.ports import Call, Headers, StreamScanner
    from locavore.core.request import Request
    from locavore.serving.admission import Gate
    from locavore.serving.outgoing import Outgoing
    from locavore.serving.pipeline import Pipeline
    from locavore.serving.snapshot import Limits, Target
    from locavore.serving.state import State


class Owner(Protocol):
    """Who wanted the attempt. It ends with exactly one of the last four."""

    def on_content(self, data: bytes) -> None:
        """The first content of a stream, with what came before it."""
        ...

    def on_piece(self, data: bytes) -> None:
        """More of a stream."""
        ...

    def on_refused(self, error: LocavoreError) -> None:
        """Nothing was sent: no slot is free, or the request has no form there."""
        ...

    def on_whole(self, body: bytes) -> None:
        """An answer that is not streamed; status 2xx."""
        ...

    def on_stream_end(self, data: bytes) -> None:
        """The dialect's end, with the last bytes for the client."""
        ...

    def on_failed(self, error: UpstreamError) -> None: ...


class Attempt(msgspec.Struct, eq=False):
    """A try that waits for its slot, or runs. Made once a call: a struct, at a quarter of the cost
    of a class."""

    owner: Owner | None
    _pipeline: Pipeline
    _state: State
    request: Request
    """Its `stream` says how the answer is read."""
    backend: Backend
    target: Target
    id: str
    kind: str
    _client_headers: Headers
    _made: tuple[Outgoing, bytes] | None = None
    """What to send, where it is not simply the request in the backend's format."""
    _gate: Gate | None = None
    _upstream: Call | None = None
    outgoing: Outgoing | None = None
    stream: StreamScanner | None = None
    sent: bool = False
    over: bool = False
    """Its record was made; whatever still comes is not for us."""
    delivering: bool = False
    """Content came: from here on no other attempt may replace this one."""
    status: int | None = None
    started_s: float = 0.0
    started_mono_s: float = 0.0
    ttft_s: float | None = None
    headers: Headers = ()
    received_bytes: int = 0
    _queued_s: float = 0.0
    _trickle_from: tuple[float, int] = (0.0, 0)
    _ok: bool = False
    _collecting: bool = True
    _held: list[bytes] = []
    _buffer: list[bytes] = []
    _buffered_bytes: int = 0

    @property
    def events(self) -> int:
        """Server-sent events of the answer: with no usage, the best estimate of its tokens."""
        return self.stream.events if self.stream is not None else 0

    # -- from its slot to its end -------------------------------------------------------------

    def enter(self) -> None:
        """Send now, or when the backend has a free slot."""
        target = self.target
        if target.max_concurrency is None:
            self._send()
            return
        gate = self._gate = self._pipeline.admission.gate(target.name, target.max_concurrency)
        self._queued_s = self._pipeline.mono()
        try:
            gate.enter(self._send)
        except Overloaded as error:
            self._gate = None
            self._refuse(error)

    def _send(self) -> None:
        pipeline, state, request = self._pipeline, self._state, self.request
        try:
            way, body = self._made or state.ways.outgoing(request, self.backend)
        except RequestError as error:
            self._refuse(error)
            return
        self.outgoing = way
        if request.stream:
            self.stream = way.stream()
        self.sent = True
        self.started_s = pipeline.clock()
        started_mono_s = self.started_mono_s = pipeline.mono()
        self._trickle_from = (started_mono_s, 0)
        target = self.target
        pipeline.breakers.start(target.name)
        self._upstream = state.engine(target).send(
            way.path,
            body,
            self,
            timeouts=state.timeouts_for(target),
            headers=way.headers(self._client_headers),
        )

    def _refuse(self, error: LocavoreError) -> None:
        owner = self.owner
        self._leave()
        if owner is not None:
            owner.on_refused(error)

    def finish(self, usage: Usage | None, error: UpstreamError | None = None) -> AttemptRecord:
        """It is over: its line in the record. The breakers learn how it went, but not from a
        shadow: what no client waits for changes nothing for clients (C114)."""
        self._leave()
        pipeline = self._pipeline
        if self.kind == SHADOW:
            pipeline.breakers.abandoned(self.target.name)
            fault, message = (error.fault.value, error.message) if error else (None, None)
            return attempt_record(self, pipeline.mono(), usage, fault=fault, message=message)
        if error is None:
            pipeline.breakers.success(self.target.name)
            pipeline.used.add(self.backend.id)
            return attempt_record(self, pipeline.mono(), usage)
        now_s = pipeline.mono()
        pipeline.breakers.failure(
            self.target.name,
            error.fault,
            now_s,
            local=self.backend.place.local,
            retry_after_s=error.retry_after_s,
        )
        return attempt_record(self, now_s, usage, fault=error.fault.value, message=error.message)

    def abandon(self, usage: Usage | None, fault: str | None = None) -> AttemptRecord:
        """Nobody waits for it any more, which says nothing about the backend."""
        self.drop()
        self._leave()
        breakers, now_s = self._pipeline.breakers, self._pipeline.mono()
        breakers.abandoned(self.target.name)
        if fault == LATE:
            breakers.late(self.target.name, now_s)
        return attempt_record(self, now_s, usage, fault=fault)

    def withdraw(self) -> None:
        """Give up a place in the queue; nothing was sent."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.withdraw(self._send)
        self._leave()

    def _leave(self) -> None:
        self.over = True
        self.owner = None  # they know each other: without this, every call were the collector's
        self._upstream = None
        gate = self._gate
        if gate is not None:
            self._gate = None
            gate.leave()

    def drop(self) -> None:
        """Take nothing more from the upstream."""
        call, self._upstream = self._upstream, None
        if call is not None:
            call.cancel()

    def pause(self) -> None:
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    # -- the upstream's answer (Receiver) -----------------------------------------------------

    def on_head(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        self._ok = ok = 200 <= status < 300
        self._collecting = not (ok and self.request.stream and not _is_json(headers))

    def on_answer(self, status: int, headers: Headers, body: bytes) -> None:
        owner = self.owner
        whole = 200 <= status < 300 and not self.request.stream
        if owner is None or not whole or len(body) > self._state.snapshot.limits.answer_bytes:
            self.on_head(status, headers)
            self.on_body(body)
            self.on_end()
            return
        self.status = status
        self.headers = headers
        self.received_bytes = len(body)
        self.ttft_s = self._pipeline.mono() - self.started_mono_s
        owner.on_whole(body)

    def on_body(self, data: bytes) -> None:
        if self.over:
            return
        self.received_bytes += len(data)
        if self._collecting:
            self._collect(data)
        else:
            self._relay(data)

    def on_end(self) -> None:
        owner = self.owner
        if owner is None:
            return
        if not self._ok:
            owner.on_failed(upstream_errors.of_status(self, b"".join(self._buffer)))
        elif not self._collecting:
            self._stream_closed(owner)
        elif self.request.stream:
            owner.on_failed(upstream_errors.of_json_for_stream(self, b"".join(self._buffer)))
        else:
            buffer = self._buffer
            if self.ttft_s is None:
                self.ttft_s = self._pipeline.mono() - self.started_mono_s
            owner.on_whole(buffer[0] if len(buffer) == 1 else b"".join(buffer))

    def on_failure(self, error: UpstreamError) -> None:
        owner = self.owner
        if owner is None:
            return
        if not error.backend_id:  # the pool knows an address, clients know a name
            error.backend_id = self.backend.id
            error.message = f"{self.backend.id} at {error.message}"
        owner.on_failed(error)

    def _collect(self, data: bytes) -> None:
        self._buffer.append(data)
        self._buffered_bytes += len(data)
        limits = self._state.snapshot.limits
        limit = limits.answer_bytes if self._ok else limits.error_bytes
        if self._buffered_bytes > limit:
            self.drop()
            self._fail(f"answered with more than {limit} bytes", Fault.PROTOCOL)

    def _relay(self, data: bytes) -> None:
        stream, owner = self.stream, self.owner
        assert stream is not None and owner is not None  # noqa: S101 - a running streaming attempt
        try:
            out = stream.feed(data)
        except (msgspec.DecodeError, ValueError) as error:
            self.drop()
            owner.on_failed(upstream_errors.of_protocol(self.backend.id, error))
            return
        if not self.delivering:
            if stream.failure is None and not stream.content_started and not stream.ended:
                if out:
                    self._held.append(out)
                return
            if stream.failure is None:
                out = self._begin(owner, out, whole=stream.ended)
        if stream.failure is not None:
            self._broken(owner, stream.failure, out)
        elif stream.ended:
            owner.on_stream_end(out)
        elif out:
            owner.on_piece(out)

    def _begin(self, owner: Owner, out: bytes, *, whole: bool = False) -> bytes:
        """Content has come; what is still to be sent: with `whole`, all of it in the last write."""
        if self.ttft_s is None:
            self.ttft_s = self._pipeline.mono() - self.started_mono_s
        self.delivering = True
        out = b"".join((*self._held, out))
        self._held.clear()
        owner.on_content(b"" if whole else out)
        return out if whole else b""

    def _stream_closed(self, owner: Owner) -> None:
        stream = self.stream
        assert stream is not None  # noqa: S101 - streaming attempt
        failure = stream.close()
        if failure is not None:
            self._broken(owner, failure, b"", fault=Fault.TRUNCATED)
            return
        out = stream.trailer
        if not self.delivering:
            out = self._begin(owner, out, whole=True)
        owner.on_stream_end(out)

    def _broken(
        self, owner: Owner, failure: Failure, out: bytes, fault: Fault | None = None
    ) -> None:
        self.drop()
        if out and self.delivering:
            owner.on_piece(out)
        owner.on_failed(upstream_errors.of_failure(self.backend.id, failure, fault))

    # -- time ---------------------------------------------------------------------------------

    def tick(self, now_s: float, limits: Limits) -> None:
        """About once a second: not for ever in a queue (C84), nor at a trickle (C09)."""
        if not self.sent:
            self._waited(now_s, limits.queue_timeout_s)
        elif self.delivering:
            self._trickled(now_s, limits)

    def _waited(self, now_s: float, limit_s: float) -> None:
        gate, owner = self._gate, self.owner
        if gate is None or owner is None or now_s - self._queued_s < limit_s:
            return
        self.withdraw()
        owner.on_refused(
            Overloaded(
                f"waited {limit_s:g} s for a free slot of {self.backend.id}",
                code="queue_timeout",
                retry_after_s=limit_s,
            )
        )

    def _trickled(self, now_s: float, limits: Limits) -> None:
        since_s, seen_bytes = self._trickle_from
        if now_s - since_s < limits.trickle_s:
            return
        if self.received_bytes - seen_bytes < limits.trickle_bytes:
            self.drop()
            self._fail(
                f"sent less than {limits.trickle_bytes} bytes in {limits.trickle_s:.0f} s",
                Fault.STALLED,
            )
        self._trickle_from = (now_s, self.received_bytes)

    # -- errors -------------------------------------------------------------------------------

    def _fail(self, what: str, fault: Fault) -> None:
        id_ = self.backend.id
        if self.owner is not None:
            self.owner.on_failed(UpstreamError(f"{id_} {what}", fault=fault, backend_id=id_))


def _is_json(headers: Headers) -> bool:
    return any(name == b"content-type" and b"json" in value for name, value in headers)
