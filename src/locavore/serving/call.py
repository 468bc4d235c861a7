"""One call from decision to last byte: attempts in turn, at most one answer, exactly one record.

A callback state machine, because a task and its futures would cost more than the whole call
(docs/adr/0001-data-plane.md). It is the `Receiver` of the running attempt and the listener of the
client's connection. The order of things that must not change:

* nothing reaches the client before content has come, so a failing attempt can still be replaced
  without a second start event (C03);
* after content, a failure ends the stream with the protocol's own error (C01, C04);
* the record is in the journal before the last byte leaves.
"""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

import msgspec

from locavore.core.backend import Backend, Capability
from locavore.core.decision import Decision
from locavore.core.errors import (
    Fault,
    LocavoreError,
    Overloaded,
    RequestError,
    StoreError,
    UpstreamError,
)
from locavore.core.events import Failure
from locavore.core.money import Usage
from locavore.core.outcome import Attempt
from locavore.core.ports import Call, Headers, StreamScanner
from locavore.core.request import Request
from locavore.ledger.budgets import Reservation
from locavore.serving import replying, spending
from locavore.serving.admission import Gate
from locavore.serving.health import CREDENTIAL
from locavore.serving.outgoing import Outgoing
from locavore.serving.record import AttemptLog, call_record, estimated_usage, total_cost
from locavore.serving.truncation import truncated_by
from locavore.serving.watching import Copying
from locavore.wire.faults import from_failure
from locavore.wire.formats import FORMATS

if TYPE_CHECKING:
    from locavore.serving.pipeline import Arrival, Pipeline, State

_JSON_NEEDS = frozenset({Capability.JSON_OBJECT.value, Capability.JSON_SCHEMA.value})
CLIENT_LEFT = 499
"""Status in records for a client that left; nginx's convention, never sent."""


class Listener(Protocol):
    """What the client's connection tells the call."""

    def on_disconnect(self) -> None: ...
    def on_pause(self) -> None: ...
    def on_resume(self) -> None: ...


class Reply(Protocol):
    """The client's side: either one `respond`, or `start`, `write`s and a `finish`."""

    listener: Listener | None

    def respond(self, status: int, headers: Headers | bytes, body: bytes) -> None: ...
    def start(self, status: int, headers: Headers | bytes) -> None: ...
    def write(self, data: bytes) -> None: ...
    def finish(self, data: bytes = b"") -> None: ...


class ServedCall:
    """A call in flight."""

    __slots__ = (
        "_arrival",
        "_attempts",
        "_buffer",
        "_buffered_bytes",
        "_call",
        "_collecting",
        "_delivering",
        "_done",
        "_draining",
        "_flags",
        "_gate",
        "_head_sent",
        "_headers",
        "_held",
        "_limit_headers",
        "_limits",
        "_log",
        "_ok",
        "_outgoing",
        "_pipeline",
        "_plan",
        "_position",
        "_queued_s",
        "_reply",
        "_reservation",
        "_retry",
        "_started_mono_s",
        "_state",
        "_stream",
        "_target",
        "_tries",
        "_watched",
        "backend",
        "decision",
        "events",
        "last_out_s",
        "received_bytes",
        "request",
        "trickle_from",
    )

    def __init__(
        self,
        pipeline: Pipeline,
        state: State,
        arrival: Arrival,
        decision: Decision,
        plan: tuple[Backend, ...],
        reservation: Reservation | None,
    ) -> None:
        self._pipeline = pipeline
        self._state = state
        self._arrival = arrival
        self.request: Request = arrival.request
        self._reply: Reply = arrival.reply
        self._started_mono_s = started_mono_s = arrival.started_mono_s
        self.decision = decision
        self._plan = plan
        self.backend = plan[0]
        self._limits = pipeline.limits
        self._reservation = reservation
        self._limit_headers: Headers = ()
        self._attempts: list[Attempt] = []
        self._flags: list[str] = []
        self._position = 0
        self._tries = 0
        self._gate: Gate | None = None
        self._call: Call | None = None
        self._log: AttemptLog | None = None
        self._outgoing: Outgoing | None = None
        self._stream: StreamScanner | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._head_sent = False
        self._delivering = False
        self._draining = False
        self._done = False
        self.last_out_s = started_mono_s
        self.received_bytes = 0
        self.events = 0
        """Server-sent events of the answer: with no usage, the best estimate of its tokens."""
        self.trickle_from = (started_mono_s, 0)
        self._held: list[bytes] = []
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._ok = False
        self._collecting = True
        self._headers: Headers = ()
        self._watched: Copying | None = None

    # -- attempts -----------------------------------------------------------------------------

    def begin(self) -> None:
        watcher = self._pipeline.watcher
        if watcher is not None and watcher.wants(self.request, self.decision):
            self._reply = self._watched = Copying(self._reply, self.request)
        self._reply.listener = self
        self._pipeline.budget.first()
        if self._reservation is not None and self._limits is not None:
            self._flags += self._reservation.flags
            self._limit_headers = self._limits.headers(self._reservation)
        self._attempt()

    def _reset(self) -> None:
        """Forget what the attempt before this one brought."""
        self.events = 0
        self._held = []
        self._buffer = []
        self._buffered_bytes = 0
        self._ok = False
        self._collecting = True
        self._headers = ()

    def _attempt(self) -> None:
        target = self._state.snapshot.target_for(self.backend)
        if target is None:
            self._failed(
                UpstreamError(
                    f"no address is configured for {self.backend.id!r}",
                    fault=Fault.CONNECT,
                    backend_id=self.backend.id,
                )
            )
            return
        self._target = target
        if target.max_concurrency is None:
            self._send()
            return
        gate = self._gate = self._pipeline.admission.gate(target.name, target.max_concurrency)
        self._queued_s = self._pipeline.mono()
        try:
            gate.enter(self._send)
        except Overloaded as error:
            self._gate = None
            self._refused_hop(error)

    def _send(self) -> None:
        """Send the current attempt; its slot is ours."""
        if self._attempts:
            self._reset()
        self._tries += 1
        backend = self.backend
        pipeline = self._pipeline
        state = self._state
        try:
            sent, body = state.ways.outgoing(self.request, backend)
        except RequestError as error:
            self._leave_gate()
            self._refused_hop(error)
            return
        self._outgoing = sent
        self._stream = sent.stream() if self.request.stream else None
        number, target = len(self._attempts), self._target
        kind = "first" if not number else ("retry" if self._tries > 1 else "fallback")
        self._log = AttemptLog(
            f"{self.decision.id}.{number}", backend, kind, pipeline.clock(), pipeline.mono()
        )
        pipeline.breakers.start(target.name)
        self._call = state.engine(target).send(
            sent.path,
            body,
            self,
            timeouts=state.timeouts_for(target),
            headers=sent.headers(self._arrival.envelope.headers),
        )

    def _refused_hop(self, error: LocavoreError) -> None:
        """This backend cannot even be asked; the next one may (C05 permitting)."""
        if not self._to_fallback(error):
            self._give_up(error)

    # -- the running attempt (Receiver) -------------------------------------------------------

    def on_head(self, status: int, headers: Headers) -> None:
        assert self._log is not None  # noqa: S101 - an attempt is running
        self._log.status = status
        self._headers = headers
        self._ok = 200 <= status < 300
        self._collecting = not (self._ok and self.request.stream and not _is_json(headers))

    def on_body(self, data: bytes) -> None:
        if self._done:
            return
        self.received_bytes += len(data)
        if self._collecting:
            self._collect(data)
        else:
            self.events += data.count(b"data:")
            self._relay(data)

    def on_end(self) -> None:
        if self._done:
            return
        if not self._ok:
            self._failed(self._upstream_error())
        elif not self._collecting:
            self._stream_closed()
        elif self.request.stream:
            self._failed(self._json_for_stream())
        else:
            self._whole_answer()

    def on_failure(self, error: UpstreamError) -> None:
        if not self._done:
            if not error.backend_id:  # the pool knows an address, clients know a name
                error.backend_id = self.backend.id
                error.message = f"{self.backend.id} at {error.message}"
            self._failed(error)

    def _collect(self, data: bytes) -> None:
        self._buffer.append(data)
        self._buffered_bytes += len(data)
        limits = self._state.snapshot.limits
        limit = limits.answer_bytes if self._ok else limits.error_bytes
        if self._buffered_bytes > limit:
            self._drop_call()
            self._failed(
                UpstreamError(
                    f"{self.backend.id} answered with more than {limit} bytes",
                    fault=Fault.PROTOCOL,
                    backend_id=self.backend.id,
                )
            )

    def _relay(self, data: bytes) -> None:
        stream = self._stream
        assert stream is not None and self._log is not None  # noqa: S101 - streaming attempt
        try:
            out = stream.feed(data)
        except (msgspec.DecodeError, ValueError) as error:
            self._drop_call()
            self._failed(self._protocol_error(error))
            return
        if not self._delivering:
            if stream.failure is None and not stream.content_started and not stream.ended:
                if out:
                    self._held.append(out)
                return
            if stream.failure is None:
                self._log.first_content(self._pipeline.mono())
                self._open()
                self._delivering = True
                out = b"".join((*self._held, out))
                self._held.clear()
        if stream.failure is not None:
            self._broken_stream(stream.failure, out)
        elif stream.ended:
            self._stream_ended(out)
        elif out:
            self._write(out)

    def _stream_ended(self, out: bytes) -> None:
        stream = self._stream
        assert stream is not None  # noqa: S101 - streaming attempt
        usage = stream.usage
        short = truncated_by(self.decision, self.backend, usage)
        if short is not None:
            self._drop_call()
            self._failed(short)
            return
        self._finish_attempt(self._usage(usage, self.events))
        failed = self._record("served", 200)
        if failed is None:
            self._reply_finish(out)
        else:
            self._reply_finish(self._stream_failure(failed))

    def _stream_closed(self) -> None:
        stream = self._stream
        assert stream is not None  # noqa: S101 - streaming attempt
        failure = stream.close()
        if failure is not None:
            self._broken_stream(failure, b"", fault=Fault.TRUNCATED)
            return
        out = stream.trailer
        if not self._delivering:
            self._open()
            out = b"".join((*self._held, out))
        self._stream_ended(out)

    def _broken_stream(self, failure: Failure, out: bytes, fault: Fault | None = None) -> None:
        self._drop_call()
        if out and self._delivering:
            self._write(out)
        self._failed(self._error_of(failure, fault))

    def _whole_answer(self) -> None:
        assert self._outgoing is not None and self._log is not None  # noqa: S101
        body = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._log.first_content(self._pipeline.mono())
        try:
            out, usage, failure = self._outgoing.whole.read(body)
        except (msgspec.MsgspecError, ValueError) as error:
            self._failed(self._protocol_error(error))
            return
        if failure is not None:
            self._failed(self._error_of(failure))
            return
        short = truncated_by(self.decision, self.backend, usage)
        if short is not None:
            self._failed(short)
            return
        if not _JSON_NEEDS.isdisjoint(self.request.needs):
            out = self._checked(out)
        self._finish_attempt(self._usage(usage, max(1, len(out) // 4)))
        failed = self._record("served", 200)
        if failed is not None:
            self._respond_error(failed)
            return
        self._respond(200, self._reply_lines(replying.JSON_TYPE, total_cost(self._attempts)), out)

    def _checked(self, out: bytes) -> bytes:
        """Look at JSON a local model was asked for; mend it only where policy says so (C29)."""
        mended, flag = replying.check_json(
            out, self.request, self.backend, repair=self._state.snapshot.repair_json
        )
        if flag:
            self._flags.append(flag)
        return mended

    # -- when an attempt fails ----------------------------------------------------------------

    def _failed(self, error: UpstreamError) -> None:
        """The attempt is over without an answer: note it, then retry, move on or give up."""
        stream, log = self._stream, self._log
        usage = stream.usage if stream is not None else None
        if log is not None:
            if usage is None and self._delivering and stream is not None:
                usage = estimated_usage(self.decision, output_tokens=self.events, known=None)
            self._finish_attempt(usage, error)
            self._pipeline.breakers.failure(
                self._target.name,
                error.fault,
                self._pipeline.mono(),
                local=self.backend.place.local,
                retry_after_s=error.retry_after_s,
            )
        else:
            self._leave_gate()
        final = self._delivering or self._draining
        if final or not (self._again(error) or self._to_fallback(error)):
            self._give_up(error)

    def _again(self, error: UpstreamError) -> bool:
        """Ask the same backend once more, after its own or our pause."""
        retry = self._state.snapshot.retry
        if not error.again_may_help or self._tries >= retry.attempts:
            return False
        wait_s = error.retry_after_s
        if wait_s is None:
            wait_s = retry.backoff_s * 2 ** (self._tries - 1) * random.uniform(0.5, 1.5)  # noqa: S311
        elif wait_s > retry.max_wait_s or (self._next_position() is not None and wait_s > 1.0):
            return False
        if not self._pipeline.budget.spend():
            return False
        self._retry = self._pipeline.call_later(wait_s, self._attempt)
        return True

    def _next_position(self) -> int | None:
        if self._arrival.envelope.no_fallback:
            return None
        now_s = self._pipeline.mono()
        for position in range(self._position + 1, len(self._plan)):
            target = self._state.snapshot.target_for(self._plan[position])
            if target and self._pipeline.breakers.blocked(target.name, now_s) is None:
                return position
        return None

    def _to_fallback(self, error: LocavoreError) -> bool:
        """Move on to the next backend that the decision allowed."""
        if isinstance(error, UpstreamError) and not error.elsewhere_may_help:
            return False
        position = self._next_position()
        if position is None or not self._pipeline.budget.spend():
            return False
        self._position, self._tries = position, 0
        self.backend = self._plan[position]
        self._attempt()
        return True

    def _give_up(self, error: LocavoreError) -> None:
        failed = self._record("cancelled" if self._draining else "failed", error.status)
        shown = failed or error
        if self._head_sent:
            self._reply_finish(self._stream_failure(shown))
        else:
            self._respond_error(shown)

    # -- endings ------------------------------------------------------------------------------

    def _usage(self, usage: Usage | None, output_tokens: int) -> Usage:
        if usage is not None and usage.input_tokens is not None and usage.output_tokens is not None:
            return usage
        no_output = self.request.format == "openai_embeddings"
        if no_output and usage is not None and usage.input_tokens is not None:
            return usage
        self._flags.append("usage_estimated")
        if no_output:
            output_tokens = 0
        return estimated_usage(self.decision, output_tokens=output_tokens, known=usage)

    def _finish_attempt(self, usage: Usage | None, error: UpstreamError | None = None) -> None:
        log = self._log
        if log is None:
            return
        self._attempts.append(
            log.finish(
                self._pipeline.mono(),
                usage=usage,
                fault=error.fault.value if error else None,
                message=error.message if error else None,
            )
        )
        self._log = None
        if self._gate is not None:
            self._leave_gate()
        if error is None:
            self._pipeline.breakers.success(self._target.name)
            self._pipeline.used.add(self.backend.id)

    def _leave_gate(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.leave()

    def _record(self, outcome: str, status: int) -> StoreError | None:
        """Append the record; the error to tell the client when that failed and must not be."""
        self._done = True
        self._call = None  # it knows us: without this, every call were the collector's work
        pipeline = self._pipeline
        pipeline.finished(self)
        if self._draining:
            outcome, status = "cancelled", CLIENT_LEFT
        if self.backend.is_test:
            self._flags.append("test_model")
        record = call_record(
            self.request,
            self.decision,
            self._attempts,
            started_s=self._arrival.started_s,
            duration_s=pipeline.mono() - self._started_mono_s,
            outcome=outcome,
            status=status,
            flags=tuple(self._flags),
            baseline=self._state.baseline,
            grant=self._arrival.envelope.grant,
        )
        if self._reservation is not None and self._limits is not None:
            spending.settle(self._limits, self._reservation, self._attempts)
        try:
            pipeline.journal.append(record)
        except StoreError as error:
            pipeline.store_failed(error)
            return error if self._state.snapshot.store_failure == "closed" else None
        if self._watched is not None and outcome == "served":
            pipeline.tell(self._watched, record, self._state)
        return None

    def _drop_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    # -- the client's side --------------------------------------------------------------------

    def _reply_lines(self, content_type: bytes, cost_usd: Decimal | None = None) -> bytes:
        state, backend = self._state, self.backend
        key = (self.request.format, backend.id, content_type)
        head = state.reply_heads.get(key)
        if head is None:
            head = replying.reply_head(self.request.format, backend, content_type)
            state.remember_head(key, head)
        more = self._limit_headers or replying.forwarded_limits(self._headers)
        if self._outgoing is not None and self._outgoing.dropped:
            dropped = replying.header_value(", ".join(self._outgoing.dropped))
            more = [*more, (b"x-locavore-dropped", dropped)]
        attempts = len(self._attempts) + (self._log is not None)
        return replying.reply_lines(
            head, self.decision.id, attempts=attempts, cost_usd=cost_usd, more=more
        )

    def _open(self) -> None:
        if not self._head_sent:
            self._head_sent = True
            if not self._draining:
                self._reply.start(200, self._reply_lines(replying.STREAM_TYPE))

    def _write(self, data: bytes) -> None:
        if not self._draining:
            self.last_out_s = self._pipeline.mono()
            self._reply.write(data)

    def _reply_finish(self, data: bytes) -> None:
        if not self._draining:
            self._reply.finish(data)

    def _respond(self, status: int, headers: Headers | bytes, body: bytes) -> None:
        if not self._draining:
            self._reply.respond(status, headers, body)

    def _respond_error(self, error: LocavoreError) -> None:
        status, headers, body = replying.error(
            error, self.request, self.decision.id, passed=self._outgoing
        )
        headers += replying.forwarded_limits(self._headers)
        self._respond(status, headers, body)

    def _stream_failure(self, error: LocavoreError) -> bytes:
        failure = replying.as_failure(error)
        writer = getattr(self._stream, "writer", None)
        if writer is None:
            writer = FORMATS[self.request.format].stream_writer(self.request)
        data: bytes = writer.write(failure)
        return data

    def tick(self, now_s: float) -> None:
        """Called about once a second while in flight: keep-alive and the trickle guard (C09)."""
        limits = self._state.snapshot.limits
        if self._log is None and self._gate is not None and not self._done:
            self._waited(now_s, limits.queue_timeout_s)
        if not self.request.stream or self._done:
            return
        if not self._delivering:
            if now_s - self.last_out_s >= limits.ping_s:
                self._open()
                self._write(FORMATS[self.request.format].ping())
            return
        since_s, seen_bytes = self.trickle_from
        if now_s - since_s < limits.trickle_s:
            return
        if self.received_bytes - seen_bytes < limits.trickle_bytes:
            self._drop_call()
            self.on_failure(
                UpstreamError(
                    f"{self.backend.id} sent less than {limits.trickle_bytes} bytes "
                    f"in {limits.trickle_s:.0f} s",
                    fault=Fault.STALLED,
                    status=504,
                )
            )
        self.trickle_from = (now_s, self.received_bytes)

    def _waited(self, now_s: float, limit_s: float) -> None:
        """Still in a backend's queue: not for ever."""
        if now_s - self._queued_s < limit_s:
            return
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.withdraw(self._send)
        self._refused_hop(
            Overloaded(
                f"waited {limit_s:g} s for a free slot of {self.backend.id}",
                code="queue_timeout",
                retry_after_s=limit_s,
            )
        )

    # -- the client's connection (Listener) ---------------------------------------------------

    def on_disconnect(self) -> None:
        """The client left: stop paying for an answer that nobody reads (C11)."""
        if self._done or self._draining:
            return
        if self._log is not None and self._target.drain_on_disconnect:
            self._draining = True
            if self._call is not None:
                self._call.resume()
            return
        self._cancel()

    def _cancel(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        if self._log is None and self._gate is not None:
            self._gate.withdraw(self._send)
            self._gate = None
        self._drop_call()
        if self._log is not None:
            stream = self._stream
            events = self.events if stream is not None else 0
            known = stream.usage if stream is not None else None
            self._flags.append("usage_estimated")
            self._finish_attempt(estimated_usage(self.decision, output_tokens=events, known=known))
        self._record("cancelled", CLIENT_LEFT)

    def on_pause(self) -> None:
        if self._call is not None and not self._draining:
            self._call.pause()

    def on_resume(self) -> None:
        if self._call is not None:
            self._call.resume()

    # -- errors of this attempt ---------------------------------------------------------------

    def _upstream_error(self) -> UpstreamError:
        assert self._outgoing is not None and self._log is not None  # noqa: S101
        status = self._log.status or 0
        error = self._outgoing.format.upstream_error(
            status, self._headers, b"".join(self._buffer), self.backend.id
        )
        if error.fault in CREDENTIAL:
            return replying.credential_error(error, self._target.name)
        return error

    def _error_of(self, failure: Failure, fault: Fault | None = None) -> UpstreamError:
        """An error inside an answer, as the error it would have been as a status."""
        error = from_failure(failure, self.backend.id)
        if fault is not None:
            error.fault = fault
        return error

    def _protocol_error(self, cause: Exception) -> UpstreamError:
        return UpstreamError(
            f"{self.backend.id} sent an answer that is not its dialect: {cause}",
            fault=Fault.PROTOCOL,
            backend_id=self.backend.id,
        )

    def _json_for_stream(self) -> UpstreamError:
        """A stream was asked for and a JSON body came: an error object, or an engine's mistake."""
        assert self._outgoing is not None  # noqa: S101 - an attempt is running
        body = b"".join(self._buffer)
        try:
            _, _, failure = self._outgoing.whole.read(body)
        except (msgspec.MsgspecError, ValueError) as error:
            return self._protocol_error(error)
        if failure is not None:
            return self._error_of(failure)
        return self._protocol_error(ValueError("JSON instead of an event stream"))


def _is_json(headers: Headers) -> bool:
    return any(name == b"content-type" and b"json" in value for name, value in headers)
