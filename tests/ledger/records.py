"""Call records for the ledger's tests."""

from decimal import Decimal
from typing import Any

from locavore.core.decision import Considered, Decision, Facts
from locavore.core.estimate import Estimate
from locavore.core.money import Cost, Usage
from locavore.core.outcome import Attempt, CallRecord

NOON_S = 1_767_268_800.0
"""2026-01-01 12:00 UTC."""


def usd(amount: str) -> Cost:
    return Cost(usd=Decimal(amount), source="test 1")


def decision(call_id: str, **changes: Any) -> Decision:
    fields: dict[str, Any] = {
        "id": call_id,
        "requested": "auto",
        "resolved": "auto",
        "chosen": "home/small",
        "considered": tuple(
            Considered(
                id=f"home/{size}",
                place="on_prem",
                verdict="allowed",
                reasons=("not_needed: cheaper exists",),
                cost_usd=Decimal("0.000125"),
                quality=Estimate.exact(0.9, source="catalog"),
            )
            for size in ("small", "middle", "large")
        ),
        "facts": Facts(
            input_tokens=Estimate.exact(100, source="count"), output_tokens=64, task="chat"
        ),
        "stage": "route",
        "posture": "local_first",
    }
    return Decision(**(fields | changes))


def attempt(n: int = 0, **changes: Any) -> Attempt:
    fields: dict[str, Any] = {
        "id": f"a{n}",
        "backend": "home/small",
        "provider": "vllm",
        "model": "small",
        "place": "on_prem",
        "started_s": NOON_S,
        "duration_s": 0.25,
        "ttft_s": 0.1,
        "status": 200,
        "usage": Usage(input_tokens=100, output_tokens=20),
        "cost": usd("0.000125"),
    }
    return Attempt(**(fields | changes))


def call(call_id: str = "d1", *attempts: Attempt, **changes: Any) -> CallRecord:
    fields: dict[str, Any] = {
        "id": call_id,
        "format": "openai_chat",
        "started_s": NOON_S,
        "duration_s": 0.3,
        "outcome": "served",
        "status": 200,
        "decision": decision(call_id),
        "attempts": attempts or (attempt(),),
        "baseline_cost": usd("0.001"),
    }
    return CallRecord(**(fields | changes))
