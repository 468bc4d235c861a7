"""How far the telemetry of a call may travel: no farther than the call itself (C91)."""

from locavore.core.backend import Place
from locavore.core.outcome import CallRecord
from locavore.core.policy import Policy, Require


def farthest(record: CallRecord, policy: Policy) -> Place:
    """By the limits of every call, of the rules that matched, and of its labels.

    A rule that is not in the policy any more, or a label that no rule explains, keeps it at home.
    """
    by_name = {rule.name: rule.require for rule in policy.rules}
    matched = [by_name.get(name) for name in record.decision.facts.rules]
    if None in matched:
        return Place.EMBEDDED
    limits = [policy.limits, *(require for require in matched if require is not None)]
    places = [place for require in limits if (place := _of(require)) is not None]
    if policy.posture == "local_only":
        places.append(Place.PRIVATE_CLOUD)
    if record.decision.facts.labels and not places:
        places.append(Place.ON_PREM)
    return min(places, default=Place.PUBLIC_API)


def _of(require: Require) -> Place | None:
    """A collector's jurisdiction is unknown, and unknown fails such a limit beyond our network."""
    if require.jurisdictions is None:
        return require.farthest
    return Place.ON_PREM if require.farthest is None else min(Place.ON_PREM, require.farthest)
