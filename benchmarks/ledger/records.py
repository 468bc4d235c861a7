"""What the ledger is measured with: calls as the gateway records them, and a year of history."""

import sqlite3
from decimal import Decimal

from locavore.core.decision import Considered, Decision, Facts
from locavore.core.estimate import Estimate
from locavore.core.money import Cost, Usage
from locavore.core.outcome import Attempt, CallRecord
from locavore.ledger.sqlite import transaction
from locavore.ledger.sums import DAY_S, HOUR_S, KEYS

START_S = 1_735_689_600
"""2025-01-01 UTC: the synthetic history is the year from here."""
YEAR_DAYS = 365
NOW_S = START_S + YEAR_DAYS * DAY_S
BACKENDS = ("home/small", "home/large", "openai/gpt", "anthropic/claude")
IN_MTOK, OUT_MTOK = Decimal("0.15"), Decimal("0.6")


def record(n: int) -> CallRecord:
    """A call like the gateway's: four candidates, one attempt, tokens and cost of its own."""
    considered = tuple(
        Considered(
            id=backend,
            place="on_prem",
            verdict="allowed",
            reasons=("not_needed",),
            cost_usd=Decimal("0.000125"),
            quality=Estimate.exact(0.9, source="catalog"),
        )
        for backend in BACKENDS
    )
    facts = Facts(input_tokens=Estimate.exact(400, source="bytes"), output_tokens=256)
    call_id = f"{START_S * 1000 + n:011x}-a1b2c3d4e5f6-{n:x}"
    sent, answered = 200 + n * 7919 % 3000, 20 + n * 104_729 % 500
    usage = Usage(input_tokens=sent, output_tokens=answered)
    cost = Cost(usd=(sent * IN_MTOK + answered * OUT_MTOK).scaleb(-6), source="config")
    return CallRecord(
        id=call_id,
        format="openai_chat",
        started_s=NOW_S + n / 1000,
        duration_s=0.4 + n % 89 / 100,
        outcome="served",
        status=200,
        decision=Decision(
            id=call_id,
            requested="auto",
            resolved="auto",
            chosen=BACKENDS[0],
            considered=considered,
            facts=facts,
            stage="route",
            posture="local_first",
        ),
        attempts=(
            Attempt(
                id="1",
                backend=BACKENDS[n % 4],
                provider="vllm",
                model="small",
                place="on_prem",
                started_s=NOW_S + n / 1000,
                status=200,
                ttft_s=0.05 + n % 97 / 1000,
                duration_s=0.4 + n % 89 / 100,
                usage=usage,
                cost=cost,
            ),
        ),
        key_name=f"key{n % 10}",
        baseline_cost=cost,
    )


def history(db: sqlite3.Connection, entries: int) -> int:
    """`entries` calls with one attempt each, spread over a year, 4 backends and 10 keys; how many
    rows of sums that made."""
    numbers = (
        f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {entries - 1})"
    )
    step_ms = YEAR_DAYS * DAY_S * 1000 // entries
    started = f"{START_S * 1000} + i * {step_ms}"
    names = " ".join(f"WHEN {n} THEN '{b}'" for n, b in enumerate(BACKENDS))
    backend = f"CASE i % 4 {names} END"
    measures = {
        "calls": "count(*)",
        "served": "count(*)",
        "duration_ms": "sum(duration_ms)",
        "attempts": "count(*)",
        "input_tokens": "400 * count(*)",
        "output_tokens": "100 * count(*)",
        "cost_pico": "sum(cost_pico)",
        "compared": "count(*)",
        "compared_cost_pico": "sum(cost_pico)",
        "baseline_pico": "sum(baseline_pico)",
    }
    others = ("failed", "refused", "cancelled", "unknown_cost", "missing_usage", "estimated",
              "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")  # fmt: skip
    measures |= dict.fromkeys(others, "0")
    with transaction(db):
        db.execute(
            f"INSERT INTO calls {numbers} SELECT i + 1, printf('h%031x', i), 1, NULL, {started},"
            f" 400, 'openai_chat', 0, 'served', 200, 'auto', 'chat', {backend}, '', '',"
            " 'key' || (i / 4 % 10), NULL, NULL, 1, 0, 125000000, 125000000, '' FROM n"
        )
        db.execute(
            f"INSERT INTO attempts {numbers} SELECT i + 1, 0, '1', 'first', {backend}, 'vllm', 'm',"
            f" 'on_prem', {started}, 400, 100, 200, NULL, 400, 100, NULL, NULL, NULL, NULL, NULL,"
            " 0, 125000000, 'config' FROM n"
        )
        for span_s in (HOUR_S, DAY_S):
            db.execute(
                f"INSERT INTO sums ({', '.join((*KEYS, *measures))})"
                f" SELECT {span_s}, started_ms / {span_s * 1000}, tenant, team, key, task, format,"
                f" backend, 'vllm', 'on_prem', {', '.join(measures.values())}"
                " FROM calls GROUP BY 2, key, backend"
            )
    return int(db.execute("SELECT count(*) FROM sums").fetchone()[0])
