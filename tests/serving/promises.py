"""A promise as `locavore calibrate` would leave it, for tests that need one on disk."""

from functools import cache

from locavore.routing.estimators import trunk
from locavore.routing.estimators.promised import Entry, Promises
from locavore.routing.estimators.signals import Signals
from locavore.routing.promise import Label, Target, general_evidence, make_promise, nothing


@cache
def short_answers_are_right(local: str, cloud: str) -> Entry:
    """No request tells; the local model's answers of one token are right, those of 200 wrong."""
    shipped = trunk.load()
    looks, labels = Promises(shipped, ()), []
    for k in range(300):
        right = k % 2 == 0
        signals = Signals(out_tok=1 if right else 200)
        look = looks.look(f"What is {k} times seven?", "math", signals)
        labels.append(Label(look=look, weak=float(right), strong=1.0))
    post = make_promise(labels, Target(), general_evidence(shipped.gain_post))
    assert post.share > 0.2
    return Entry(
        local=local,
        cloud=cloud,
        pre=nothing(Target(), 300, "a request that tells"),
        post=post,
        local_quality=0.5,
        cloud_quality=1.0,
        made_s=0.0,
    )
