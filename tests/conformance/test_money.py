"""What is written down is what was used: C66, C67, C69 through the gateway."""

import threading
from decimal import Decimal
from typing import Any

import pytest

from locavore.core.outcome import CallRecord
from locavore.ledger.query import open_current, report
from locavore.testing import Hold, Reply, ScriptedUpstream, replies
from locavore.testing.replies import DONE, chat_chunk, usage_chunk
from tests.conformance.client import Client, backend
from tests.conformance.conftest import Start

PRICE = {"input_mtok": "1", "output_mtok": "10"}
TRUTH = {"prompt_tokens": 12, "completion_tokens": 40, "total_tokens": 52}
TRUTH_USD = Decimal("0.000412")
FALLBACK = '[fallback]\n"home/m" = ["home/second"]\n'
HELLO = (chat_chunk({"role": "assistant", "content": ""}), chat_chunk({"content": "Hello"}))


def leave_in_mid_stream(client: Client, hold: Hold) -> None:
    stream = client.open_stream()
    stream.read_until(b"Hello")
    assert hold.reached.wait(5)
    stream.close()


def finished(client: Client, left: threading.Event) -> CallRecord:
    """The record of a call whose client left; a later call's answer proves that it was written."""
    assert left.wait(5)
    return client.record


def test_c11_c66_draining_brings_the_bill_as_upstream_told_it(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, price=PRICE, on_disconnect="drain"))
    hold, end = Hold(), Hold()
    finish = chat_chunk({}, finish_reason="stop")
    upstream.script(Reply.sse(*HELLO, hold, finish, usage_chunk(TRUTH), DONE, end))
    upstream.always(replies.chat())
    leave_in_mid_stream(client, hold)
    client.chat()  # served by the same loop, so the gateway has seen the client leave
    assert not hold.peer_left.is_set(), "a drained upstream is read to its end"
    hold.release()
    assert end.reached.wait(5)
    client.chat()  # and here it has read the end
    end.release()
    (record,) = [r for r in client.records() if r.stream]
    assert record.outcome == "cancelled"
    (attempt,) = record.attempts
    assert attempt.usage is not None
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (12, 40)
    assert not attempt.usage.estimated
    assert attempt.cost is not None
    assert attempt.cost.usd == TRUTH_USD


def test_c66_cancelling_leaves_an_estimate_that_says_so(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, price=PRICE))
    hold = Hold()
    upstream.script(Reply.sse(*HELLO, hold, usage_chunk(TRUTH), DONE))
    leave_in_mid_stream(client, hold)
    record = finished(client, hold.peer_left)
    (attempt,) = record.attempts
    assert attempt.usage is not None
    assert attempt.usage.estimated
    assert attempt.usage.output_tokens is not None
    assert 1 <= attempt.usage.output_tokens <= 40
    assert attempt.cost is not None
    assert attempt.cost.estimated
    assert attempt.cost.usd is not None
    assert 0 < attempt.cost.usd <= TRUTH_USD
    assert "usage_estimated" in record.flags


ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("usage", [ZERO, None], ids=["explicit zero", "missing"])
def test_c15_c67_zero_is_a_count_and_missing_is_estimated(
    start: Start, upstream: ScriptedUpstream, usage: dict[str, Any] | None, stream: bool
) -> None:
    client = start(backend("home/m", upstream, price=PRICE))
    upstream.script(replies.chat_stream(usage=usage) if stream else replies.chat(usage=usage))
    assert client.chat(stream=stream).status == 200
    (attempt,) = client.record.attempts
    assert attempt.usage is not None
    assert attempt.cost is not None
    if usage is None:
        assert attempt.usage.estimated
        assert (attempt.usage.input_tokens or 0) > 0
        assert attempt.cost.usd is not None
        assert attempt.cost.usd > 0
    else:
        assert not attempt.usage.estimated
        assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (0, 0)
        assert attempt.cost.usd == 0


@pytest.mark.parametrize("stream", [False, True])
def test_c69_every_attempt_is_in_the_ledger_under_its_call(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream, stream: bool
) -> None:
    config = backend("home/m", upstream, price=PRICE) + backend("home/second", other, price=PRICE)
    client = start(config + FALLBACK + "[retry]\nattempts = 2\nbackoff_s = 0.001\n")
    upstream.script(replies.openai_error(500), replies.openai_error(503))
    other.script(replies.chat_stream(usage=TRUTH) if stream else replies.chat(usage=TRUTH))
    answer = client.chat(stream=stream)
    assert answer.status == 200
    record = client.record
    assert answer.headers["x-locavore-decision"] == record.id
    assert [a.kind for a in record.attempts] == ["first", "retry", "fallback"]
    assert [a.status for a in record.attempts] == [500, 503, 200]
    assert [a.id for a in record.attempts] == [f"{record.id}.{n}" for n in range(3)]
    assert [a.usage is None for a in record.attempts] == [True, True, False]
    cost = record.attempts[2].cost
    assert cost is not None
    assert cost.usd == TRUTH_USD
    db = open_current(client.gateway.home)
    try:
        total = report(db).total
    finally:
        db.close()
    assert (total.calls, total.attempts, total.cost_usd) == (1, 3, TRUTH_USD)
    kept = client.get(f"/v1/decisions/{record.id}").json
    assert len(kept["attempts"]) == 3


def test_c69_a_stream_that_breaks_after_content_is_paid_for(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, price=PRICE) + "[retry]\nattempts = 1\n")
    upstream.script(Reply.sse(*HELLO, framing="close"))
    client.chat(stream=True)
    (attempt,) = client.record.attempts
    assert attempt.fault == "truncated"
    assert attempt.cost is not None
    assert attempt.cost.estimated
    assert attempt.cost.usd is not None
    assert attempt.cost.usd > 0
