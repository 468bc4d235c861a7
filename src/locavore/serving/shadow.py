"""The other model's answer to an explored call, asked for in the background.

Nothing of it reaches the client or stands in its way (C114): it is asked after the client was
served, one worker asks few at a time, and a model at home is asked only while no client needs it
and given up when one does. It is booked to nobody's key, and to no quota but the operator's own
dollars. Both candidates passed the limits of the call (`routing.explore`), so the request goes
nowhere it might not have gone.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from locavore.core.decision import Decision
from locavore.core.errors import LocavoreError, RequestError, StoreError, UpstreamError
from locavore.core.outcome import CallRecord
from locavore.ledger import kept_answers
from locavore.ledger.budgets import Reservation, worst_case_usd
from locavore.ledger.kept_answers import KeptAnswer, ToolCall
from locavore.serving import spending
from locavore.serving.question import Answered, Question, answer_of, whole
from locavore.serving.record import SHADOW
from locavore.strategies.looking import Answer, Contract, answer_class, contract_of, faults
from locavore.wire.folding import fold
from locavore.wire.formats import FORMATS

if TYPE_CHECKING:
    import asyncio

    from locavore.core.backend import Backend
    from locavore.core.outcome import Attempt as AttemptRecord
    from locavore.core.request import Request
    from locavore.serving.pipeline import Pipeline
    from locavore.serving.snapshot import Target
    from locavore.serving.watching import Watched

AT_ONCE = 8
"""Shadows in flight per worker; at home, one per server."""
QUEUE = 128
"""That wait for a model at home, and as many for the cloud. More are not asked: what is drawn is
independent of the answer, so they are missed at random."""
WAIT_S = 300.0
"""For a model at home to become free."""
TRIES = 2
"""How often a model at home is asked again after a client came in between."""
GIVEN_UP = "given_up"
"""Fault of a shadow that made room for a client."""
log = logging.getLogger(__name__)


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What can be said of the two answers without anybody's verdict; kept in the record."""

    form_served: float
    """1: nothing is wrong with the answer's form; 0: something is (`strategies.looking`)."""
    form_shadow: float
    agrees: bool
    """Both say the same; which is not quality."""


class Shadow:
    """One call's other answer: waiting, running or done."""

    __slots__ = ("attempts", "backend", "began_s", "call", "question", "reservation", "since_s")

    def __init__(self, call: Watched, backend: Backend, since_s: float) -> None:
        self.call = call
        self.backend = backend
        self.since_s = since_s
        self.attempts: list[AttemptRecord] = []
        self.question: Question | None = None
        self.reservation: Reservation | None = None
        self.began_s = 0.0

    @property
    def target(self) -> Target | None:
        return self.call.state.snapshot.target_for(self.backend)

    def give_up(self) -> None:
        """End what runs. What it may have cost by now is in the books."""
        record = self.question.cancel() if self.question is not None else None
        if record is not None:
            self.attempts.append(msgspec.structs.replace(record, fault=GIVEN_UP))


class Shadows:
    """`serving.watching.Watcher` of one worker."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._waiting: deque[Shadow] = deque()
        self._running: list[Shadow] = []
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    # -- the watcher ----------------------------------------------------------------------------

    def wants(self, request: Request, decision: Decision) -> bool:
        if self._running and decision.chosen is not None:
            try:
                self._make_room(decision.chosen)
            except Exception:  # a client's call must not fail of what stands beside it
                log.exception("shadows could not make room")
        return decision.explored is not None and request.n == 1

    def served(self, call: Watched) -> None:
        backend = _other(call)
        if backend is None or self._closed:
            return
        if sum(s.backend.place.local is backend.place.local for s in self._waiting) >= QUEUE:
            return
        self._waiting.append(Shadow(call, backend, self._pipeline.mono()))
        self._go_on()

    @property
    def pending(self) -> int:
        """Shadows waiting or in flight."""
        return len(self._waiting) + len(self._running)

    # -- when one may be asked ------------------------------------------------------------------

    def _go_on(self) -> None:
        """Ask those that may be asked now; look again in a moment while any is left."""
        now_s = self._pipeline.mono()
        for shadow in list(self._waiting):
            if now_s - shadow.since_s > WAIT_S:
                self._waiting.remove(shadow)
                self._close_books(shadow)
            elif len(self._running) < AT_ONCE and self._free(shadow):
                self._waiting.remove(shadow)
                self._ask(shadow)
        if self._timer is None and self.pending and not self._closed:
            self._timer = self._pipeline.call_later(1.0, self._tick)

    def _free(self, shadow: Shadow) -> bool:
        pipeline, target = self._pipeline, shadow.target
        if target is None or pipeline.breakers.blocked(target.name, pipeline.mono()) is not None:
            return False
        if target.max_concurrency is not None:
            gate = pipeline.admission.gate(target.name, target.max_concurrency)
            if gate.running >= gate.slots or gate.waiting:
                return False
        if not shadow.backend.place.local:
            return True
        beside = any(_named(s.target) == target.name for s in self._running)
        return not beside and not pipeline.busy(target.name)

    def _make_room(self, chosen: str) -> None:
        """A client's call comes: a shadow that is in its way is given up, and asked later."""
        state = self._pipeline.state
        try:
            target = state.snapshot.target_for(state.router.backend(chosen))
        except KeyError:
            return
        for shadow in [s for s in self._running if _yields(s, target)]:
            shadow.give_up()
            self._running.remove(shadow)
            self._release(shadow)
            if len(shadow.attempts) < TRIES:
                self._waiting.append(shadow)
            else:
                self._close_books(shadow)

    def _tick(self) -> None:
        self._timer = None
        now_s = self._pipeline.mono()
        for shadow in list(self._running):
            if shadow.question is not None:
                shadow.question.tick(now_s, shadow.call.state.snapshot.limits)
        self._go_on()

    # -- asking ---------------------------------------------------------------------------------

    def _ask(self, shadow: Shadow) -> None:
        pipeline, call = self._pipeline, shadow.call
        try:
            pipeline.journal.ensure_room()
            if not self._affords(shadow):
                return
        except LocavoreError as error:
            log.warning("a shadow was not asked: %s", error.message)
            return
        shadow.began_s = pipeline.clock() if not shadow.began_s else shadow.began_s
        question = shadow.question = Question(
            pipeline,
            call.state,
            whole(call.request),
            shadow.backend,
            call.record.decision,
            id_=f"{call.record.id}.{SHADOW}.{len(shadow.attempts)}",
            kind=SHADOW,
            done=partial(self._answered, shadow),
        )
        self._running.append(shadow)
        question.begin()

    def _affords(self, shadow: Shadow) -> bool:
        """Whether the operator's own budgets in dollars allow it; no key's and no user's."""
        limits, call = self._pipeline.limits, shadow.call
        if limits is None:
            return True
        facts = call.record.decision.facts
        usd = worst_case_usd(
            shadow.backend.price,
            input_tokens=ceil(facts.input_tokens.high),
            output_tokens=facts.output_tokens,
        )
        made = limits.reserve(None, None, usd, 0, only="usd")
        if not isinstance(made, Reservation):
            return False
        shadow.reservation = made
        return True

    def _release(self, shadow: Shadow) -> None:
        reservation, shadow.reservation = shadow.reservation, None
        if reservation is not None and self._pipeline.limits is not None:
            spending.settle(self._pipeline.limits, reservation, shadow.attempts[-1:])

    # -- its answer -----------------------------------------------------------------------------

    def _answered(self, shadow: Shadow, answered: Answered) -> None:
        if answered.record is not None:
            shadow.attempts.append(answered.record)
        self._release(shadow)
        compared = None
        if not answered.answer.failed:
            compared = _compared(shadow.call, answered.answer)
            self._keep(shadow, answered.answer)
        self._close_books(shadow, compared, answered.flags)
        self._running.remove(shadow)  # last: nothing pending means that all is in the books
        self._go_on()

    def _keep(self, shadow: Shadow, answer: Answer) -> None:
        """For the application to judge, where that is allowed; not on the loop."""
        snapshot, record = shadow.call.state.snapshot, shadow.call.record
        if not snapshot.keep_answers_s or record.decision.facts.labels - snapshot.keep_labels:
            return
        kept = KeptAnswer(
            id=record.id,
            backend=answer.backend,
            text=answer.text,
            tool_calls=tuple(
                ToolCall(name=c.name, arguments=c.arguments) for c in answer.tool_calls
            ),
            until_s=self._pipeline.clock() + snapshot.keep_answers_s,
        )
        try:
            kept_answers.save(Path(snapshot.home), kept)
        except StoreError as error:
            log.warning("%s", error.message)

    def _close_books(
        self, shadow: Shadow, compared: Compared | None = None, flags: tuple[str, ...] = ()
    ) -> None:
        """A call of its own in the ledger, under the call that caused it (C69)."""
        if not shadow.attempts:
            return
        pipeline, parent = self._pipeline, shadow.call.record
        decision = parent.decision
        record = CallRecord(
            id=f"{parent.id}.{SHADOW}",
            format=parent.format,
            started_s=shadow.began_s,
            duration_s=max(pipeline.clock() - shadow.began_s, 0.0),
            outcome="served" if compared is not None else "failed",
            status=200 if compared is not None else 502,
            decision=Decision(
                id=f"{parent.id}.{SHADOW}",
                requested=shadow.backend.id,
                resolved="backend",
                chosen=shadow.backend.id,
                facts=decision.facts,
                stage=decision.stage,
                posture=decision.posture,
                baseline=decision.baseline,
                policy_version=decision.policy_version,
            ),
            attempts=tuple(shadow.attempts),
            parent_id=parent.id,
            session=parent.session,
            user=parent.user,
            flags=flags,
            extra={} if compared is None else {SHADOW: msgspec.to_builtins(compared)},
        )
        try:
            pipeline.journal.append(record)
        except StoreError as error:
            pipeline.store_failed(error)

    def close(self) -> None:
        """Give up what waits, end what runs and book it; before the journal is closed."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        for shadow in self._running:
            shadow.give_up()
            self._release(shadow)
            self._close_books(shadow)
        self._running.clear()


def _other(call: Watched) -> Backend | None:
    """Who is still to be asked: the one of the pair that has not answered the client's call."""
    record = call.record
    pair = record.decision.explored
    if pair is None or not record.attempts:
        return None
    answered = {a.backend for a in record.attempts if a.fault is None}
    left = {pair.local, pair.cloud} - answered
    if len(left) != 1:  # a cascade asked both, or neither of them served
        return None
    try:
        return call.state.router.backend(left.pop())
    except KeyError:
        return None


def _yields(shadow: Shadow, to: Target | None) -> bool:
    target = shadow.target
    if target is None or to is None or target.name != to.name or target.drain_on_disconnect:
        return False
    return shadow.backend.place.local or target.max_concurrency is not None


def _named(target: Target | None) -> str | None:
    return None if target is None else target.name


def _compared(call: Watched, shadow: Answer) -> Compared | None:
    """None: the served answer cannot be read again."""
    try:
        folded = fold(list(call.answer))
    except UpstreamError:
        return None
    served = answer_of(folded, "", folded.choices[0].text, folded.usage, None, 0.0)
    contract = _contract(call.request)
    return Compared(
        form_served=float(not faults(served, contract)),
        form_shadow=float(not faults(shadow, contract)),
        agrees=_same(served, shadow),
    )


def _contract(request: Request) -> Contract:
    try:
        return contract_of(FORMATS[request.format].conversation(request.body))
    except RequestError:
        return Contract()


def _same(one: Answer, other: Answer) -> bool:
    if one.tool_calls or other.tool_calls:
        return [(c.name, answer_class(c.arguments)) for c in one.tool_calls] == [
            (c.name, answer_class(c.arguments)) for c in other.tool_calls
        ]
    said = answer_class(one.text)
    return bool(said) and said == answer_class(other.text)
