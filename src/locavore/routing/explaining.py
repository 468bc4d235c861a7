"""A decision in words: what it rests on, and what would have changed it.

Reads nothing but the decision, so a past one explains itself and the live one is explained by what
it said, never by a second opinion (C111).
"""

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from locavore.core.decision import Considered, Decision, Promised, backend_of
from locavore.core.estimate import Estimate
from locavore.core.policy import QUALITY_FLOOR
from locavore.routing.reasons import CODES, code_of

_INSUFFICIENT = frozenset(
    {
        *("below_floor", "quality_unknown", "promise_not_kept", "promise_withdrawn"),
        *("promise_unjudged", "only_looked_at"),
    }
)
"""Notes of candidates whose quality does not suffice, or is not known to."""


class Claim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a promise says of this call."""

    candidate: str
    cloud: str
    says: str
    """The claim, and whether it holds in expectation or with confidence."""
    estimate: Estimate | None = None
    """Expected score of the local answer less the cloud's."""
    threshold: float | None = None
    stays: Estimate | None = None
    """P(the answer stays local), of a cascade."""
    labels: int = 0
    missing: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that would have led elsewhere."""

    candidate: str
    kind: str
    """`price`, `estimate`, `labels`, `floor`, `limit`, `availability`, `speed` or `policy`."""
    says: str
    at: Decimal | float | None = None
    """The value at which it flips, where there is one: US dollars a call, a share or seconds."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why it was decided so."""

    id: str
    chosen: str | None
    because: tuple[str, ...]
    claims: tuple[Claim, ...] = ()
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    """What else this decision used or did."""


def explain(decision: Decision) -> Explanation:
    """The account of a decision."""
    chosen = next((c for c in decision.considered if c.id == decision.chosen), None)
    return Explanation(
        id=decision.id,
        chosen=decision.chosen,
        because=_because(chosen),
        claims=tuple(
            _claim(c, c.promise)
            for c in decision.considered
            if c.promise is not None and "only_looked_at" not in c.reasons
        ),
        changes=tuple(_changes(decision, chosen)),
        notes=tuple(_notes(decision)),
    )


def _because(chosen: Considered | None) -> tuple[str, ...]:
    if chosen is None:
        return ("nothing that is allowed can serve it",)
    reasons = [_said(reason) for reason in chosen.reasons]
    charges = chosen.charges
    if charges is not None and charges.answer_usd != chosen.cost_usd:
        reasons.append(f"expected cost {_usd(chosen.cost_usd)}: {_made_of(chosen)}")
    return tuple(reasons)


def _said(reason: str) -> str:
    code, _, detail = reason.partition(": ")
    return f"{CODES.get(code, code)}{f' ({detail})' if detail else ''}"


def _made_of(considered: Considered) -> str:
    charges = considered.charges
    assert charges is not None  # noqa: S101 - both callers have looked
    parts = [f"{_usd(charges.answer_usd)} for the answer"]
    if charges.retries_usd:
        parts.append(f"{_usd(charges.retries_usd)} for expected retries")
    if charges.escalation_usd:
        parts.append(f"{_usd(charges.escalation_usd)} for expected escalation")
    if charges.cached_usd:
        parts.append(f"{_usd(-charges.cached_usd)} less for the cached prompt")
    return ", ".join(parts)


# What was promised -------------------------------------------------------------------------------

_BASIS = {
    "labels": "with {confidence} confidence over the draw of the labels, whatever the workload",
    "evidence": "with {confidence} confidence, over workloads that differ from the shipped ones as "
    "those differ among themselves; not in expectation only",
}


def _claim(considered: Considered, promise: Promised) -> Claim:
    held = _BASIS.get(promise.basis)
    if held is None:
        says = "nothing is promised, so nothing stays local under a promise"
    else:
        confidence = f"{promise.confidence:.0%}"
        how = "that were looked at" if promise.stage == "post" else "chosen by the request alone"
        says = (
            f"calls that stay local, {how}: at least {promise.target:.1%} of {promise.cloud}'s "
            f"quality over the workload, {held.format(confidence=confidence)}"
        )
    return Claim(
        candidate=considered.id,
        cloud=promise.cloud,
        says=says,
        estimate=promise.gain,
        threshold=promise.threshold,
        stays=promise.stays,
        labels=promise.labels,
        missing=promise.missing,
    )


# What would change it ----------------------------------------------------------------------------


def _changes(decision: Decision, chosen: Considered | None) -> list[Change]:
    found: list[Change] = []
    if decision.would_choose not in (None, decision.chosen):
        says = f'with stage = "route" it would be {decision.would_choose}'
        found.append(Change(candidate=decision.would_choose or "", kind="policy", says=says))
    if decision.resolved == "backend":
        return found
    for other in decision.considered:
        if other is chosen or "only_looked_at" in other.reasons:
            continue
        if other.verdict == "excluded":
            found += _excluders(other)
        elif chosen is not None and not suffices(chosen, decision):
            continue
        elif suffices(other, decision):
            found += _prices(chosen, other)
        else:
            found += _quality(other, decision)
    if chosen is not None and chosen.promise is not None:
        found += _of_promise(chosen, chosen.promise)
    return found


def suffices(considered: Considered, decision: Decision) -> bool:
    """Whether its quality was taken to be enough."""
    if decision.posture == "local_only":
        return True
    return _INSUFFICIENT.isdisjoint(map(code_of, considered.reasons))


def _prices(chosen: Considered | None, other: Considered) -> list[Change]:
    """Where the cheaper of two that both suffice would change."""
    if chosen is None or chosen.cost_usd is None or other.cost_usd is None:
        return []
    mine, theirs = chosen.cost_usd, other.cost_usd
    if "slow" in other.reasons and "slow" not in chosen.reasons:
        seconds = f"{other.ttft_s.mean:.0f} s" if other.ttft_s is not None else "unknown"
        says = f"its first token is forecast after {seconds}: longer than `patience_s`"
        return [Change(candidate=other.id, kind="speed", says=says)]
    if theirs <= 0 or mine > theirs:
        return []
    if mine <= 0:
        says = f"{chosen.id} is free; this would be chosen if that cost over {_usd(theirs)}"
        return [Change(candidate=other.id, kind="price", says=f"{says} a call", at=theirs)]
    says = (
        f"it would be chosen below {_usd(mine)} a call, {mine / theirs:.2f} × its price "
        f"now; or if {chosen.id} cost over {_usd(theirs)}, {theirs / mine:.2f} × its price now"
    )
    return [Change(candidate=other.id, kind="price", says=says, at=mine)]


def _quality(other: Considered, decision: Decision) -> list[Change]:
    found = []
    for reason in other.reasons:
        code = code_of(reason)
        if code == "below_floor" and other.quality is not None:
            floor = QUALITY_FLOOR.get(decision.posture, 0.0)
            says = (
                f"posture {decision.posture} asks for {floor:.2f} of the baseline's quality; its "
                f"lower bound is {other.quality.low:.2f} ({other.quality.source})"
            )
            found.append(Change(candidate=other.id, kind="floor", says=says, at=other.quality.low))
        elif code == "quality_unknown":
            says = "no benchmark of it for this task: `locavore calibrate` would tell"
            found.append(Change(candidate=other.id, kind="labels", says=says))
        elif code in ("promise_withdrawn", "promise_unjudged"):
            found.append(Change(candidate=other.id, kind="policy", says=_said(reason)))
    if other.promise is not None:
        found += _of_promise(other, other.promise)
    return found


def _of_promise(other: Considered, promise: Promised) -> list[Change]:
    found = []
    gain, threshold = promise.gain, promise.threshold
    if threshold is None:
        says = "the promise lets nothing stay local"
        found.append(Change(candidate=other.id, kind="estimate", says=says))
    elif promise.stage == "pre" and gain is not None:
        short = threshold - gain.mean
        verb = "stay local" if short > 0 else "go to the cloud"
        direction = "at" if short > 0 else "below"
        says = (
            f"it would {verb} {direction} an estimate of {threshold:+.3f}; it is {gain.mean:+.3f} "
            f"({gain.low:+.3f} to {gain.high:+.3f})"
        )
        found.append(Change(candidate=other.id, kind="estimate", says=says, at=threshold))
    if promise.missing:
        says = f"to promise more it needs {promise.missing}"
        found.append(Change(candidate=other.id, kind="labels", says=says))
    return found


_KINDS = {
    "unavailable": "availability",
    "max_ttft": "speed",
    "no_hold": "speed",
    "no_saving": "price",
    "unlikely": "estimate",
    "min_quality": "floor",
    "escalation": "limit",
    "no_look": "policy",
}


def _excluders(other: Considered) -> list[Change]:
    return [
        Change(candidate=other.id, kind=_KINDS.get(code_of(r), "limit"), says=_said(r))
        for r in other.reasons
    ]


# What else ---------------------------------------------------------------------------------------


def _notes(decision: Decision) -> list[str]:
    notes = []
    plan, given = decision.cascade, decision.given
    if plan is not None:
        notes.append(
            f"{plan.local} answers first; its answer is looked at within {plan.hold_s:g} s, and "
            f"{plan.cloud} answers when it does not hold"
        )
    if given is not None and given.home is not None:
        share = f", {given.cached_share:.0%} of the prompt taken to be cached there"
        notes.append(
            f"{given.home} served this conversation before{share if given.cached_share else ''}"
        )
    if given is not None and given.failure_rates:
        rates = ", ".join(f"{i} {r:.1%}" for i, r in sorted(given.failure_rates.items()))
        notes.append(f"tries that failed lately: {rates}")
    if given is not None and given.late_shares:
        shares = ", ".join(f"{i} {s:.0%}" for i, s in sorted(given.late_shares.items()))
        notes.append(f"answers that came too late to be looked at, lately: {shares}")
    if given is not None and given.unjudged:
        notes.append(f"promises could not be judged: {given.unjudged}")
    notes += [
        f"{c.id} counts as free: it has no price; `[machine]` sets one by the hour, and "
        "`locavore ledger local-price --help` tells how to compute one"
        for c in decision.considered
        if c.cost_usd == 0 and c.verdict != "excluded" and _local(c)
    ]
    if decision.explored is not None:
        pair = f"{decision.explored.local} and {decision.explored.cloud}"
        notes.append(f"explored: {pair} both answer, with probability {decision.propensity:g}")
    elif decision.propensity < 1:
        notes.append(f"not explored, with probability {decision.propensity:g}")
    return notes


def _local(considered: Considered) -> bool:
    return considered.place != "public_api" and considered.id == backend_of(considered.id)


def _usd(usd: Decimal | None) -> str:
    """To a tenth of a micro-dollar, without the zeros behind it."""
    if usd is None:
        return "an unknown amount"
    text = f"{usd:.7f}".rstrip("0")
    return "$" + (text + "0" if text.endswith(".") else text)


def lines(explanation: Explanation) -> Sequence[str]:
    """The account as plain text, for a terminal and for people who pipe it."""
    found = ["why"]
    found += [f"  {reason}" for reason in explanation.because]
    for claim in explanation.claims:
        found += ["", f"promise for {claim.candidate}", f"  {claim.says}"]
        found += [f"  {line}" for line in _figures(claim)]
    if explanation.changes:
        found += ["", "what would change it"]
        found += [f"  {change.candidate}: {change.says}" for change in explanation.changes]
    if explanation.notes:
        found += ["", "notes"]
        found += [f"  {note}" for note in explanation.notes]
    return found


def _figures(claim: Claim) -> list[str]:
    found = []
    gain = claim.estimate
    if gain is not None:
        said = f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}, 95 %)"
        found.append(f"estimate: local less cloud {said}; from {gain.source}")
    if claim.threshold is not None and claim.stays is None:
        found.append(f"stays local from {claim.threshold:+.3f}")
    if claim.stays is not None:
        stays = claim.stays
        share = f"{stays.mean:.2f} ({stays.low:.2f} to {stays.high:.2f}, 95 %)"
        found.append(f"P(the answer stays local): {share}, from {stays.n} {stays.source}")
    found.append(f"rests on {claim.labels} labelled calls")
    if claim.missing:
        found.append(f"missing: {claim.missing}")
    return found
