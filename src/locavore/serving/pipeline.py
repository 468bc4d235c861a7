"""The worker's half of a call that outlives calls: state, limits, clocks, the journal.

`serve` takes bytes in a wire format and a `Reply`, decides, and starts a `ServedCall`. The same
`decide` answers `/v1/route` and `locavore route` (C111).
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from locavore.core.access import Grant
from locavore.core.backend import Backend, Capability
from locavore.core.decision import Decision
from locavore.core.errors import LocavoreError, NoCandidate, StoreError
from locavore.core.outcome import CallRecord
from locavore.core.policy import Require
from locavore.core.ports import Headers, Homes, Journal
from locavore.core.request import Request
from locavore.ledger.budgets import Authorizer, Refusal, Reservation
from locavore.privacy.sessions import SessionLabels, carried, remember, session_key
from locavore.routing.conversation import Talk
from locavore.routing.decide import refusal
from locavore.routing.rules import NO_LIMIT
from locavore.serving import replying, spending
from locavore.serving.admission import Admission
from locavore.serving.call import ServedCall
from locavore.serving.cascaded import CascadedCall
from locavore.serving.client import Reply
from locavore.serving.health import Breakers, RetryBudget
from locavore.serving.state import State
from locavore.serving.watching import Copying, Watcher
from locavore.wire.formats import FORMATS

TICK_S = 1.0
_NO_LABELS: frozenset[str] = frozenset()
_ALL_THERE: Mapping[str, str] = {}


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What came beside the body."""

    grant: Grant | None = None
    """What the caller's key allows; None: no key was asked for."""
    labels: frozenset[str] = frozenset()
    session: str | None = None
    no_fallback: bool = False
    trace: str | None = None
    """The client's `traceparent`, for telemetry."""
    headers: Headers = ()
    """Headers to send upstream, already chosen from an allow-list."""


PLAIN = Envelope()
"""What most calls bring beside the body: nothing that matters."""


class Arrival(msgspec.Struct):
    """A call that was read and not yet decided."""

    id: str
    request: Request
    reply: Reply
    envelope: Envelope
    started_s: float
    started_mono_s: float
    talk: Talk | None = None
    """Its conversation, once deciding had to look at it."""


class Pipeline:
    """One per worker."""

    def __init__(
        self,
        state: State,
        journal: Journal,
        *,
        loop: asyncio.AbstractEventLoop,
        limits: Authorizer | None = None,
        sessions: SessionLabels,
        homes: Homes | None = None,
        resolve: Callable[[str], "asyncio.Future[Backend | None]"],
        workers: int = 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`resolve` tells what is known of a model that only a provider's wildcard covers.

        `homes` knows where conversations were served; None: every turn is decided afresh.
        """
        self.journal = journal
        self.sessions = sessions
        self.homes = homes
        self._resolve = resolve
        self.clock = clock
        self.mono = time.monotonic
        self._loop = loop
        self._ids = os.urandom(6).hex()
        self._count = 0
        self.closed = False
        self._active: set[ServedCall] = set()
        self.used: set[str] = set()
        """Backends that have served a call here."""
        self.refusals: Counter[str] = Counter()
        """Calls turned away since this worker started, by the code of their error."""
        self.watcher: Watcher | None = None
        """Who learns of served calls, beside their path; set once, before the first call."""
        self.store_error: StoreError | None = None
        """The last failure of the journal; readiness tells it."""
        snapshot = state.snapshot
        self.breakers = Breakers(snapshot.breaker)
        self.budget = RetryBudget(
            ratio=snapshot.retry.budget_ratio, cap=snapshot.retry.budget_reserve
        )
        self.admission = Admission(
            max_inflight=snapshot.limits.max_inflight,
            max_queue=snapshot.limits.max_queue,
            workers=workers,
        )
        self.load(state, limits)
        self._ticking = loop.call_later(TICK_S, self._tick)

    def load(self, state: State, limits: Authorizer | None) -> None:
        """Serve new calls from this state. Those in flight keep theirs (C59)."""
        self.state = state
        self.limits = limits
        snapshot = state.snapshot
        self.breakers.policy = snapshot.breaker
        self.budget.ratio = snapshot.retry.budget_ratio
        self.budget.cap = snapshot.retry.budget_reserve
        self.admission.max_inflight = snapshot.limits.max_inflight
        self.admission.max_queue = snapshot.limits.max_queue

    # -- calls --------------------------------------------------------------------------------

    def serve(self, request_format: str, body: bytes, reply: Reply, envelope: Envelope) -> None:
        """Answer one call, now or later; every outcome goes to `reply` and the journal."""
        started_s, started_mono_s = self.clock(), self.mono()
        id_ = self._id_at(started_s)
        try:
            request = FORMATS[request_format].request(body)
            if envelope is not PLAIN:
                request = sealed(request, envelope)
        except LocavoreError as error:
            self.turn_away(request_format, error, id_, reply)
            return
        arrival = Arrival(id_, request, reply, envelope, started_s, started_mono_s)
        unlearned = self.state.router.unlearned(request.model)
        if unlearned is not None:
            asked = self._resolve(unlearned)
            asked.add_done_callback(lambda found: self._learned(found, arrival))
            return
        self._begin(arrival)

    def turn_away(self, request_format: str, error: LocavoreError, id_: str, reply: Reply) -> None:
        """Answer a call that nobody was asked to serve: it costs nothing, so it is counted, and
        booked only where a decision was made."""
        self.refusals[error.code or error.type] += 1
        reply.respond(*replying.error_for(request_format, error, id_))

    def _learned(self, found: "asyncio.Future[Backend | None]", arrival: Arrival) -> None:
        if not found.cancelled() and (backend := found.result()) is not None:
            self.state.router.learn(backend)
        self._begin(arrival)

    def _begin(self, arrival: Arrival) -> None:
        request, reply, state = arrival.request, arrival.reply, self.state
        try:
            if request.session is not None:
                self._bind_session(request, request.session)
            self.journal.ensure_room()
            self.admission.begin()
        except LocavoreError as error:
            self.turn_away(request.format, error, arrival.id, reply)
            return
        try:
            if self.limits is None:
                decision, plan = self._decided(arrival, state)
                reservation = None
            else:
                decision, plan, reservation = self._authorized(arrival, state, self.limits)
        except LocavoreError as error:
            self.admission.end()
            self._refused(error, arrival)
            self.turn_away(request.format, error, arrival.id, reply)
            return
        if request.format == "anthropic_count_tokens" and not plan[0].can(Capability.COUNT_TOKENS):
            self.admission.end()
            self._release(reservation)
            reply.respond(*replying.counted(decision, arrival.id))
            return
        call: ServedCall
        if decision.cascade is None:
            call = ServedCall(self, state, arrival, decision, plan, reservation)
        else:
            call = CascadedCall(self, state, arrival, decision, plan, reservation)
        self._active.add(call)
        call.begin()

    def _authorized(
        self, arrival: Arrival, state: State, limits: Authorizer
    ) -> tuple[Decision, tuple[Backend, ...], Reservation | None]:
        """Decide, and set aside the worst case of what was decided. A nearly spent budget
        narrows the choice to what it still pays for; then it refuses."""
        decision, plan = self._decided(arrival, state)
        request, grant = arrival.request, arrival.envelope.grant
        made = spending.reserve(limits, request, grant, decision, plan)
        if isinstance(made, Reservation):
            return decision, plan, made
        if made.quota.unit == "usd" and made.left > 0:
            decision, plan = self._narrowed(arrival, state, made)
            again = spending.reserve(limits, request, grant, decision, plan)
            if isinstance(again, Reservation):
                return decision, plan, again
        raise made.error()

    def _narrowed(
        self, arrival: Arrival, state: State, short: Refusal
    ) -> tuple[Decision, tuple[Backend, ...]]:
        """What the rest of a budget still pays for, and nothing behind it that it does not."""
        try:
            return self._decided(
                arrival, state, limits=Require(max_cost_usd=short.left), fallbacks=False
            )
        except NoCandidate:
            raise short.error() from None

    def _release(self, reservation: Reservation | None) -> None:
        if reservation is not None and self.limits is not None:
            self.limits.release(reservation)

    def _bind_session(self, request: Request, name: str) -> None:
        """A call that is refused has labelled its session all the same: the turn after it
        repeats its text (C92)."""
        if not request.labels:
            return
        session = session_key(request.key_name, name)
        remember(self.sessions, session, request.labels & self.state.snapshot.policy.labels)

    def _decided(
        self,
        arrival: Arrival,
        state: State,
        *,
        limits: Require = NO_LIMIT,
        fallbacks: bool = True,
    ) -> tuple[Decision, tuple[Backend, ...]]:
        """(decision, chosen backend and fallbacks; a cascade chooses two). Session labels are kept
        before anything is sent: a call that fails half-way has labelled its session all the same.
        """
        request = arrival.request
        session = None
        if request.session is not None:
            session = session_key(request.key_name, request.session)
        talk = arrival.talk
        if talk is None and state.router.reads(request.model):
            talk = arrival.talk = self._talk(request)
        decision = self._decide(
            request,
            arrival.id,
            state,
            talk=talk,
            session=session,
            limits=limits,
            fallbacks=fallbacks and not arrival.envelope.no_fallback,
        )
        if session is not None:
            remember(self.sessions, session, decision.facts.labels)
        if decision.facts.labels != request.labels:  # those of rules and of the session, too
            labels = decision.facts.labels
            arrival.request = msgspec.structs.replace(request, labels=labels)
        if decision.chosen is None:
            raise self._refusal(decision, state)
        backend_of = state.router.backend
        cascade = decision.cascade
        if cascade is not None:
            ids = (cascade.local, cascade.cloud, *decision.fallbacks)
            return decision, tuple(map(backend_of, ids))
        if not decision.fallbacks:
            return decision, (backend_of(decision.chosen),)
        return decision, tuple(map(backend_of, (decision.chosen, *decision.fallbacks)))

    def _decide(
        self,
        request: Request,
        id_: str,
        state: State,
        *,
        talk: Talk | None,
        session: str | None,
        limits: Require = NO_LIMIT,
        fallbacks: bool = True,
    ) -> Decision:
        return state.router.decide(
            request,
            decision_id=id_,
            talk=talk,
            session_labels=_NO_LABELS if session is None else carried(self.sessions, session),
            unavailable=self._unavailable(state) if self.breakers.any_open else _ALL_THERE,
            limits=limits,
            fallbacks=fallbacks,
            failure_rates=self._failure_rates(state) if self.breakers.rates else None,
            late_shares=self._late_shares(state) if self.breakers.lates else None,
        )

    def _talk(self, request: Request) -> Talk:
        return Talk(request, FORMATS[request.format].turns, self.homes)

    async def decide(self, request: Request) -> Decision:
        """The decision for a request that is not served (`/v1/route`). Nothing is kept of it."""
        state = self.state
        unlearned = state.router.unlearned(request.model)
        if unlearned is not None and (backend := await self._resolve(unlearned)) is not None:
            state.router.learn(backend)
        session = None
        if request.session is not None:
            session = session_key(request.key_name, request.session)
        talk = self._talk(request)
        return self._decide(request, self.next_id(), state, talk=talk, session=session)

    def reset_session(self, grant: Grant | None, session: str) -> None:
        """Raises StoreError."""
        self.sessions.reset(session_key(grant.name if grant else None, session))

    def _refusal(self, decision: Decision, state: State) -> NoCandidate:
        """With the time until a breaker lets a probe through, where that is all it waits for."""
        error = refusal(decision)
        if not decision.considered and state.snapshot.wildcards:
            prefixes = " or ".join(f"{w.prefix}/..." for w in state.snapshot.wildcards)
            error.message += (
                f". Models of {prefixes} are served by name; name one as `baseline` in the "
                f"configuration and {decision.requested!r} may go to it"
            )
        if error.status == 503:
            known = state.router.names.by_id
            asked = [known[c.id] for c in decision.considered if c.id in known]
            targets = map(state.snapshot.target_for, asked)
            named = {t.name for t in targets if t is not None}
            waits = [self.breakers.retry_after_s(name, self.mono()) for name in named]
            error.retry_after_s = min((w for w in waits if w is not None), default=None)
        return error

    def _refused(self, error: LocavoreError, arrival: Arrival) -> None:
        """A call that no backend may serve is a decision too, and is kept (C55)."""
        if not isinstance(error, NoCandidate) or error.decision is None:
            return  # nothing was decided: a bad name, a bad label, a budget that is used up
        request = arrival.request
        record = CallRecord(
            id=arrival.id,
            format=request.format,
            stream=request.stream,
            started_s=arrival.started_s,
            duration_s=self.mono() - arrival.started_mono_s,
            outcome="refused",
            status=error.status,
            decision=error.decision,
            key_name=request.key_name,
            session=request.session,
            user=request.user,
            tenant=_tenant(arrival.envelope.grant),
            team=_team(arrival.envelope.grant),
        )
        try:
            self.journal.append(record)
        except StoreError as failure:
            self.store_failed(failure)

    def _unavailable(self, state: State) -> Mapping[str, str]:
        """backend id -> why it must be left alone now (open breakers)."""
        now_s = self.mono()
        blocked: dict[str, str] = {}
        for backend in state.router.names.by_id.values():
            target = state.snapshot.target_for(backend)
            reason = self.breakers.blocked(target.name, now_s) if target else None
            if reason is not None:
                blocked[backend.id] = reason
        return blocked

    def _failure_rates(self, state: State) -> Mapping[str, float]:
        """backend id -> share of tries that failed lately, of those that did."""
        rates: dict[str, float] = {}
        for backend in state.router.names.competing:
            target = state.snapshot.target_for(backend)
            rate = self.breakers.rates.get(target.name) if target else None
            if rate is not None:
                rates[backend.id] = rate
        return rates

    def _late_shares(self, state: State) -> Mapping[str, float]:
        """backend id -> share of answers that came too late to be looked at, of those that did."""
        shares: dict[str, float] = {}
        now_s = self.mono()
        for backend in state.router.names.competing:
            target = state.snapshot.target_for(backend)
            share = self.breakers.late_share(target.name, now_s) if target else 0.0
            if share > 0:
                shares[backend.id] = round(share, 4)
        return shares

    def next_id(self) -> str:
        return self._id_at(self.clock())

    def _id_at(self, now_s: float) -> str:
        """Unique, and ordered by time so that the ledger's index grows at its end."""
        self._count += 1
        return f"{int(now_s * 1000):011x}-{self._ids}-{self._count:x}"

    # -- what calls need ----------------------------------------------------------------------

    def finished(self, call: ServedCall) -> None:
        active = self._active
        if call in active:
            active.remove(call)
            self.admission.end()

    def call_later(self, seconds: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, action)

    def problems(self) -> list[str]:
        """Why a call could not be served now; empty: ready."""
        found = []
        if self.store_error is not None:
            found.append(self.store_error.message)
        state = self.state
        unavailable = self._unavailable(state)
        known = [*state.snapshot.backends, *state.snapshot.named]
        if not known and not state.snapshot.wildcards:
            found.append("no backend is configured or found")
        elif known and all(b.id in unavailable for b in known):
            found.append("every backend is unavailable: " + "; ".join(unavailable.values()))
        return found

    def tell(self, watched: Copying, record: CallRecord, state: State) -> None:
        """Once the last byte is on its way; a watcher that fails harms no client."""
        if self.watcher is not None:
            self._loop.call_soon(watched.tell, self.watcher, record, state)

    def store_failed(self, error: StoreError) -> None:
        self.store_error = error

    @property
    def inflight(self) -> int:
        return len(self._active)

    def busy(self, target: str) -> bool:
        """Whether a client's call waits for this target or is answered by it now."""
        return any(call.asks(target) for call in self._active)

    def _tick(self) -> None:
        now_s = self.mono()
        for call in tuple(self._active):
            call.tick(now_s)
        if self.limits is not None:
            self.limits.tick()
        self._ticking = self._loop.call_later(TICK_S, self._tick)

    def cut(self) -> None:
        """End what still runs, whatever its engine likes: every call leaves a record."""
        for call in tuple(self._active):
            call.cut()

    def close(self) -> None:
        self.closed = True
        self._ticking.cancel()


def sealed(request: Request, envelope: Envelope) -> Request:
    """The request with what its envelope adds."""
    labels, session = envelope.labels, envelope.session
    if not labels and session is None and envelope.grant is None:
        return request
    return msgspec.structs.replace(
        request,
        labels=request.labels | labels,
        session=session or request.session,
        key_name=envelope.grant.name if envelope.grant else None,
    )


def _tenant(grant: Grant | None) -> str | None:
    return (grant.tenant or None) if grant else None


def _team(grant: Grant | None) -> str | None:
    return (grant.team or None) if grant else None
