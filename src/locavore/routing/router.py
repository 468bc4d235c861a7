"""One snapshot's names, facts and decisions, with what can be kept between calls.

The live path, `POST /v1/route` and `locavore route` all call `Router.decide`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from locavore.core.backend import Backend
from locavore.core.decision import Candidate, Decision, Facts, Given, backend_of
from locavore.core.errors import RequestError
from locavore.core.policy import Policy, Require
from locavore.core.request import Request
from locavore.routing.asks import Asks
from locavore.routing.conversation import Talk, mark_of
from locavore.routing.decide import choose
from locavore.routing.estimators.promised import Promises, Verdict
from locavore.routing.estimators.signals import Signals
from locavore.routing.explore import explore
from locavore.routing.facts import measure
from locavore.routing.judging import Judge
from locavore.routing.latency import forecast_ttft_s
from locavore.routing.names import Names, Resolved
from locavore.routing.quality import Priors, Quality
from locavore.routing.rules import NO_LIMIT, limits_of
from locavore.routing.survey import Survey, survey
from locavore.routing.weighing import Call, Latency

Key = TypeVar("Key")
Value = TypeVar("Value")
_NOTHING_KNOWN: Mapping[str, Any] = {}
KEPT = 1024
"""Bound of each memory; clients invent names, so it is emptied when full."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A name, read: its candidates in order."""

    resolved: Resolved
    candidates: tuple[Candidate, ...]
    reads_ask: bool
    """Deciding needs the user's ask: backends compete, or a rule looks at the task."""
    unlearned: str | None
    """The id meant, where only a wildcard covers it: such a backend has no price yet."""


class Router:
    """Decides for one snapshot. Everything it keeps is a pure function of the snapshot."""

    def __init__(
        self,
        policy: Policy,
        backends: Iterable[Backend],
        *,
        wildcards: Mapping[str, Backend] | None = None,
        only_named: Iterable[Backend] = (),
        quality: Quality | None = None,
        latency: Latency = forecast_ttft_s,
        promises: Promises | None = None,
    ) -> None:
        """`backends` compete for virtual names; `only_named` and `wildcards` are reached by name.

        A baseline that only a wildcard serves competes too.
        """
        self.policy = policy
        competing = list(backends)
        self.names = _names(policy, competing, wildcards, only_named)
        self.baseline = self._baseline()
        if self.baseline is not None and self.baseline.id not in {b.id for b in competing}:
            competing.append(self.baseline)
            self.names = _names(policy, competing, wildcards, only_named)
        self.quality: Quality = quality or Priors(competing, self.baseline)
        self.latency = latency
        self.promises = promises
        """What calibration promised of local models, measured against the baseline."""
        self.judge: Judge | None = None
        """None: nothing is promised."""
        if promises and self.baseline is not None:
            self.judge = Judge(promises, self.baseline)
        self._by_mark = {mark_of(b.id): b.id for b in competing}
        self._looks_at_task = any(rule.when.task for rule in policy.rules)
        self._routes: dict[str, Route] = {}
        self._surveys: dict[object, Survey] = {}

    def _baseline(self) -> Backend | None:
        try:
            found = self.names.resolve(self.policy.baseline) if self.policy.baseline else None
        except RequestError:
            return None
        return found.backends[0] if found is not None and found.named else None

    def route(self, model: str) -> Route:
        """Reads a name. Raises RequestError (404) for one that nothing answers to."""
        route = self._routes.get(model)
        if route is None:
            resolved = self.names.resolve(model)
            backends = (*resolved.backends, *self._configured_fallbacks(resolved))
            candidates = tuple(Candidate(backend=b) for b in backends)
            route = Route(
                resolved=resolved,
                candidates=(*candidates, *self._cascades(resolved)),
                reads_ask=not resolved.named or self._looks_at_task,
                unlearned=self._unlearned(resolved),
            )
            _keep(self._routes, model, route)
        return route

    def reads(self, model: str) -> bool:
        """Whether deciding for this name needs the conversation; False for one nobody knows."""
        try:
            return (self._routes.get(model) or self.route(model)).reads_ask
        except RequestError:
            return False

    def _cascades(self, resolved: Resolved) -> list[Candidate]:
        """Local models whose answers a promise lets us look at, in front of the baseline."""
        cloud, judge = self.baseline, self.judge
        if judge is None or cloud is None or resolved.virtual != "auto":
            return []
        if not self.policy.routing.cascade:
            return []
        return [
            Candidate(backend=b, strategy="cascade", cloud=cloud)
            for b in resolved.backends
            if b.id != cloud.id and judge.looks_at_answers(b.id)
        ]

    def _configured_fallbacks(self, resolved: Resolved) -> list[Backend]:
        if not resolved.named:
            return []
        named = resolved.backends[0].id
        found: dict[str, Backend] = {}
        for name in self.policy.fallbacks.get(named, ()):
            try:
                found.update((b.id, b) for b in self.names.resolve(name).backends)
            except RequestError:  # a fallback that is not there now must not fail the call
                continue
        found.pop(named, None)
        return list(found.values())

    def decide(
        self,
        request: Request,
        *,
        decision_id: str,
        talk: Talk | None = None,
        session_labels: frozenset[str] = frozenset(),
        unavailable: Mapping[str, str] | None = None,
        limits: Require = NO_LIMIT,
        fallbacks: bool = True,
        failure_rates: Mapping[str, float] | None = None,
        late_shares: Mapping[str, float] | None = None,
        given: Given | None = None,
    ) -> Decision:
        """The decision; `chosen` is None when nothing is allowed (`decide.refusal` explains).

        `talk`, the conversation, is read only when deciding needs it. `given`: the state of a
        recorded decision, in place of what the arguments say of it (C110).
        Raises RequestError: 404 for an unknown model, 400 for an unknown label.
        """
        route = self._routes.get(request.model) or self.route(request.model)
        asks, home, cached_share = None, None, 0.0
        if talk is not None and route.reads_ask:
            asks, home, cached_share = self._home(talk)
        facts = measure(request, self.policy, asks=asks, session_labels=session_labels)
        if given is None:
            call = Call(
                decision_id,
                unavailable or _NOTHING_KNOWN,
                limits,
                fallbacks,
                failure_rates or _NOTHING_KNOWN,
                late_shares or _NOTHING_KNOWN,
                home,
                cached_share,
            )
        else:
            call = _again(decision_id, given)
        if self.judge is not None and asks is not None and not route.resolved.named:
            return self._promised(self.judge, route, request, facts, call, asks)
        found = self._survey(route, request, facts, call)
        return choose(
            found, request, facts, route.resolved, call, policy=self.policy, latency=self.latency
        )

    def _promised(
        self, judge: Judge, route: Route, request: Request, facts: Facts, call: Call, asks: Asks
    ) -> Decision:
        """The decision where promises have a say."""
        found = self._survey(route, request, facts, call)
        found, unjudged = judge.applied(found, request, asks, facts.task, unjudged=call.unjudged)
        if unjudged:
            call = msgspec.structs.replace(call, unjudged=unjudged)
        decision = choose(
            found, request, facts, route.resolved, call, policy=self.policy, latency=self.latency
        )
        if call.fallbacks:  # who wants no other backend gets none, even unseen
            decision = explore(decision, judge.promises, self.policy.explore_share)
        return decision

    def _home(self, talk: Talk) -> tuple[Asks, str | None, float]:
        """(what is asked, backend that served the conversation before, share it may have cached)"""
        asks, home, share = talk.read()
        if home is None:
            return asks, None, 0.0
        id_ = self._by_mark.get(home.mark)
        return asks, id_, share if home.age_s <= self.policy.routing.cache_s else 0.0

    def look(
        self, request: Request, talk: Talk, decision: Decision, signals: Signals
    ) -> Verdict | None:
        """Whether the local answer of a cascade may be served; None: no promise holds any more.

        By the same words as the decision. Raises whatever the estimator raises.
        """
        if self.judge is None or decision.cascade is None:
            return None
        local = decision.cascade.local
        return self.judge.after(request, talk.read()[0], decision.facts.task, local, signals)

    def _survey(self, route: Route, request: Request, facts: Facts, call: Call) -> Survey:
        narrower = None if call.limits is NO_LIMIT else call.limits
        key = (request.model, request.needs, request.format, facts.task, facts.rules, narrower)
        found = self._surveys.get(key)
        if found is None:
            found = survey(
                route.candidates,
                resolved=route.resolved,
                limits=limits_of(self.policy, facts.rules, call.limits),
                needs=request.needs,
                request_format=request.format,
                task=facts.task,
                policy=self.policy,
                quality=self.quality,
            )
            _keep(self._surveys, key, found)
        return found

    def unlearned(self, model: str) -> str | None:
        """The id of the backend `model` means when only a wildcard covers it; None: all is known.

        Such a backend has no price yet; `learn` gives it one.
        """
        try:
            return (self._routes.get(model) or self.route(model)).unlearned
        except RequestError:
            return None

    def _unlearned(self, resolved: Resolved) -> str | None:
        id_ = resolved.backends[0].id if resolved.named else None
        return None if id_ is None or id_ in self.names.by_id else id_

    def learn(self, backend: Backend) -> None:
        """From now on `backend` is what its id names; a wildcard covered it before."""
        if self.names.by_id.setdefault(backend.id, backend) is backend:
            self._routes.clear()
            self._surveys.clear()

    def backend(self, candidate_id: str) -> Backend:
        """The backend that a candidate of this router asks first; KeyError for any other id."""
        candidate_id = backend_of(candidate_id)
        found = self.names.by_id.get(candidate_id) or self.names.wildcard(candidate_id)
        if found is None:
            raise KeyError(candidate_id)
        return found


def _again(decision_id: str, given: Given) -> Call:
    """The state of a recorded decision."""
    return Call(
        decision_id,
        given.unavailable,
        given.limits or NO_LIMIT,
        given.fallbacks,
        given.failure_rates,
        given.late_shares,
        given.home,
        given.cached_share,
        given.unjudged,
    )


def _names(
    policy: Policy,
    competing: Iterable[Backend],
    wildcards: Mapping[str, Backend] | None,
    only_named: Iterable[Backend],
) -> Names:
    return Names(competing, wildcards=wildcards, only_named=only_named, aliases=policy.aliases)


def _keep(memory: dict[Key, Value], key: Key, value: Value) -> None:
    if len(memory) >= KEPT:
        memory.clear()
    memory[key] = value
