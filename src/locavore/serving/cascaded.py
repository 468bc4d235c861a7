"""A call that is answered locally first and looked at before anybody sees it.

`strategies.cascade` says what to ask next and what to serve; this makes its calls. The local
answer and its samples are questions of our own (`serving.question`). An escalation is the call as
it always is: streamed, retried, replaced; but a sound local answer stands behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from locavore.core.errors import LocavoreError, RequestError, UpstreamError
from locavore.core.events import Failure
from locavore.core.outcome import CallRecord, Cascaded
from locavore.routing.conversation import Talk
from locavore.serving import replying
from locavore.serving.call import ServedCall
from locavore.serving.question import Answered, Question, whole
from locavore.strategies.cascade import Ask, Judged, Plan, Served, cascade
from locavore.strategies.looking import Answer, Contract, answer_class, contract_of, faults
from locavore.wire.folding import fold
from locavore.wire.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Generator
    from decimal import Decimal

    from locavore.core.backend import Backend
    from locavore.core.decision import Decision
    from locavore.core.events import Event
    from locavore.core.ports import Headers
    from locavore.ledger.budgets import Reservation
    from locavore.routing.estimators.signals import Signals
    from locavore.serving.pipeline import Arrival, Pipeline
    from locavore.serving.state import State

UNDECIDED = b"undecided"
"""In the header of a stream that had to be opened before the look was over."""


class CascadedCall(ServedCall):
    """A call in flight that has a local answer of its own before its plan begins."""

    first_kind = "escalation"
    __slots__ = (
        "_agrees",
        "_contract",
        "_escalates",
        "_held_s",
        "_local",
        "_local_backend",
        "_question",
        "_sampled",
        "_samples",
        "_served",
        "_steps",
        "_talk",
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
        """`plan`: local model, cloud, and what may follow when neither has answered."""
        super().__init__(pipeline, state, arrival, decision, plan[1:], reservation)
        self._local_backend = plan[0]
        self._contract = _contract(self.request.format, self.request.body)
        self._talk = arrival.talk or Talk(self.request, FORMATS[self.request.format].turns)
        """What the promise judges by: the words that decided."""
        self._local: Answered | None = None
        self._question: Question | None = None
        self._samples = decision.cascade.samples if decision.cascade is not None else 0
        self._sampled = 0
        self._escalates = False
        self._agrees: bool | None = None
        self._served: Served | None = None
        self._held_s = 0.0
        self._steps: Generator[Ask, Answer, Served]

    def begin(self) -> None:
        self._prepare()
        chosen = self.decision.cascade
        plan = Plan(
            local=self._local_backend.id,
            cloud=self.backend.id,
            contract=self._contract,
            samples=(self._local_backend.id,) * self._samples,
            hold_s=chosen.hold_s if chosen is not None else None,
        )
        self._steps = cascade(plan, self._judged)
        self._make(next(self._steps))

    # -- what the strategy asks ---------------------------------------------------------------

    def _make(self, ask: Ask) -> None:
        if ask.purpose == "escalation":
            self._escalates = True
            self._looked()
            if self.request.stream:
                self._copied()
            self._try()
            return
        sample = ask.purpose == "sample"
        question = self._question = Question(
            self._pipeline,
            self._state,
            whole(self.request, sample=sample),
            self._local_backend,
            self.decision,
            id_=f"{self.decision.id}.{len(self._attempts)}",
            kind="sample" if sample else "first",
            done=self._heard,
            deadline_s=ask.deadline_s,
            headers=self._arrival.envelope.headers,
        )
        question.begin()
        if self._question is question:  # it waits for its answer
            self._attempt = question.attempt

    def _heard(self, answered: Answered) -> None:
        """The local model, or a sample of it, has answered or failed."""
        self._question = None
        if answered.record is not None:
            self._attempts.append(answered.record)
        self._flags += (flag for flag in answered.flags if flag not in self._flags)
        if self._local is None:
            self._local = answered
        elif not answered.answer.failed:
            self._sampled += 1
        if self._draining:
            self._record("cancelled", 0)
            return
        self._go_on(answered.answer)

    def _go_on(self, answer: Answer) -> None:
        try:
            ask = self._steps.send(answer)
        except StopIteration as end:
            self._served = end.value
            self._looked()
            self._serve_local()
            return
        self._make(ask)

    def _looked(self) -> None:
        self._held_s = self._pipeline.mono() - self._started_mono_s

    def _judged(self, signals: Signals) -> Judged:
        """What the promise says of the answer; a routing model never fails a call (C112).

        The promise was tested with samples. Before there are any, it is asked about each share of
        them that could agree: if it says the same of all, none is needed.
        """
        samples = self._samples
        shares = [signals.agreement]
        if signals.agreement is None and samples:
            shares = [k / samples for k in (0, *range(samples, 0, -1))]  # none, all, then between
        margins: list[float] = []
        try:
            for share in shares:
                margins.append(self._margin(msgspec.structs.replace(signals, agreement=share)))
                if min(margins) < 0 <= max(margins):
                    return Judged(stays=False, margin=min(margins), in_doubt=True)
        except Exception:  # noqa: BLE001 - the declared default: the cloud answers
            return Judged(stays=False)
        return Judged(stays=min(margins) >= 0, margin=min(margins))

    def _margin(self, signals: Signals) -> float:
        """Expected gain less the promise's threshold; minus one where nothing is promised."""
        verdict = self._state.router.look(self.request, self._talk, self.decision, signals)
        if verdict is None or verdict.threshold is None:  # withdrawn while the model answered
            return -1.0
        return verdict.score - verdict.threshold

    # -- the local answer is served -----------------------------------------------------------

    def _serve_local(self) -> None:
        local = self._local
        assert local is not None  # noqa: S101 - it was looked at
        self.backend, self._attempt = self._local_backend, local.attempt
        if self.request.stream:
            self._stream_local(local)
        elif local.body is not None:
            self._respond_whole(local.body)
        else:
            fmt = FORMATS[self.request.format]
            self._respond_whole(fmt.answer_body(list(local.events), self.request))

    def _stream_local(self, local: Answered) -> None:
        failed = self._record("served", 200)
        if failed is not None and not self._head_sent:
            self._respond_error(failed)
            return
        self._open()
        if failed is not None:
            self._reply.finish(self._stream_failure(failed))
            return
        writer = FORMATS[self.request.format].stream_writer(self.request)
        self._reply.finish(b"".join(writer.write(event) for event in local.events))

    # -- the cloud's answer, beside the local one ----------------------------------------------

    def on_stream_end(self, data: bytes) -> None:
        if self._copy is not None:
            self._compare(self._copy.events(data))
        super().on_stream_end(data)

    def _respond_whole(self, out: bytes) -> None:
        if self._escalates:
            self._compare(FORMATS[self.request.format].answer(out))
        super()._respond_whole(out)

    def _compare(self, events: list[Event]) -> None:
        """Whether the escalation changed the answer: a pair that was paid for anyway."""
        if any(isinstance(event, Failure) for event in events):
            return
        local = self._local
        if local is not None and not local.answer.failed:
            mine, others = local.answer.text, fold(events).choices[0].text
            if mine and others:
                self._agrees = answer_class(mine) == answer_class(others)

    # -- what the client is told --------------------------------------------------------------

    def _fate(self) -> bytes:
        attempt = self._attempt
        if self._served is not None:
            return b"escalated" if self._served.escalated else self._served.reason.encode()
        return b"escalated" if attempt is not None and attempt.delivering else UNDECIDED

    def _more_headers(self) -> Headers:
        return [*super()._more_headers(), (b"x-locavore-cascade", self._fate())]

    def _reply_lines(self, content_type: bytes, cost_usd: Decimal | None = None) -> bytes:
        if self._fate() is not UNDECIDED:
            return super()._reply_lines(content_type, cost_usd)
        head = replying.reply_head(self.request.format, None, content_type)
        attempts = len(self._attempts) + 1
        return replying.reply_lines(
            head, self.decision.id, attempts=attempts, cost_usd=None, more=self._more_headers()
        )

    # -- the escalation -----------------------------------------------------------------------

    def _kind(self) -> str:
        if self._position or self._tries:
            return super()._kind()
        return self.first_kind

    def _to_fallback(self, error: LocavoreError) -> bool:
        """A sound local answer is nearer than any third model."""
        return not self._sound() and super()._to_fallback(error)

    def _give_up(self, error: LocavoreError) -> None:
        attempt = self._attempt
        begun = attempt is not None and attempt.delivering
        waits = self._escalates and self._served is None
        if waits and not begun and not self._draining:
            fault = error.fault.value if isinstance(error, UpstreamError) else error.code
            answer = Answer(backend=self.backend.id, failed=fault or "failed")
            self._served = self._concluded(answer)
            if not self._served.escalated:
                self._flags.append("cloud_failed")
                self._serve_local()
                return
        super()._give_up(error)

    def _concluded(self, cloud: Answer) -> Served:
        """How the strategy ends once the cloud has answered or failed."""
        try:
            self._steps.send(cloud)
        except StopIteration as end:
            served: Served = end.value
            return served
        raise AssertionError("a cascade asks for nothing after its escalation")

    def _sound(self) -> bool:
        local = self._local
        return local is not None and not faults(local.answer, self._contract)

    # -- the end ------------------------------------------------------------------------------

    def _call_record(self, outcome: str, status: int) -> CallRecord:
        served = self._served
        if served is None and self._escalates:
            served = self._served = self._concluded(Answer(backend=self.backend.id))
        self._steps.close()  # its frame knows us
        record = super()._call_record(outcome, status)
        if served is None:
            return record
        return msgspec.structs.replace(record, cascade=self._evidence(served))

    def _evidence(self, served: Served) -> Cascaded:
        signals = served.signals
        return Cascaded(
            local=self._local_backend.id,
            cloud=self._plan[0].id,
            escalated=served.escalated,
            reason=served.reason,
            margin=served.margin,
            agreement=signals.agreement,
            samples=self._sampled,
            mean_logprob=signals.mean_logprob,
            output_tokens=signals.out_tok,
            no_answer=signals.no_answer,
            agrees=self._agrees if served.escalated else None,
            held_s=self._held_s,
        )

    def _abandon(self) -> None:
        question, self._question = self._question, None
        if question is not None:
            self._flags.append("usage_estimated")
            record = question.cancel()
            if record is not None:
                self._attempts.append(record)
        super()._abandon()


def _contract(request_format: str, body: bytes) -> Contract:
    """What the request asks of its answer; nothing that can be checked where it has no common
    form."""
    try:
        return contract_of(FORMATS[request_format].conversation(body))
    except RequestError:
        return Contract()
