"""Which rules bind a call, and the limits they add up to. Rules only narrow."""

from collections.abc import Iterable
from decimal import Decimal
from typing import TypeVar

from locavore.core.backend import Place
from locavore.core.policy import Policy, Require, Rule, When

Number = TypeVar("Number", Place, Decimal, float)
NO_LIMIT = Require()


def matching(
    rules: tuple[Rule, ...], *, labels: frozenset[str], task: str, model: str, key: str | None
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Names of the rules that match, in order, and the labels the call then carries.

    A rule may set a label that another waits for, so they are read until nothing changes. Labels
    only grow, so the end does not depend on the order of the rules.
    """
    matched: set[str] = set()
    grew = True
    while grew:
        grew = False
        for rule in rules:
            if rule.name not in matched and _holds(rule.when, labels, task, model, key):
                matched.add(rule.name)
                grew = grew or not rule.set_labels <= labels
                labels |= rule.set_labels
    return tuple(r.name for r in rules if r.name in matched), labels


def _holds(when: When, labels: frozenset[str], task: str, model: str, key: str | None) -> bool:
    return (
        (when.label is None or when.label in labels)
        and (when.task is None or when.task == task)
        and (when.model is None or when.model == model)
        and (when.key is None or when.key == key)
    )


def narrow(first: Require, second: Require) -> Require:
    """Both at once: in each respect the narrower of the two."""
    return Require(
        farthest=_least(first.farthest, second.farthest),
        jurisdictions=_both(first.jurisdictions, second.jurisdictions),
        backends=_both(first.backends, second.backends),
        capabilities=first.capabilities | second.capabilities,
        max_cost_usd=_least(first.max_cost_usd, second.max_cost_usd),
        max_ttft_s=_least(first.max_ttft_s, second.max_ttft_s),
        min_quality=_most(first.min_quality, second.min_quality),
        known_price=first.known_price or second.known_price,
    )


def limits_of(policy: Policy, rules: Iterable[str], caller: Require = NO_LIMIT) -> Require:
    """What binds a call: the policy's limits, its posture, the rules that matched, the caller."""
    total = narrow(policy.limits, caller)
    if policy.posture == "local_only":
        total = narrow(total, Require(farthest=Place.PRIVATE_CLOUD))
    names = set(rules)
    for rule in policy.rules:
        if rule.name in names:
            total = narrow(total, rule.require)
    return total


def covers(first: Rule, second: Rule) -> bool:
    """Whether `second` can never add to `first`: it matches no more calls and asks no more."""
    return (
        _broader(first.when, second.when)
        and narrow(first.require, second.require) == first.require
        and second.set_labels <= first.set_labels
    )


def _broader(first: When, second: When) -> bool:
    """Every call that `second` matches is matched by `first`."""
    pairs = (
        (first.label, second.label),
        (first.task, second.task),
        (first.model, second.model),
        (first.key, second.key),
    )
    return all(mine is None or mine == theirs for mine, theirs in pairs)


def _least(first: Number | None, second: Number | None) -> Number | None:
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)


def _most(first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return second if first is None else first
    return max(first, second)


def _both(first: frozenset[str] | None, second: frozenset[str] | None) -> frozenset[str] | None:
    if first is None or second is None:
        return second if first is None else first
    return first & second
