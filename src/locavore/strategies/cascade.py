"""Answer locally, look at the answer, escalate when it does not hold.

`cascade` is a generator without I/O: it yields the calls it wants and is sent their answers, so
the serving pipeline, a command and a test drive the same logic each in their own way.
"""

from collections.abc import Callable, Generator
from typing import Literal

import msgspec

from locavore.routing.estimators.signals import Signals
from locavore.strategies.looking import Answer, Contract, signals_of

Purpose = Literal["answer", "sample", "escalation"]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A call the strategy wants made."""

    backend: str
    purpose: Purpose
    deadline_s: float | None = None
    """After this the driver cancels the call and sends an `Answer` that failed with `late`."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One request's cascade."""

    local: str
    cloud: str | None
    """None: nothing may leave the house, so nothing is escalated."""
    contract: Contract = Contract()
    samples: tuple[str, ...] = ()
    """Backends asked for another answer when the first is in doubt (may repeat the local one)."""
    hold_s: float | None = None
    """How long the user may be kept waiting for the local answer and its check; None: any time."""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What the promise says of a local answer that was looked at."""

    stays: bool
    margin: float | None = None
    """Expected gain over the cloud's answer less the promise's threshold; None: not judged."""
    in_doubt: bool = False
    """Further answers could change the verdict."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What the user gets, and the evidence the attempt left behind."""

    answer: Answer
    escalated: bool
    reason: str
    """`kept`, `no_cloud`, `cloud_failed`, `doubtful`, `unjudged` (the look failed), or the
    faults of the local answer."""
    signals: Signals
    margin: float | None
    """As `Judged.margin` when it was decided; None: the answer had a fault."""
    attempts: tuple[Answer, ...]
    """Every call made, in order; all of them are paid for."""


Judge = Callable[[Signals], Judged]
"""The promise, for one request."""
_FAULTY = Judged(stays=False)


def cascade(plan: Plan, judge: Judge) -> Generator[Ask, Answer, Served]:
    """Serve one request. Send each `Ask`'s answer; the return value is what to serve.

    A failed cloud call falls back to the local answer unless that one had a fault itself.
    """
    local = yield Ask(backend=plan.local, purpose="answer", deadline_s=plan.hold_s)
    attempts = [local]
    signals, wrong = signals_of(local, plan.contract)
    judged = _FAULTY if wrong else judge(signals)
    if judged.in_doubt and plan.samples:
        asked = yield from _samples(plan, local.seconds)
        attempts += asked
        # What did not come in time counts as saying something else.
        late = [Answer(backend=b, failed="late") for b in plan.samples[len(asked) :]]
        signals, wrong = signals_of(local, plan.contract, [*asked, *late])
        judged = judge(signals)
    if judged.stays or plan.cloud is None:
        reason = "kept" if judged.stays else "no_cloud"
        return _served(local, False, reason, signals, judged, attempts)
    reason = ", ".join(wrong) or ("unjudged" if judged.margin is None else "doubtful")
    cloud = yield Ask(backend=plan.cloud, purpose="escalation")
    attempts.append(cloud)
    if cloud.failed and not wrong:
        return _served(local, False, "cloud_failed", signals, judged, attempts)
    return _served(cloud, True, reason, signals, judged, attempts)


def _samples(plan: Plan, spent_s: float) -> Generator[Ask, Answer, list[Answer]]:
    """The samples there was time to ask for."""
    found: list[Answer] = []
    for backend in plan.samples:
        left = None if plan.hold_s is None else plan.hold_s - spent_s
        if left is not None and left <= 0:
            break
        answer = yield Ask(backend=backend, purpose="sample", deadline_s=left)
        spent_s += answer.seconds
        found.append(answer)
    return found


def _served(
    answer: Answer,
    escalated: bool,
    reason: str,
    signals: Signals,
    judged: Judged,
    attempts: list[Answer],
) -> Served:
    return Served(
        answer=answer,
        escalated=escalated,
        reason=reason,
        signals=signals,
        margin=judged.margin,
        attempts=tuple(attempts),
    )
