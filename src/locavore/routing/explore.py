"""Which calls under a promise the other model answers too, so that the promise can be watched.

Drawn after the decision and independent of it, so what was drawn is a fair sample of the traffic.
Only two candidates that both passed every limit of the call can make a pair: a call that must not
reach the cloud is never explored, whichever side served it (invariant 1).
"""

from hashlib import blake2b

import msgspec

from locavore.core.decision import Decision, Explored, backend_of
from locavore.routing.estimators.promised import Promises

_OPEN = ("auto", "alias")
"""How a name was read that leaves the choice to us; an alias of one backend is not explored."""


def explore(decision: Decision, promises: Promises, share: float) -> Decision:
    """The decision with what the draw said; unchanged where no promise is being kept."""
    pair = _pair(decision, promises) if share > 0 else None
    if pair is None:
        return decision
    if draws(decision.id, share):
        return msgspec.structs.replace(decision, explored=pair, propensity=share)
    return msgspec.structs.replace(decision, propensity=1 - share)


def _pair(decision: Decision, promises: Promises) -> Explored | None:
    """The baseline and the local model it is measured against on this call."""
    cloud = decision.baseline
    if decision.resolved not in _OPEN or decision.stage != "route" or decision.chosen is None:
        return None
    allowed = [backend_of(c.id) for c in decision.considered if c.verdict != "excluded"]
    if cloud is None or cloud not in allowed:
        return None
    chosen = backend_of(decision.chosen)
    for local in [chosen] if chosen != cloud else allowed:
        promise = promises.id_of(local, cloud)
        if promise is not None:
            return Explored(local=local, cloud=cloud, promise=promise)
    return None


def draws(decision_id: str, share: float) -> bool:
    """Whether a call is explored: from its id alone, so a replay explores the same calls (C110)."""
    drawn = int.from_bytes(blake2b(decision_id.encode(), digest_size=8).digest(), "big")
    return drawn < share * 2**64
