"""One journal record as rows: money as integers, unknown as NULL, strings as they are.

The record is decoded into slim structs here, because the store needs a tenth of it; the whole
is kept as bytes.
"""

from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Context, Decimal

import msgspec

PICO = Decimal(10) ** 12
"""Pico-dollars in a dollar: prices with up to six decimals per million tokens stay exact."""
LARGEST_USD = 10_000
"""Ten thousand dollars for one attempt: more is a mistake, and a sum of these fits 64 bits."""
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)


def pico_of(usd: Decimal) -> int:
    """Whole pico-dollars; a finer figure is rounded half to even. Raises ValueError if absurd."""
    if not usd.is_finite() or not -LARGEST_USD <= usd <= LARGEST_USD:
        raise ValueError(f"an amount of {usd!r} USD cannot be right")
    scaled = usd * PICO
    pico = int(scaled)
    if pico == scaled:
        return pico
    return int(_EXACT.multiply(usd, PICO).to_integral_value(rounding=ROUND_HALF_EVEN))


def usd_of(pico: int) -> Decimal:
    """Pico-dollars as exact dollars."""
    return Decimal(pico).scaleb(-12, _EXACT)


class SlimCost(msgspec.Struct, frozen=True):
    usd: Decimal | None = None
    estimated: bool = False
    source: str = ""


class SlimUsage(msgspec.Struct, frozen=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    estimated: bool = False


class SlimAttempt(msgspec.Struct, frozen=True):
    id: str
    backend: str
    provider: str
    model: str
    place: str
    started_s: float
    kind: str = "first"
    ttft_s: float | None = None
    duration_s: float = 0.0
    status: int | None = None
    fault: str | None = None
    usage: SlimUsage = SlimUsage()
    cost: SlimCost = SlimCost()


class SlimFacts(msgspec.Struct, frozen=True):
    task: str = "chat"


class SlimExplored(msgspec.Struct, frozen=True):
    local: str
    cloud: str
    promise: str


class SlimDecision(msgspec.Struct, frozen=True):
    requested: str
    facts: SlimFacts
    chosen: str | None = None
    propensity: float = 1.0
    explored: SlimExplored | None = None


class SlimShadow(msgspec.Struct, frozen=True):
    """What the record of a shadow's call says of the two answers (`serving.shadow.Compared`)."""

    form_served: float
    form_shadow: float
    agrees: bool


class SlimExtra(msgspec.Struct, frozen=True):
    shadow: SlimShadow | None = None


class SlimCall(msgspec.Struct, frozen=True):
    """What the store's columns need of a `core.outcome.CallRecord`."""

    id: str
    format: str
    started_s: float
    duration_s: float
    outcome: str
    status: int
    decision: SlimDecision
    stream: bool = False
    attempts: tuple[SlimAttempt, ...] = ()
    key_name: str | None = None
    tenant: str | None = None
    team: str | None = None
    session: str | None = None
    user: str | None = None
    parent_id: str | None = None
    flags: tuple[str, ...] = ()
    baseline_cost: SlimCost | None = None
    extra: SlimExtra = SlimExtra()


decode = msgspec.msgpack.Decoder(SlimCall).decode

Row = tuple[int | float | str | bytes | None, ...]
CALL_COLUMNS = (
    "seq", "id", "writer", "parent_id", "started_ms", "duration_ms", "format", "stream", "outcome",
    "status", "requested", "task", "backend", "tenant", "team", "key", "user", "session",
    "attempts", "unknown_cost", "cost_pico", "baseline_pico", "flags",
)  # fmt: skip


class Money(msgspec.Struct, frozen=True):
    """What a call cost, in pico-dollars."""

    known_pico: int
    """Sum of the attempts whose cost is known."""
    unknown: int
    """Attempts whose cost is not."""
    baseline_pico: int | None


def money_of(call: SlimCall, costs: list[int | None]) -> Money:
    """`costs` are those of the attempts, in order."""
    known = [cost for cost in costs if cost is not None]
    usd = call.baseline_cost.usd if call.baseline_cost else None
    return Money(
        sum(known), len(costs) - len(known), baseline_pico=None if usd is None else pico_of(usd)
    )


def attempt_costs(call: SlimCall) -> list[int | None]:
    """Pico-dollars of each attempt; None: unknown."""
    return [_cost_of(attempt) for attempt in call.attempts]


def _cost_of(attempt: SlimAttempt) -> int | None:
    if attempt.cost.usd is not None:
        return pico_of(attempt.cost.usd)
    return 0 if never_billed(attempt) else None


NEVER_REACHED = frozenset({"connect", "connect_timeout"})


def never_billed(attempt: SlimAttempt) -> bool:
    """Whether nobody can charge for it: refused with an HTTP error, or never accepted."""
    return attempt.fault in NEVER_REACHED or (attempt.status or 0) >= 400


def call_row(seq: int, writer: int, call: SlimCall, money: Money) -> Row:
    """In the order of the columns of `calls`."""
    return (
        seq,
        call.id,
        writer,
        call.parent_id,
        int(call.started_s * 1000),
        int(call.duration_s * 1000),
        call.format,
        int(call.stream),
        call.outcome,
        call.status,
        call.decision.requested,
        call.decision.facts.task,
        final_backend(call),
        call.tenant or "",
        call.team or "",
        call.key_name or "",
        call.user,
        call.session,
        len(call.attempts),
        money.unknown,
        money.known_pico,
        money.baseline_pico,
        " ".join(call.flags),
    )


SAMPLE = "sample"
"""Kind of an attempt whose answer only votes; nobody was served it."""


def final_backend(call: SlimCall) -> str:
    """Who answered, or who failed last; empty when nobody was asked."""
    attempt = final_attempt(call)
    return "" if attempt is None else attempt.backend


def final_attempt(call: SlimCall) -> SlimAttempt | None:
    """The one that answered, which a cascade's samples and its cloud may follow in vain; of a call
    that nobody answered the last one."""
    if call.outcome == "served":
        for attempt in reversed(call.attempts):
            if attempt.fault is None and attempt.kind != SAMPLE:
                return attempt
    return call.attempts[-1] if call.attempts else None


def attempt_rows(seq: int, call: SlimCall, costs: list[int | None]) -> Iterator[Row]:
    """In the order of the columns of `attempts`."""
    for n, (attempt, cost) in enumerate(zip(call.attempts, costs, strict=True)):
        usage = attempt.usage
        yield (
            seq,
            n,
            attempt.id,
            attempt.kind,
            attempt.backend,
            attempt.provider,
            attempt.model,
            attempt.place,
            int(attempt.started_s * 1000),
            int(attempt.duration_s * 1000),
            None if attempt.ttft_s is None else int(attempt.ttft_s * 1000),
            attempt.status,
            attempt.fault,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
            usage.input_audio_tokens,
            usage.output_audio_tokens,
            int(usage.estimated or attempt.cost.estimated),
            cost,
            attempt.cost.source,
        )


def served_by(call: SlimCall) -> str | None:
    """Whose answer the client got; None: nobody's."""
    if call.outcome != "served":
        return None
    return final_backend(call) or None


def explored_row(call: SlimCall) -> Row | None:
    """The first columns of `explored`; None: it was not, or neither of the pair served it."""
    found, server = call.decision.explored, served_by(call)
    if found is None or call.parent_id is not None or server not in (found.local, found.cloud):
        return None
    return (
        call.id,
        found.promise,
        found.local,
        found.cloud,
        call.decision.facts.task,
        int(server == found.local),
        call.decision.propensity,
        int(call.started_s * 1000),
    )


def shadow_row(seq: int, call: SlimCall) -> Row | None:
    """(seq, form_served, form_shadow, agrees, explored id); None: it is no answered shadow."""
    said = call.extra.shadow
    if said is None or call.parent_id is None:
        return None
    return seq, said.form_served, said.form_shadow, int(said.agrees), call.parent_id
