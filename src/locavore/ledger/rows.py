"""One journal record as rows: money as integers, unknown as NULL, strings as they are.

The record is decoded into slim structs here, because the store needs a tenth of it; the whole
is kept as bytes.
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation

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


SAMPLE = "sample"
"""Kind of an attempt whose answer only votes; nobody was served it."""


class _PicoOf(dict[str, int]):
    """Decimal dollars as text -> pico-dollars. Prices times tokens repeat, and parsing costs ten
    times a look-up."""

    def __missing__(self, usd: str) -> int:
        if len(self) >= KEPT_AMOUNTS:
            self.clear()
        try:
            pico = pico_of(Decimal(usd))
        except InvalidOperation as error:
            raise ValueError(f"{usd!r} is no amount of US dollars") from error
        self[usd] = pico
        return pico


KEPT_AMOUNTS = 8192
_pico_of_text = _PicoOf()


class SlimCost(msgspec.Struct, frozen=True, gc=False):
    usd: str | None = None
    estimated: bool = False
    source: str = ""


class SlimUsage(msgspec.Struct, frozen=True, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    estimated: bool = False


class SlimAttempt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    id: str
    backend: str
    provider: str
    model: str
    place: str
    kind: str = "first"
    started_s: float
    ttft_s: float | None = None
    duration_s: float = 0.0
    status: int | None = None
    fault: str | None = None
    usage: SlimUsage = SlimUsage()
    cost: SlimCost = SlimCost()


class SlimFacts(msgspec.Struct, frozen=True, gc=False):
    task: str = "chat"


class SlimConsidered(msgspec.Struct, frozen=True, gc=False):
    place: str
    verdict: str
    reasons: tuple[str, ...] = ()


class SlimFirst(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The first of the candidates considered, which is the chosen one; the decoder skips the
    rest."""

    first: SlimConsidered | None = None


class SlimExplored(msgspec.Struct, frozen=True, gc=False):
    local: str
    cloud: str
    promise: str


class SlimDecision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    requested: str
    considered: SlimFirst = SlimFirst()
    facts: SlimFacts
    baseline: str | None = None
    propensity: float = 1.0
    explored: SlimExplored | None = None


class SlimShadow(msgspec.Struct, frozen=True, gc=False):
    """What the record of a shadow's call says of the two answers, `core.outcome.Compared`."""

    form_served: float
    form_shadow: float
    agrees: bool


class SlimExtra(msgspec.Struct, frozen=True, gc=False):
    shadow: SlimShadow | None = None


class SlimCall(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the store's columns need of a `core.outcome.CallRecord`, in the record's order: the
    decoder finds each field where it looks first."""

    id: str
    format: str
    stream: bool = False
    started_s: float
    duration_s: float
    outcome: str
    status: int
    decision: SlimDecision
    attempts: tuple[SlimAttempt, ...] = ()
    key_name: str | None = None
    tenant: str | None = None
    team: str | None = None
    parent_id: str | None = None
    session: str | None = None
    user: str | None = None
    flags: tuple[str, ...] = ()
    baseline_cost: SlimCost | None = None
    extra: SlimExtra = SlimExtra()


decode = msgspec.msgpack.Decoder(SlimCall).decode


def without_nul(call: SlimCall) -> SlimCall:
    """As a database can hold it: PostgreSQL has no text with a NUL in it, and one such name from a
    client must not stop the books. The record keeps it."""
    text = msgspec.json.encode(call).replace(b"\\u0000", "\ufffd".encode())
    return msgspec.json.decode(text, type=SlimCall)


Row = tuple[int | float | str | bytes | None, ...]
CALL_COLUMNS = (
    "seq", "id", "writer", "parent_id", "started_ms", "duration_ms", "format", "stream", "outcome",
    "status", "requested", "task", "backend", "tenant", "team", "key", "user", "session",
    "attempts", "unknown_cost", "cost_pico", "baseline_pico", "flags",
)  # fmt: skip
ATTEMPT_COLUMNS = (
    "seq", "n", "id", "kind", "backend", "provider", "model", "place", "started_ms", "duration_ms",
    "ttft_ms", "status", "fault", "input_tokens", "output_tokens", "cache_read_tokens",
    "cache_write_tokens", "reasoning_tokens", "input_audio_tokens", "output_audio_tokens",
    "estimated", "cost_pico", "price_source",
)  # fmt: skip


def rows_of(seq: int, writer: int, call: SlimCall) -> tuple[Row, list[Row]]:
    """The row of `calls` and the rows of `attempts`, in the order of their columns.

    Raises ValueError for an absurd amount. Long, because every call of the gateway comes by here
    and each call of a function would cost it 0.1 µs.
    """
    attempts: list[Row] = []
    known_pico = unknown = 0
    for attempt in call.attempts:
        usage, cost, ttft_s = attempt.usage, attempt.cost, attempt.ttft_s
        pico: int | None = None
        if cost.usd is not None:
            pico = _pico_of_text[cost.usd]
            known_pico += pico
        elif never_billed(attempt):
            pico = 0
        else:
            unknown += 1
        attempts.append(
            (
                seq,
                len(attempts),
                attempt.id,
                attempt.kind,
                attempt.backend,
                attempt.provider,
                attempt.model,
                attempt.place,
                int(attempt.started_s * 1000),
                int(attempt.duration_s * 1000),
                None if ttft_s is None else int(ttft_s * 1000),
                attempt.status,
                attempt.fault,
                usage.input_tokens,
                usage.output_tokens,
                usage.cache_read_tokens,
                usage.cache_write_tokens,
                usage.reasoning_tokens,
                usage.input_audio_tokens,
                usage.output_audio_tokens,
                1 if usage.estimated or cost.estimated else 0,
                pico,
                cost.source,
            )
        )
    decision, baseline = call.decision, call.baseline_cost
    final = call.attempts[0] if len(attempts) == 1 else final_attempt(call)
    row = (
        seq,
        call.id,
        writer,
        call.parent_id,
        int(call.started_s * 1000),
        int(call.duration_s * 1000),
        call.format,
        1 if call.stream else 0,
        call.outcome,
        call.status,
        decision.requested,
        decision.facts.task,
        "" if final is None else final.backend,
        call.tenant or "",
        call.team or "",
        call.key_name or "",
        call.user,
        call.session,
        len(attempts),
        unknown,
        known_pico,
        None if baseline is None or baseline.usd is None else _pico_of_text[baseline.usd],
        " ".join(call.flags) if call.flags else "",
    )
    return row, attempts


def final_attempt(call: SlimCall) -> SlimAttempt | None:
    """The one that answered, which a cascade's samples and its cloud may follow in vain; of a call
    that nobody answered the last one."""
    if call.outcome == "served":
        for attempt in reversed(call.attempts):
            if attempt.fault is None and attempt.kind != SAMPLE:
                return attempt
    return call.attempts[-1] if call.attempts else None


NEVER_REACHED = frozenset({"connect", "connect_timeout"})


def never_billed(attempt: SlimAttempt) -> bool:
    """Whether nobody can charge for it: refused with an HTTP error, or never accepted."""
    return attempt.fault in NEVER_REACHED or (attempt.status or 0) >= 400


def served_by(call: SlimCall) -> str | None:
    """Whose answer the client got; None: nobody's."""
    final = final_attempt(call) if call.outcome == "served" else None
    return None if final is None else final.backend


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
