"""One request asked of one backend for our own use: the answer is collected and looked at.

A cascade's local answer and its samples are asked this way, and whatever asks a second model
beside a call. The upstream is never streamed: nobody reads along. Nothing is retried: whoever asks
has somewhere else to turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from locavore.core.backend import Capability
from locavore.core.errors import LocavoreError, RequestError, UpstreamError
from locavore.core.events import Event, FinishReason
from locavore.core.money import Usage
from locavore.core.outcome import Attempt as AttemptRecord
from locavore.serving import json_answers, upstream_errors
from locavore.serving.attempt import Attempt
from locavore.serving.record import LATE, estimated_usage
from locavore.serving.truncation import truncated_by
from locavore.strategies.looking import Answer, ToolUse
from locavore.wire.decoding import encode
from locavore.wire.folding import FoldedAnswer, fold
from locavore.wire.formats import FORMATS
from locavore.wire.openai_chat import logprobs

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from locavore.core.backend import Backend
    from locavore.core.decision import Decision
    from locavore.core.ports import Headers
    from locavore.core.request import Request
    from locavore.serving.outgoing import Outgoing
    from locavore.serving.pipeline import Pipeline
    from locavore.serving.snapshot import Limits
    from locavore.serving.state import State

SAMPLE_TEMPERATURE = 0.8
"""As `locavore calibrate` samples; at zero, all samples would say the same."""


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a question."""

    answer: Answer
    """As a strategy looks at it; `failed` says why there is none."""
    record: AttemptRecord | None
    """None: nothing was sent."""
    events: tuple[Event, ...] = ()
    """The answer, with no log-probabilities the client did not ask for."""
    body: bytes | None = None
    """The whole answer as it came, where it is in the client's format and needs no change."""
    attempt: Attempt | None = None
    flags: tuple[str, ...] = ()


class Question:
    """`Owner` of one attempt. `done` is called exactly once unless it is cancelled first."""

    def __init__(
        self,
        pipeline: Pipeline,
        state: State,
        request: Request,
        backend: Backend,
        decision: Decision,
        *,
        id_: str,
        kind: str,
        done: Callable[[Answered], None],
        deadline_s: float | None = None,
        headers: Headers = (),
    ) -> None:
        """`request` as `whole` made it; `decision` for what its prompt is expected to weigh.

        `deadline_s`: after this the answer is given up. Not for an engine that must not be
        cancelled (`on_disconnect = "drain"`).
        """
        self._pipeline = pipeline
        self._state = state
        self._request = request
        self._backend = backend
        self._decision = decision
        self._id = id_
        self._kind = kind
        self._done = done
        self._deadline_s = deadline_s
        self._headers = headers
        self._began_s = pipeline.mono()
        self._timer: asyncio.TimerHandle | None = None
        self.attempt: Attempt | None = None
        self._looks = False
        """We asked for log-probabilities that the client did not ask for."""

    def begin(self) -> None:
        target = self._state.snapshot.target_for(self._backend)
        if target is None:
            self.on_refused(upstream_errors.no_address(self._backend))
            return
        try:
            way, body = self._state.ways.outgoing(self._request, self._backend)
        except RequestError as error:
            self.on_refused(error)
            return
        if self._deadline_s is not None and not target.drain_on_disconnect:
            self._timer = self._pipeline.call_later(self._deadline_s, self._late)
        attempt = self.attempt = Attempt(
            self,
            self._pipeline,
            self._state,
            self._request,
            self._backend,
            target,
            self._id,
            self._kind,
            self._headers,
            (way, self._asking(way, body)),
        )
        attempt.enter()

    def _asking(self, way: Outgoing, body: bytes) -> bytes:
        """Log-probabilities are a signal of every engine that can tell them."""
        needs = self._request.needs
        if Capability.LOGPROBS in needs or Capability.COMPLETIONS in needs:
            return body  # the client said itself what it wants of them
        if not (self._backend.can(Capability.LOGPROBS) and logprobs.can_ask(way.format.name)):
            return body
        self._looks = True
        return logprobs.ask(way.format.name, body)

    def tick(self, now_s: float, limits: Limits) -> None:
        if self.attempt is not None:
            self.attempt.tick(now_s, limits)

    def cancel(self) -> AttemptRecord | None:
        """Nobody wants it any more; the attempt's line, if anything was sent."""
        if self._timer is not None:
            self._timer.cancel()
        attempt = self.attempt
        if attempt is None or attempt.over:
            return None
        if not attempt.sent:
            attempt.withdraw()
            return None
        return attempt.abandon(self._unfinished())

    def _unfinished(self) -> Usage:
        """The prompt was read; how much was written by then, nobody knows."""
        return Usage(input_tokens=round(self._decision.facts.input_tokens.mean), estimated=True)

    def _late(self) -> None:
        attempt = self.attempt
        assert attempt is not None  # noqa: S101 - the timer is set beside it
        if not attempt.sent:
            attempt.withdraw()
            self._tell(LATE, None)
            return
        self._tell(LATE, attempt.abandon(self._unfinished(), LATE), flags=("usage_estimated",))

    # -- Owner --------------------------------------------------------------------------------

    def on_refused(self, error: LocavoreError) -> None:
        fault = error.fault.value if isinstance(error, UpstreamError) else error.code
        self._tell(fault or "refused_to_ask", None)

    def on_failed(self, error: UpstreamError) -> None:
        attempt = self.attempt
        assert attempt is not None  # noqa: S101 - it called us
        self._tell(error.fault.value, attempt.finish(None, error))

    def on_whole(self, body: bytes) -> None:
        attempt = self.attempt
        assert attempt is not None and attempt.outgoing is not None  # noqa: S101 - it called us
        try:
            events = attempt.outgoing.answer(body)
            folded = fold(events)
        except UpstreamError as error:
            error.backend_id = self._backend.id
            self.on_failed(error)
            return
        except (msgspec.MsgspecError, ValueError) as error:
            self.on_failed(upstream_errors.of_protocol(self._backend.id, error))
            return
        short = truncated_by(self._decision, self._backend, folded.usage)
        if short is not None:
            self.on_failed(short)
            return
        self._answered(attempt, body, events, folded)

    def on_content(self, data: bytes) -> None: ...
    def on_piece(self, data: bytes) -> None: ...
    def on_stream_end(self, data: bytes) -> None: ...

    # -- the answer ---------------------------------------------------------------------------

    def _answered(
        self, attempt: Attempt, body: bytes, events: list[Event], folded: FoldedAnswer
    ) -> None:
        flags: list[str] = []
        usage = folded.usage
        if usage is None or usage.input_tokens is None or usage.output_tokens is None:
            flags.append("usage_estimated")
            written = max(1, len(folded.choices[0].text) // 4)
            usage = estimated_usage(self._decision, output_tokens=written, known=usage)
        sure = logprobs.mean(events)
        kept = body if attempt.outgoing is not None and attempt.outgoing.passed else None
        if self._looks:
            events = logprobs.unasked(events)
            kept = None if kept is None else logprobs.without(kept)
        if json_answers.promised(self._request, self._backend):
            repair = self._state.snapshot.repair_json
            events, flag = json_answers.checked_events(events, repair=repair)
            flags += (flag,) if flag else ()
            if flag == json_answers.REPAIRED:
                folded, kept = fold(events), None
        text = folded.choices[0].text
        self._end(
            Answered(
                answer=answer_of(folded, self._backend.id, text, usage, sure, self._seconds()),
                record=attempt.finish(usage),
                events=tuple(events),
                body=kept,
                attempt=attempt,
                flags=tuple(flags),
            )
        )

    def _tell(self, failed: str, record: AttemptRecord | None, flags: tuple[str, ...] = ()) -> None:
        answer = Answer(backend=self._backend.id, failed=failed, seconds=self._seconds())
        self._end(Answered(answer=answer, record=record, attempt=self.attempt, flags=flags))

    def _seconds(self) -> float:
        return self._pipeline.mono() - self._began_s

    def _end(self, answered: Answered) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._done(answered)


def whole(request: Request, *, sample: bool = False) -> Request:
    """The request, to be answered in one piece. `sample`: to be answered differently each time."""
    if not (request.stream or sample):
        return request
    fmt = FORMATS[request.format]
    drop = ("stream", "stream_options", *(("seed",) if sample else ()))
    body = fmt.rewrite(request.body, request, model=request.model, drop_labels=False, drop=drop)
    if sample:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        fields["temperature"] = msgspec.Raw(encode(SAMPLE_TEMPERATURE))
        body = encode(fields)
    return msgspec.structs.replace(request, stream=False, include_usage=False, body=body)


def answer_of(
    folded: FoldedAnswer,
    backend: str,
    text: str,
    usage: Usage | None,
    mean_logprob: float | None,
    seconds: float,
) -> Answer:
    """A folded answer as strategies look at it: its first choice."""
    choice = folded.choices[0]
    return Answer(
        backend=backend,
        text=text,
        tool_calls=tuple(ToolUse(name=c.name, arguments=c.arguments) for c in choice.calls),
        finish=choice.reason,
        refused=bool(choice.refusal) or choice.reason is FinishReason.REFUSAL,
        output_tokens=(usage.output_tokens or 0) if usage is not None else 0,
        mean_logprob=mean_logprob,
        seconds=seconds,
    )
