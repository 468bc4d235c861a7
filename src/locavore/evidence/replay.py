"""The what-if: recorded calls, decided again under two policies by the code that decides.

A recorded call is a request body, with the usage it had if that is known; or a line of the own
ledger, where only the facts are left. What a model would have answered is not known, so quality is
what the decision expects, with its interval.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from locavore.core.decision import Considered, Decision, Facts
from locavore.core.errors import ConfigError, RequestError
from locavore.core.estimate import Estimate
from locavore.core.money import Usage, cost_of
from locavore.core.outcome import CallRecord
from locavore.core.request import Request
from locavore.routing.conversation import Talk
from locavore.routing.cost import expected_cost_usd
from locavore.routing.decide import choose
from locavore.routing.router import Router
from locavore.routing.rules import NO_LIMIT, limits_of, matching
from locavore.routing.survey import survey
from locavore.routing.weighing import Call
from locavore.serving.record import answering
from locavore.wire.formats import FORMATS


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """One call to decide again."""

    id: str
    request: Request
    usage: Usage | None = None
    """Measured; None: the decision's forecast is used."""
    facts: Facts | None = None
    """From the ledger, which keeps no prompts; None: measured from the request."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One call under one policy."""

    chosen: str | None
    place: str | None = None
    cost_usd: Decimal | None = None
    quality: Estimate | None = None
    ttft_s: float | None = None
    refused: str = ""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A call that goes elsewhere."""

    id: str
    task: str
    before: Side
    after: Side


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that move from one place to another."""

    before: str | None
    """Candidate ids; None: refused."""
    after: str | None
    calls: int
    saved_usd: Decimal
    """Over the calls whose cost is known on both sides; negative: it costs more."""
    unknown: int
    """Calls that are not in that sum."""


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """All calls under one policy."""

    calls: int
    refused: int
    cost_usd: Decimal
    cost_unknown: int
    """Calls whose cost is not in the sum."""
    quality: Estimate | None
    """Mean over the calls whose quality is known; `n` says how many."""
    ttft_s: float | None
    places: dict[str, int]


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    before: Sums
    after: Sums
    flows: list[Flow]
    """The moves, added up; most calls first."""
    moves: list[Move]


def read_calls(lines: Iterable[bytes], name: str) -> Iterator[Recorded]:
    """OpenAI-style JSON lines: a chat body, or one under `body` or `request`, with `usage` if any.

    Raises ConfigError naming the line that is none of these.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _call(msgspec.json.decode(line), number)
        except (msgspec.DecodeError, RequestError, TypeError, ValueError) as error:
            raise ConfigError([f"{name}, line {number}: {error}"]) from error


def _call(found: Any, number: int) -> Recorded:
    if not isinstance(found, dict):
        raise TypeError(f"{found!r} is no JSON object")
    body = found.get("body") or found.get("request") or found
    usage = found.get("usage") or (found.get("response") or {}).get("usage")
    return Recorded(
        id=str(found.get("custom_id") or found.get("id") or number),
        request=FORMATS["openai_chat"].request(msgspec.json.encode(body)),
        usage=_usage(usage) if isinstance(usage, dict) else None,
    )


def _usage(found: dict[str, Any]) -> Usage:
    return Usage(
        input_tokens=found.get("prompt_tokens"), output_tokens=found.get("completion_tokens")
    )


def of_ledger(records: Iterable[CallRecord]) -> Iterator[Recorded]:
    """Calls of clients in the own ledger, without what was asked beside them; what an answer needed
    beyond its facts is not kept there."""
    for record in records:
        decision = record.decision
        if record.parent_id is not None:
            continue
        served = answering(record.attempts)
        yield Recorded(
            id=record.id,
            request=Request(
                format=record.format,
                model=decision.requested,
                body=b"",
                labels=decision.facts.labels,
                key_name=record.key_name,
                max_output_tokens=None,
            ),
            usage=served.usage if served is not None else None,
            facts=decision.facts,
        )


def replay(calls: Iterable[Recorded], before: Router, after: Router) -> Replay:
    """Both policies over the same calls. The same input gives the same result."""
    sides: tuple[list[Side], list[Side]] = ([], [])
    moves = []
    for call in calls:
        (one, task), (other, _) = _side(call, before), _side(call, after)
        sides[0].append(one)
        sides[1].append(other)
        if one.chosen != other.chosen:
            moves.append(Move(id=call.id, task=task, before=one, after=other))
    return Replay(before=_sums(sides[0]), after=_sums(sides[1]), flows=_flows(moves), moves=moves)


def _flows(moves: Sequence[Move]) -> list[Flow]:
    of_way: dict[tuple[str | None, str | None], list[Move]] = {}
    for move in moves:
        of_way.setdefault((move.before.chosen, move.after.chosen), []).append(move)
    found = []
    for (before, after), same in of_way.items():
        costs = [(m.before.cost_usd, m.after.cost_usd) for m in same]
        known = [a - b for a, b in costs if a is not None and b is not None]
        found.append(
            Flow(
                before=before,
                after=after,
                calls=len(same),
                saved_usd=sum(known, Decimal(0)),
                unknown=len(same) - len(known),
            )
        )
    return sorted(found, key=lambda flow: (-flow.calls, flow.before or "", flow.after or ""))


def _side(call: Recorded, router: Router) -> tuple[Side, str]:
    try:
        decision = _decide(call, router)
    except RequestError as error:
        return Side(chosen=None, refused=error.message), "unread"
    chosen = next((c for c in decision.considered if c.id == decision.chosen), None)
    if chosen is None:
        return Side(chosen=None, refused="nothing is allowed"), decision.facts.task
    return (
        Side(
            chosen=chosen.id,
            place=chosen.place,
            cost_usd=_cost(call, chosen, router),
            quality=chosen.quality,
            ttft_s=chosen.ttft_s.mean if chosen.ttft_s is not None else None,
        ),
        decision.facts.task,
    )


def _decide(call: Recorded, router: Router) -> Decision:
    if call.facts is None:
        talk = Talk(call.request, FORMATS[call.request.format].turns)
        return router.decide(call.request, decision_id=call.id, talk=talk)
    policy, facts, route = router.policy, call.facts, router.route(call.request.model)
    rules, labels = matching(
        policy.rules,
        labels=facts.labels,
        task=facts.task,
        model=call.request.model,
        key=call.request.key_name,
    )
    found = survey(
        route.candidates,
        resolved=route.resolved,
        limits=limits_of(policy, rules, NO_LIMIT),
        needs=call.request.needs,
        request_format=call.request.format,
        task=facts.task,
        policy=policy,
        quality=router.quality,
    )
    return choose(
        found,
        call.request,
        msgspec.structs.replace(facts, rules=rules, labels=labels),
        resolved=route.resolved,
        call=Call(decision_id=call.id),
        policy=policy,
        latency=router.latency,
    )


def _cost(call: Recorded, chosen: Considered, router: Router) -> Decimal | None:
    """Of the measured tokens; a cascade's escalation at the odds that the decision saw."""
    if call.usage is None:
        return chosen.cost_usd
    usd = cost_of(call.usage, router.backend(chosen.id).price).usd
    promise = chosen.promise
    if usd is None or promise is None or promise.stays is None:
        return usd
    cloud_usd = cost_of(call.usage, router.backend(promise.cloud).price).usd
    if cloud_usd is None:
        return None
    return expected_cost_usd(promise.stays.mean, usd, cloud_usd, promise.samples)


def _sums(sides: Sequence[Side]) -> Sums:
    costs = [s.cost_usd for s in sides if s.chosen is not None]
    waits = [s.ttft_s for s in sides if s.ttft_s is not None]
    return Sums(
        calls=len(sides),
        refused=sum(s.chosen is None for s in sides),
        cost_usd=sum((c for c in costs if c is not None), Decimal(0)),
        cost_unknown=sum(c is None for c in costs),
        quality=_mean([s.quality for s in sides if s.quality is not None]),
        ttft_s=sum(waits) / len(waits) if waits else None,
        places=dict(sorted(Counter(s.place for s in sides if s.place is not None).items())),
    )


def _mean(found: Sequence[Estimate]) -> Estimate | None:
    """Of means and of bounds alike: the bounds of different calls may all err the same way."""
    if not found:
        return None
    n = len(found)
    return Estimate(
        mean=sum(e.mean for e in found) / n,
        low=sum(e.low for e in found) / n,
        high=sum(e.high for e in found) / n,
        n=n,
        source="decisions",
        unit="share of the baseline's quality",
    )
