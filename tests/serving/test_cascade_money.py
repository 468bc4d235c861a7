"""A cascade is paid for like any call: the worst case set aside, the truth booked, nothing lost."""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locavore.core.access import Quota
from locavore.ledger.budgets import Authorizer, leases_dir, worst_case_usd
from locavore.ledger.leases import LeaseTable
from locavore.ledger.slices import NANO
from locavore.ledger.sqlite_leases import SqliteLeases
from locavore.routing.estimators.signals import Signals
from locavore.serving.record import answering
from locavore.serving.snapshot import RetryPolicy
from locavore.testing import Reply, replies
from tests.serving.cascades import CLOUD, LOCAL, THIRD, Stage, price
from tests.serving.doubles import Client, Sent

pytestmark = pytest.mark.anyio
ONE_TRY = RetryPolicy(attempts=1)
LOCAL_PRICE, CLOUD_PRICE = price("0.1", "0.2"), price("2", "8")


def limits_of(home: Path, limit: Decimal, unit: str = "usd") -> Authorizer:
    quota = Quota(scope="all", unit=cast("object", unit), limit=limit, period="total")  # type: ignore[arg-type]
    return Authorizer([quota], SqliteLeases(home), LeaseTable(leases_dir(home)))


def committed(home: Path, limits: Authorizer) -> int:
    """What the budget has lost for good, once everybody gave back what they held."""
    limits.close()
    with contextlib.closing(SqliteLeases(home)) as store:
        return sum(store.committed().values())


def worst_usd(stage: Stage, samples: int = 0) -> Decimal:
    facts = stage.record.decision.facts
    tokens = {"input_tokens": round(facts.input_tokens.high + 0.4999)}
    local = worst_case_usd(LOCAL_PRICE, **tokens, output_tokens=facts.output_tokens)
    cloud = worst_case_usd(CLOUD_PRICE, **tokens, output_tokens=facts.output_tokens)
    assert local is not None
    assert cloud is not None
    return local * (1 + samples) + cloud


@pytest.mark.parametrize("samples", [0, 2])
async def test_the_worst_case_of_every_planned_attempt_is_set_aside(
    tmp_path: Path, samples: int
) -> None:
    free = Stage(tmp_path / "free", samples=samples)
    free.serve()
    free.answer(LOCAL, replies.chat("42"))
    worst = worst_usd(free, samples)
    for short, status in ((Decimal(0), 200), (Decimal(1) / NANO, 429)):
        home = tmp_path / str(status)
        home.mkdir()
        stage = Stage(home, samples=samples, limits=limits_of(home, worst - short))
        client = stage.serve()
        if status == 200:
            stage.answer(LOCAL, replies.chat("42"))
        assert client.status == status
        assert bool(stage.asked(LOCAL)) is (status == 200), "nothing is sent on credit"


@pytest.mark.parametrize("keeps", [True, False])
async def test_what_is_booked_is_the_sum_of_the_attempts(tmp_path: Path, keeps: bool) -> None:
    limits = limits_of(tmp_path, Decimal(1))
    stage = Stage(tmp_path, keeps=keeps, limits=limits)
    client = stage.serve()
    stage.answer(LOCAL, replies.chat("42"))
    if not keeps:
        stage.answer(CLOUD, replies.chat("42"))
    local, cloud = Decimal("0.0000018"), Decimal("0.000048")  # 12 and 3 tokens at their prices
    paid = local if keeps else local + cloud
    assert committed(tmp_path, limits) == paid * NANO
    assert Decimal(client.headers["x-locavore-cost-usd"]) == paid


async def test_a_late_answer_at_a_price_is_booked_at_its_worst(tmp_path: Path) -> None:
    limits = limits_of(tmp_path, Decimal(1))
    stage = Stage(tmp_path, hold_s=0.01, limits=limits)
    client = stage.serve()
    await stage.reached(CLOUD)
    stage.answer(CLOUD, replies.chat("42"))
    assert "x-locavore-cost-usd" not in client.headers, "nobody knows it"
    assert committed(tmp_path, limits) == worst_usd(stage) * NANO


async def test_a_budget_of_tokens_counts_both_answers(tmp_path: Path) -> None:
    limits = limits_of(tmp_path, Decimal(100_000), "tokens")
    stage = Stage(tmp_path, keeps=False, limits=limits)
    stage.serve()
    stage.answer(LOCAL, replies.chat("41"))
    stage.answer(CLOUD, replies.chat("42"))
    assert committed(tmp_path, limits) == 30


# Whatever happens --------------------------------------------------------------------------------

KEEPS: dict[str, Callable[[Signals], bool]] = {
    "always": lambda _: True,
    "never": lambda _: False,
    "agreed": lambda signals: signals.agreement is not None and signals.agreement > 0.4,
}
BEHAVIOUR = st.sampled_from(["good", "good", "cut", "no_usage", "busy", "broken", "garbage"])


def reply_of(behaviour: str, words: str, *, stream: bool) -> Reply:
    match behaviour:
        case "busy":
            return replies.openai_error(503)
        case "garbage":
            return Reply((), headers=(("content-type", "application/json"),))
        case "broken" if stream:
            whole = replies.chat_stream([words])
            return Reply(whole.steps[:2], headers=whole.headers)
        case "broken":
            return replies.openai_error(500)
    usage = None if behaviour == "no_usage" else replies.USAGE
    reason = "length" if behaviour == "cut" else "stop"
    if stream:
        return replies.chat_stream([words], usage=usage, finish_reason=reason)
    return replies.chat(words, usage=usage, finish_reason=reason)


def pending(stage: Stage, played: set[int]) -> tuple[str, Sent] | None:
    for id_ in (LOCAL, CLOUD, THIRD):
        for call in stage.asked(id_):
            if id(call) not in played and not call.cancelled:
                return id_, call
    return None


async def play(
    home: Path, script: list[str], *, keeps: str, stream: bool, samples: int, leaves_at: int | None
) -> tuple[Stage, Client, dict[str, list[str]], int]:
    """One call through a script; (stage, client, what each model said, nano-dollars booked)."""
    limits = limits_of(home, Decimal(1))
    stage = Stage(
        home, keeps=KEEPS[keeps], samples=samples, third=True, retry=ONE_TRY, limits=limits
    )
    client, said, played = stage.serve(stream=stream), dict[str, list[str]](), set[int]()
    for step, behaviour in enumerate(script):
        found = pending(stage, played)
        if found is None:
            break
        if step == leaves_at and client.listener is not None:
            client.listener.on_disconnect()
            break
        id_, call = found
        played.add(id(call))
        words = f"answer {step} of {id_}"
        said.setdefault(id_, []).append(words)
        streamed = stream and id_ != LOCAL
        call.play(reply_of(behaviour, words, stream=streamed))
    stage.pipeline.close()
    return stage, client, said, committed(home, limits)


@settings(max_examples=40, deadline=None)
@given(
    script=st.lists(BEHAVIOUR, min_size=8, max_size=8),
    keeps=st.sampled_from(sorted(KEEPS)),
    stream=st.booleans(),
    samples=st.integers(0, 2),
    leaves_at=st.one_of(st.none(), st.integers(0, 4)),
)
def test_every_call_ends_once_and_what_is_paid_is_the_sum_of_its_attempts(
    script: list[str], keeps: str, stream: bool, samples: int, leaves_at: int | None
) -> None:
    with tempfile.TemporaryDirectory() as home:
        stage, client, said, booked = asyncio.run(
            play(
                Path(home),
                script,
                keeps=keeps,
                stream=stream,
                samples=samples,
                leaves_at=leaves_at,
            )
        )
    record = stage.record
    costs = [a.cost.usd for a in record.attempts if a.cost is not None]
    if None not in costs and not any(a.fault and a.cost is None for a in record.attempts):
        assert booked == sum(filter(None, costs), Decimal(0)) * NANO
    assert stage.pipeline.inflight == 0
    assert len({a.id for a in record.attempts}) == len(record.attempts)
    left = record.outcome == "cancelled"
    assert client.done is not left
    if record.outcome != "served":
        return
    served = answering(record.attempts)
    assert served is not None
    mine = said[served.backend]
    others = [w for id_, all_ in said.items() if id_ != served.backend for w in all_]
    assert any(words.encode() in client.body for words in mine)
    assert not any(words.encode() in client.body for words in others), "two answers in one"
    assert client.headers["x-locavore-model"] == served.backend
    assert record.cascade is not None
    assert record.cascade.escalated is (served.backend != LOCAL)
