"""Savings are net of all they took, and say how wrong they may be."""

from decimal import Decimal
from pathlib import Path

from locavore.core.backend import Place
from locavore.core.decision import Given
from locavore.core.money import Cost, Price, Rate, Usage
from locavore.core.outcome import CallRecord
from locavore.core.request import Request
from locavore.ledger.savings import GUESSED, TOKENIZERS, Savings, savings
from locavore.serving.record import call_record
from tests.ledger.records import attempt, call, decision, usd
from tests.ledger.test_report import CLOUD, reported
from tests.serving.doubles import backend

BASELINE = "openai/gpt"


def found(home: Path, *records: CallRecord) -> Savings:
    return savings(reported(home, *records).total)


def against(call_id: str, *attempts: object, **changes: object) -> CallRecord:
    told = decision(call_id, baseline=BASELINE)
    return call(call_id, *attempts, decision=told, **changes)  # type: ignore[arg-type]


def test_everything_that_was_paid_is_taken_off(tmp_path: Path) -> None:
    retried = (
        attempt(0, fault="truncated", cost=usd("0.0001")),
        attempt(1, kind="retry", cost=usd("0.0002")),
        attempt(2, kind="sample", cost=usd("0.00003")),
    )
    judge = against("j", attempt(cost=usd("0.00004"), **CLOUD), parent_id="a", baseline_cost=None)
    told = found(tmp_path, against("a", *retried), judge)
    assert told.baseline_usd == Decimal("0.001")
    assert told.retries_usd == Decimal("0.00013")
    assert told.beside_usd == Decimal("0.00004")
    assert told.paid_usd == Decimal("0.00037")
    assert told.net_usd == Decimal("0.00063")
    assert (told.low_usd, told.high_usd) == (
        told.net_usd - TOKENIZERS * Decimal("0.001"),
        told.net_usd + TOKENIZERS * Decimal("0.001"),
    )


def test_what_the_baseline_served_itself_is_exact(tmp_path: Path) -> None:
    told = found(tmp_path, against("a", attempt(cost=usd("0.001"), **CLOUD)))
    assert told.low_usd == told.net_usd == told.high_usd == 0


def test_guessed_tokens_widen_the_interval(tmp_path: Path) -> None:
    guess = Usage(input_tokens=100, output_tokens=7, estimated=True)
    told = found(tmp_path, against("a", attempt(usage=guess)), against("b"))
    assert told.high_usd - told.net_usd == (TOKENIZERS + GUESSED) * Decimal("0.001")


def test_a_shadow_of_unknown_cost_leaves_no_lower_end(tmp_path: Path) -> None:
    unknown = Cost(usd=None)
    shadow = against("s", attempt(cost=unknown, **CLOUD), parent_id="a", baseline_cost=None)
    told = found(tmp_path, against("a"), shadow)
    assert told.low_usd is None
    assert told.high_usd > told.net_usd


PRICE = Price(
    rate=Rate(
        input_mtok=Decimal(10), output_mtok=Decimal(10), cache_read_mtok=Decimal(1)
    ),
    source="test",
)  # fmt: skip


def test_a_prompt_cache_that_routing_gave_up_is_no_saving() -> None:
    baseline = backend(BASELINE, Place.PUBLIC_API, price=PRICE)

    def priced(given: Given | None, usage: Usage) -> Decimal | None:
        record = call_record(
            Request(format="openai_chat", model="auto", body=b"{}"),
            decision("a", given=given),
            [attempt(usage=usage)],
            started_s=0.0,
            duration_s=1.0,
            outcome="served",
            status=200,
            flags=(),
            baseline=baseline,
        )
        return record.baseline_cost.usd if record.baseline_cost else None

    used = Usage(input_tokens=1_000_000, output_tokens=0)
    moved = Given(home="home/small", cached_share=0.75)
    assert priced(None, used) == 10
    assert priced(moved, used) == Decimal("3.25")
    local_hits = Usage(input_tokens=1_000_000, output_tokens=0, cache_read_tokens=900_000)
    assert priced(moved, local_hits) == Decimal("1.9")
