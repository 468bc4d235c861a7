"""Promises for tests that are about what follows from one, not about how it is made."""

from functools import cache

import msgspec

from locavore.routing.estimators import trunk
from locavore.routing.estimators.promised import Entry, Promises
from locavore.routing.promise import Label, Promise, Target, make_promise


def entry(local: str, cloud: str, *, keeps: bool = True, made_s: float = 0.0) -> Entry:
    """A promise of 0.9 that keeps every call at home, or none."""
    return Entry(
        local=local,
        cloud=cloud,
        pre=_promise(keeps=keeps),
        local_quality=1.0,
        cloud_quality=1.0,
        made_s=made_s,
    )


@cache
def _promise(*, keeps: bool) -> Promise:
    look = Promises(trunk.load(), ()).look
    labels = [
        Label(look=look(f"ask {k}", "chat", None), weak=float(keeps), strong=1.0)
        for k in range(400)
    ]
    made = make_promise(labels, Target(quality=0.9))
    return msgspec.structs.replace(made, threshold=-9.0 if keeps else None)
