"""One snapshot's names, facts and decisions, with what can be kept between calls.

The live path, `POST /v1/route` and `locavore route` all call `Router.decide`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import msgspec

from locavore.core.backend import Backend
from locavore.core.decision import Candidate, Decision, Facts
from locavore.core.errors import RequestError
from locavore.core.policy import Policy, Require
from locavore.core.request import Request
from locavore.routing.decide import Call, Latency, choose
from locavore.routing.estimators.promised import Promises
from locavore.routing.explore import explore
from locavore.routing.facts import measure
from locavore.routing.latency import forecast_ttft_s
from locavore.routing.names import Names, Resolved
from locavore.routing.quality import Priors, Quality
from locavore.routing.rules import NO_LIMIT, limits_of
from locavore.routing.survey import Survey, survey

Key = TypeVar("Key")
Value = TypeVar("Value")
_ALL_THERE: Mapping[str, str] = {}
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
            route = Route(
                resolved=resolved,
                candidates=tuple(Candidate(backend=b) for b in backends),
                reads_ask=not resolved.named or self._looks_at_task,
                unlearned=self._unlearned(resolved),
            )
            _keep(self._routes, model, route)
        return route

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

    def facts(
        self, request: Request, *, ask: str | None, session_labels: frozenset[str] = frozenset()
    ) -> Facts:
        return measure(request, self.policy, ask=ask, session_labels=session_labels)

    def decide(
        self,
        request: Request,
        *,
        decision_id: str,
        ask: Callable[[bytes], str] | None = None,
        session_labels: frozenset[str] = frozenset(),
        unavailable: Mapping[str, str] | None = None,
        limits: Require = NO_LIMIT,
        fallbacks: bool = True,
    ) -> Decision:
        """The decision; `chosen` is None when nothing is allowed (`decide.refusal` explains).

        `ask` reads the last user message from the body; it is called only when deciding needs it.
        Raises RequestError: 404 for an unknown model, 400 for an unknown label.
        """
        route = self._routes.get(request.model) or self.route(request.model)
        words = ask(request.body) if ask is not None and route.reads_ask else None
        facts = measure(request, self.policy, ask=words, session_labels=session_labels)
        call = Call(decision_id, unavailable or _ALL_THERE, limits, fallbacks)
        found = self._survey(route, request, facts, call)
        promises = self.promises if words is not None else None
        if promises and words is not None and self.baseline is not None:
            found = promises.applied(found, words, facts.task, self.baseline.id)
        decision = choose(
            found, request, facts, route.resolved, call, policy=self.policy, latency=self.latency
        )
        if promises and fallbacks:  # who wants no other backend tried gets none, not even unseen
            decision = explore(decision, promises, self.policy.explore_share)
        return decision

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
        """The backend of a candidate this router decided for; KeyError for any other id."""
        found = self.names.by_id.get(candidate_id) or self.names.wildcard(candidate_id)
        if found is None:
            raise KeyError(candidate_id)
        return found


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
