"""One call from decision to last byte: attempts in turn, at most one answer, exactly one record.

A callback state machine, because a task and its futures would cost more than the whole call
(docs/adr/0001-data-plane.md). It owns the running attempt (`serving.attempt`) and listens to the
client's connection. The order of things that must not change:

* nothing reaches the client before content has come, so a failing attempt can still be replaced
  without a second start event (C03);
* after content, a failure ends the stream with the protocol's own error (C01, C04);
* the record is in the journal before the last byte leaves.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import msgspec

from locavore.core.backend import Backend
from locavore.core.decision import Decision
from locavore.core.errors import (
    LocavoreError,
    Overloaded,
    StoreError,
    UpstreamError,
)
from locavore.core.money import Usage
from locavore.core.outcome import CallRecord
from locavore.ledger.budgets import Reservation
from locavore.serving import json_answers, replying, spending, upstream_errors
from locavore.serving.attempt import Attempt
from locavore.serving.client import CLIENT_LEFT, Gone
from locavore.serving.client_reply import ClientReply
from locavore.serving.json_answers import NEEDS
from locavore.serving.record import call_record, estimated_usage, total_cost
from locavore.serving.truncation import truncated_by
from locavore.wire.formats import FORMATS

if TYPE_CHECKING:
    from locavore.serving.pipeline import Arrival, Pipeline
    from locavore.serving.state import State


class ServedCall(ClientReply):
    """A call in flight. `Owner` of its attempts, `Listener` of its client."""

    first_kind = "first"
    __slots__ = (
        "_arrival",
        "_done",
        "_draining",
        "_flags",
        "_last_out_s",
        "_limits",
        "_pipeline",
        "_plan",
        "_position",
        "_reservation",
        "_retry",
        "_started_mono_s",
        "_tries",
        "_watched",
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
        self.request = arrival.request
        self._reply = arrival.reply
        self._started_mono_s = self._last_out_s = arrival.started_mono_s
        self.decision = decision
        self._plan = plan
        self.backend = plan[0]
        self._limits = pipeline.limits
        self._reservation = reservation
        self._limit_headers = ()
        self._attempt = None
        self._attempts = []
        self._flags: list[str] = []
        self._position = 0
        self._tries = 0
        self._retry: asyncio.TimerHandle | None = None
        self._head_sent = False
        self._draining = False
        self._done = False
        self._watched = False
        self._copy = None

    # -- attempts -----------------------------------------------------------------------------

    def begin(self) -> None:
        self._prepare()
        self._try()

    def _prepare(self) -> None:
        request, watcher = self.request, self._pipeline.watcher
        self._watched = watcher is not None and watcher.wants(request, self.decision)
        if self._watched or (request.stream and not NEEDS.isdisjoint(request.needs)):
            self._copied()
        self._reply.listener = self
        self._pipeline.budget.first()
        if self._reservation is not None and self._limits is not None:
            self._flags += self._reservation.flags
            self._limit_headers = self._limits.headers(self._reservation)

    def _try(self) -> None:
        """Ask the current backend."""
        backend = self.backend
        target = self._state.snapshot.target_for(backend)
        if target is None:
            self.on_refused(upstream_errors.no_address(backend))
            return
        number = len(self._attempts)
        attempt = self._attempt = Attempt(
            self,
            self._pipeline,
            self._state,
            self.request,
            backend,
            target,
            f"{self.decision.id}.{number}",
            self._kind() if number else self.first_kind,
            self._arrival.envelope.headers,
        )
        self._tries += 1
        attempt.enter()

    def _kind(self) -> str:
        """Of an attempt that is not the first."""
        return "retry" if self._tries else "fallback"

    def on_refused(self, error: LocavoreError) -> None:
        """This backend cannot even be asked; the next one may (C05 permitting)."""
        if not self._to_fallback(error):
            self._give_up(error)

    def on_failed(self, error: UpstreamError) -> None:
        """The attempt is over without an answer: note it, then retry, move on or give up."""
        attempt = self._attempt
        assert attempt is not None  # noqa: S101 - it called us
        stream = attempt.stream
        usage = stream.usage if stream is not None else None
        if usage is None and attempt.delivering:
            usage = estimated_usage(self.decision, output_tokens=attempt.events, known=None)
        self._attempts.append(attempt.finish(usage, error))
        final = attempt.delivering or self._draining
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
        self._retry = self._pipeline.call_later(wait_s, self._try)
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
        self._try()
        return True

    def _give_up(self, error: LocavoreError) -> None:
        failed = self._record("cancelled" if self._draining else "failed", error.status)
        shown = failed or error
        if self._head_sent:
            self._reply.finish(self._stream_failure(shown))
        else:
            self._respond_error(shown)

    # -- the attempt's answer -----------------------------------------------------------------

    def on_content(self, data: bytes) -> None:
        self._open()
        if data:
            self._reply.write(data)

    def on_piece(self, data: bytes) -> None:
        self._reply.write(data)

    def on_stream_end(self, data: bytes) -> None:
        attempt = self._attempt
        assert attempt is not None and attempt.stream is not None  # noqa: S101 - it called us
        usage = attempt.stream.usage
        short = truncated_by(self.decision, self.backend, usage)
        if short is not None:
            attempt.drop()
            self.on_failed(short)
            return
        if self._copy is not None and json_answers.promised(self.request, self.backend):
            _, flag = json_answers.checked_events(self._copy.events(data), repair=False)
            self._flags += (flag,) if flag else ()
        self._answered(attempt, usage, attempt.events)
        failed = self._record("served", 200)
        self._reply.finish(data if failed is None else self._stream_failure(failed))

    def on_whole(self, body: bytes) -> None:
        attempt = self._attempt
        assert attempt is not None and attempt.outgoing is not None  # noqa: S101 - it called us
        try:
            out, usage, failure = attempt.outgoing.whole.read(body)
        except (msgspec.MsgspecError, ValueError) as error:
            self.on_failed(upstream_errors.of_protocol(self.backend.id, error))
            return
        problem = (
            truncated_by(self.decision, self.backend, usage)
            if failure is None
            else upstream_errors.of_failure(self.backend.id, failure)
        )
        if problem is not None:
            self.on_failed(problem)
            return
        if not NEEDS.isdisjoint(self.request.needs):
            repair = self._state.snapshot.repair_json
            out, flag = json_answers.checked_body(out, self.request, self.backend, repair=repair)
            self._flags += (flag,) if flag else ()
        self._answered(attempt, usage, max(1, len(out) // 4))
        self._respond_whole(out)

    def _respond_whole(self, out: bytes) -> None:
        failed = self._record("served", 200)
        if failed is not None:
            self._respond_error(failed)
            return
        lines = self._reply_lines(replying.JSON_TYPE, total_cost(self._attempts))
        self._reply.respond(200, lines, out)

    def _answered(self, attempt: Attempt, usage: Usage | None, output_tokens: int) -> None:
        """The attempt served: its line, with our own count where the upstream gave none."""
        if usage is None or usage.input_tokens is None or usage.output_tokens is None:
            no_output = self.request.format == "openai_embeddings"
            if not (no_output and usage is not None and usage.input_tokens is not None):
                self._flags.append("usage_estimated")
                usage = estimated_usage(
                    self.decision, output_tokens=0 if no_output else output_tokens, known=usage
                )
        self._attempts.append(attempt.finish(usage))

    # -- the end ------------------------------------------------------------------------------

    def _record(self, outcome: str, status: int) -> StoreError | None:
        """Append the record; the error to tell the client when that failed and must not be."""
        self._done = True
        pipeline = self._pipeline
        pipeline.finished(self)
        talk = self._arrival.talk
        if talk is not None and outcome == "served":
            talk.served(self.backend.id)
        if self._draining:
            outcome, status = "cancelled", CLIENT_LEFT
        if self.backend.is_test:
            self._flags.append("test_model")
        record = self._call_record(outcome, status)
        if self._reservation is not None and self._limits is not None:
            spending.settle(self._limits, self._reservation, self._attempts)
        try:
            pipeline.journal.append(record)
        except StoreError as error:
            pipeline.store_failed(error)
            return error if self._state.snapshot.store_failure == "closed" else None
        if self._watched and self._copy is not None and outcome == "served":
            pipeline.tell(self._copy, record, self._state)
        return None

    def _call_record(self, outcome: str, status: int) -> CallRecord:
        # Who names a backend and wants no other (calibration does) gave routing nothing to save.
        fixed = self._arrival.envelope.no_fallback and self.decision.resolved == "backend"
        return call_record(
            self.request,
            self.decision,
            self._attempts,
            started_s=self._arrival.started_s,
            duration_s=self._pipeline.mono() - self._started_mono_s,
            outcome=outcome,
            status=status,
            flags=tuple(self._flags),
            baseline=None if fixed else self._state.baseline,
            grant=self._arrival.envelope.grant,
            trace=self._arrival.envelope.trace,
        )

    # -- while it lasts -----------------------------------------------------------------------

    def asks(self, target: str) -> bool:
        """Whether it waits for this target or is answered by it now."""
        return self._attempt is not None and self._attempt.target.name == target

    def tick(self, now_s: float) -> None:
        """Called about once a second while in flight: keep-alive, and the attempt's own limits."""
        if self._done:
            return
        attempt, limits = self._attempt, self._state.snapshot.limits
        if attempt is not None:
            attempt.tick(now_s, limits)
            if attempt.delivering or self._done:
                return
        if self.request.stream and now_s - self._last_out_s >= limits.ping_s:
            self._last_out_s = now_s
            self._open()
            self._reply.write(FORMATS[self.request.format].ping())

    # -- the client's connection (Listener) ---------------------------------------------------

    def on_disconnect(self) -> None:
        """The client left: stop paying for an answer that nobody reads (C11)."""
        if self._done or self._draining:
            return
        attempt = self._attempt
        running = attempt is not None and attempt.sent and not attempt.over
        if attempt is not None and running and attempt.target.drain_on_disconnect:
            self._draining = True
            self._reply, self._copy = Gone(), None
            attempt.resume()
            return
        self._cancel()

    def cut(self) -> None:
        """The worker ends now: the client is told so in its own protocol."""
        if self._done:
            return
        if self._draining:
            self._cancel()
            return
        self._abandon()
        self._give_up(
            Overloaded("the gateway is stopping", code="gateway_stopping", retry_after_s=1.0)
        )

    def _cancel(self) -> None:
        self._abandon()
        self._record("cancelled", CLIENT_LEFT)

    def _abandon(self) -> None:
        """End whatever waits or runs, and note what it may have cost by now."""
        if self._retry is not None:
            self._retry.cancel()
        attempt = self._attempt
        if attempt is not None and not attempt.over:
            if attempt.sent:
                self._flags.append("usage_estimated")
                known = attempt.stream.usage if attempt.stream is not None else None
                usage = estimated_usage(self.decision, output_tokens=attempt.events, known=known)
                self._attempts.append(attempt.abandon(usage))
            else:
                attempt.withdraw()

    def on_pause(self) -> None:
        if self._attempt is not None and not self._draining:
            self._attempt.pause()

    def on_resume(self) -> None:
        if self._attempt is not None:
            self._attempt.resume()
