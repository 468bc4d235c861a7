"""How far the telemetry of a call may travel: no farther than the call itself (C91)."""

from collections.abc import Iterator

from locavore.core.backend import Place
from locavore.core.outcome import CallRecord
from locavore.core.policy import Policy, Require

_PLACES = {place.label: place for place in Place}


def farthest(record: CallRecord, policy: Policy) -> Place:
    """By the limits of every call, of the rules that matched, and of its labels.

    A rule that is not in the policy any more, or a label that no rule explains, keeps it at home.
    """
    by_name = {rule.name: rule.require for rule in policy.rules}
    matched = [by_name.get(name) for name in record.decision.facts.rules]
    if None in matched:
        return Place.EMBEDDED
    places = [place for require in matched if require for place in _of(require, record)]
    if record.decision.facts.labels and not places:
        places.append(Place.ON_PREM)
    if policy.posture == "local_only":
        places.append(Place.PRIVATE_CLOUD)
    return min((*places, *_of(policy.limits, record)), default=Place.PUBLIC_API)


def _of(require: Require, record: CallRecord) -> Iterator[Place]:
    """Every bound that one set of limits sets."""
    if require.farthest is not None:
        yield require.farthest
    if require.jurisdictions is not None:
        # A collector's is unknown, and unknown fails such a limit beyond our network.
        yield Place.ON_PREM
    if require.backends is not None:
        listed = [c.place for c in record.decision.considered if c.id in require.backends]
        yield max(map(_PLACES.__getitem__, listed), default=Place.EMBEDDED)
