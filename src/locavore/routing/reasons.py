"""Reason codes: what stands behind a verdict in a Decision. `code` or `code: detail`."""

EXCLUDES: dict[str, str] = {
    "place": "farther away than the labels, rules or posture of this call allow",
    "jurisdiction": "its jurisdiction is not among those allowed, or not known",
    "not_listed": "a rule names the backends this call may use, and this is none of them",
    "capability_missing": "it cannot do something the request needs",
    "capability_unknown": "nobody has checked that it can do something the request needs",
    "untranslatable": "its protocol has no words for something the request needs",
    "context": "prompt and output budget do not fit its window",
    "output": "the request asks for a longer answer than it can give",
    "price_unknown": "a known price is required",
    "max_cost": "its forecast cost is over the limit",
    "max_ttft": "its forecast time to first token is over the limit",
    "min_quality": "its quality on this task is unknown or under the limit",
    "embedding_family": "its vectors are not comparable with those of the others",
    "unavailable": "it cannot be reached now",
    "escalation": "the model it would escalate to may not serve this call",
    "no_look": "its answer cannot be looked at before it is served: a stream that is not held "
    "back, several answers, or no other backend wanted",
    "no_hold": "looking at its answer takes longer than the client may be kept waiting",
    "unlikely": "its answer is too unlikely to stay local",
    "no_saving": "trying it first is expected to cost more than it saves",
    "test_model": "the built-in test model only serves when there is nothing else",
}
"""Codes of an exclusion."""

NOTES: dict[str, str] = {
    "named": "the client named it",
    "configured_fallback": "configured as a fallback of the named backend",
    "baseline": 'stage = "observe": `auto` goes to the baseline',
    "baseline_excluded": "the baseline is excluded, so the decision is what the limits allow",
    "cheapest": "the cheapest whose quality suffices",
    "only_one": "nothing else is allowed",
    "quality_unknown": "no benchmark of it for this task",
    "promise_kept": "calibration promised that calls like this one may stay with it",
    "promise_not_kept": "its promise does not reach calls like this one",
    "promise_withdrawn": "the promise was broken: only a new `locavore calibrate` restores one",
    "promise_unjudged": "its promise could not be judged, so it does not serve under it",
    "only_looked_at": "its answers are looked at before they are served: see its cascade",
    "home": "it served this conversation before",
    "below_floor": "its quality on this task is under the posture's floor",
    "slow": "its forecast time to first token is longer than the patience configured",
    "cost_unknown": "it has no known price, so it cannot be the cheapest",
    "capability_unchecked": "nobody has checked that it can do something the request needs",
    "test_model_only": "the built-in test model: nothing else is configured or found",
    "over_fallbacks": "allowed, but there are enough fallbacks before it",
    "no_fallback": "allowed, but this call has no fallbacks",
}
"""Codes that explain a choice or qualify it."""

CODES = EXCLUDES | NOTES

AVAILABILITY = frozenset({"unavailable"})
"""Codes that may pass with time: only these make a refusal a 503."""


def code_of(reason: str) -> str:
    """The code of a `code: detail` line."""
    return reason.partition(":")[0]
