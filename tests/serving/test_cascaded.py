"""The live cascade: what is asked, what the client gets, what is written down."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from locavore.core.events import Event, Failure, TextDelta, UsageReport
from locavore.routing.estimators.signals import Signals
from locavore.serving.snapshot import Limits, RetryPolicy
from locavore.testing import Reply, replies
from locavore.wire.formats import FORMATS
from tests.serving.cascades import BODIES, CLOUD, LOCAL, THIRD, Stage
from tests.serving.doubles import Client

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
FORMAT = pytest.mark.parametrize("format_", sorted(BODIES))
ONE_TRY = RetryPolicy(attempts=1)


def events(client: Client, format_: str, *, stream: bool) -> list[Event]:
    """What a client of that protocol reads."""
    fmt = FORMATS[format_]
    if not stream:
        return fmt.answer(client.body)
    reader = fmt.stream_reader()
    return [*reader.feed(client.body), *reader.close()]


def text(client: Client, format_: str = "openai_chat", *, stream: bool = False) -> str:
    found = events(client, format_, stream=stream)
    return "".join(e.text for e in found if isinstance(e, TextDelta))


def agreed(signals: Signals) -> bool:
    return signals.agreement is not None and signals.agreement > 0.6


def cloud_says(words: str, *, stream: bool) -> Reply:
    return replies.chat_stream([words]) if stream else replies.chat(words)


@BOTH
@FORMAT
async def test_a_local_answer_that_holds_is_served_in_the_clients_protocol(
    tmp_path: Path, format_: str, stream: bool
) -> None:
    stage = Stage(tmp_path)
    client = stage.serve(format_, stream=stream)
    assert not client.body
    assert json.loads(stage.asked(LOCAL)[0].body).get("stream") is not True
    stage.answer(LOCAL, replies.chat("42"))
    assert client.done
    assert client.status == 200
    assert text(client, format_, stream=stream) == "42"
    found = events(client, format_, stream=stream)
    assert not any(isinstance(event, Failure) for event in found)
    if format_ in ("anthropic_messages", "openai_responses") or not stream:
        (usage,) = (e.usage for e in found if isinstance(e, UsageReport))
        assert (usage.input_tokens, usage.output_tokens) == (12, 3)
    assert client.headers["x-locavore-cascade"] == "kept"
    assert client.headers["x-locavore-model"] == LOCAL
    assert stage.kinds == [(LOCAL, "first")]
    assert not stage.asked(CLOUD)


@BOTH
@FORMAT
async def test_a_doubtful_answer_escalates_and_the_client_sees_the_clouds_alone(
    tmp_path: Path, format_: str, stream: bool
) -> None:
    stage = Stage(tmp_path, keeps=False)
    client = stage.serve(format_, stream=stream)
    stage.answer(LOCAL, replies.chat("wrongly so"))
    assert not client.body
    stage.answer(CLOUD, cloud_says("42", stream=stream))
    assert text(client, format_, stream=stream) == "42"
    assert b"wrongly" not in client.body
    assert client.headers["x-locavore-cascade"] == "escalated"
    assert client.headers["x-locavore-model"] == CLOUD
    assert client.headers["x-locavore-attempts"] == "2"
    assert stage.kinds == [(LOCAL, "first"), (CLOUD, "escalation")]
    assert stage.record.outcome == "served"


async def test_what_was_seen_is_recorded_and_no_text(tmp_path: Path) -> None:
    stage = Stage(tmp_path, keeps=False, margin=0.25)
    stage.serve()
    stage.answer(LOCAL, replies.chat("a wrong word"))
    stage.answer(CLOUD, replies.chat("a right word"))
    seen = stage.record.cascade
    assert seen is not None
    assert (seen.local, seen.cloud, seen.escalated) == (LOCAL, CLOUD, True)
    assert seen.reason == "doubtful"
    assert seen.margin == pytest.approx(-0.25)
    assert (seen.output_tokens, seen.no_answer, seen.samples) == (3, False, 0)
    assert seen.held_s >= 0
    assert seen.agrees is False
    assert b"word" not in msgspec.json.encode(stage.record)


@BOTH
@pytest.mark.parametrize(("said", "agrees"), [("It is 42.", True), ("It is 43.", False)])
async def test_an_escalation_that_changed_nothing_is_known(
    tmp_path: Path, stream: bool, said: str, agrees: bool
) -> None:
    stage = Stage(tmp_path, keeps=False)
    client = stage.serve(stream=stream)
    stage.answer(LOCAL, replies.chat("42"))
    stage.answer(CLOUD, cloud_says(said, stream=stream))
    assert text(client, stream=stream) == said
    assert stage.record.cascade is not None
    assert stage.record.cascade.agrees is agrees


@pytest.mark.parametrize(
    ("reply", "fields", "reason"),
    [
        (replies.chat("I'm sorry, I can't help with that."), {}, "refused"),
        (replies.chat("Forty", finish_reason="length"), {}, "cut_off"),
        (replies.chat("  "), {}, "empty"),
        (
            replies.chat("{city: Bonn}"),
            {"response_format": {"type": "json_object"}},
            "not_json",
        ),
        (
            replies.chat("Bonn"),
            {
                "tools": [{"type": "function", "function": {"name": "map", "parameters": {}}}],
                "tool_choice": "required",
            },
            "no_tool_call",
        ),
        (replies.openai_error(500), {}, "server_error"),
        (replies.openai_error(401), {}, "auth"),
        (Reply.json({"not": "an answer"}), {}, "protocol"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
async def test_a_fault_of_the_local_answer_escalates_whatever_was_promised(
    tmp_path: Path, reply: Reply, fields: dict[str, Any], reason: str
) -> None:
    stage = Stage(tmp_path, keeps=True)
    client = stage.serve(**fields)
    stage.answer(LOCAL, reply)
    stage.answer(CLOUD, replies.chat('{"city": "Bonn"}'))
    assert "Bonn" in text(client)
    assert stage.record.cascade is not None
    assert stage.record.cascade.reason == reason
    assert stage.record.cascade.no_answer
    assert not stage.promised.seen, "a fault ends the matter"


async def test_c40_a_local_engine_that_cut_the_prompt_is_not_believed(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    client = stage.serve(messages=[{"role": "user", "content": "word " * 4000}])
    usage = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101}
    stage.answer(LOCAL, replies.chat("42", usage=usage))
    stage.answer(CLOUD, replies.chat("43"))
    assert text(client) == "43"
    assert stage.record.attempts[0].fault == "prompt_truncated"


@BOTH
async def test_a_dead_cloud_leaves_a_sound_local_answer_and_says_so(
    tmp_path: Path, stream: bool
) -> None:
    stage = Stage(tmp_path, keeps=False, third=True, retry=ONE_TRY)
    client = stage.serve(stream=stream)
    stage.answer(LOCAL, replies.chat("wrongly so"))
    stage.answer(CLOUD, replies.openai_error(503))
    assert client.status == 200
    assert text(client, stream=stream) == "wrongly so"
    assert client.headers["x-locavore-cascade"] == "cloud_failed"
    assert client.headers["x-locavore-model"] == LOCAL
    record = stage.record
    assert record.cascade is not None
    assert (record.cascade.reason, record.cascade.escalated) == ("cloud_failed", False)
    assert "cloud_failed" in record.flags
    assert [a.fault for a in record.attempts] == [None, "overloaded"]
    assert record.baseline_cost is not None
    assert record.baseline_cost.usd == Decimal("0.000048"), "12 × 2 + 3 × 8 of the tokens served"
    assert not stage.asked(THIRD)


async def test_with_neither_model_the_plans_fallbacks_follow(tmp_path: Path) -> None:
    stage = Stage(tmp_path, third=True, retry=ONE_TRY)
    client = stage.serve()
    stage.answer(LOCAL, replies.openai_error(500))
    stage.answer(CLOUD, replies.openai_error(503))
    stage.answer(THIRD, replies.chat("42"))
    assert text(client) == "42"
    assert stage.kinds == [(LOCAL, "first"), (CLOUD, "escalation"), (THIRD, "fallback")]


async def test_when_all_fail_the_client_is_told_the_last_error(tmp_path: Path) -> None:
    stage = Stage(tmp_path, retry=ONE_TRY)
    client = stage.serve()
    stage.answer(LOCAL, replies.openai_error(500))
    stage.answer(CLOUD, replies.openai_error(503, "the cloud is full"))
    assert client.status == 503
    assert b"the cloud is full" in client.body
    assert (stage.record.outcome, stage.record.status) == ("failed", 503)
    assert stage.record.cascade is not None
    assert stage.record.cascade.escalated


async def test_a_cloud_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path, keeps=False)
    client = stage.serve()
    stage.answer(LOCAL, replies.chat("wrongly so"))
    stage.answer(CLOUD, replies.openai_error(429, retry_after_ms="1"))
    await stage.reached(CLOUD, 2)
    stage.answer(CLOUD, replies.chat("42"))
    assert text(client) == "42"
    assert [kind for _, kind in stage.kinds] == ["first", "escalation", "retry"]


async def test_c04_a_cloud_that_breaks_after_its_first_words_ends_the_stream_with_an_error(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, keeps=False)
    client = stage.serve(stream=True)
    stage.answer(LOCAL, replies.chat("wrongly so"))
    broken = replies.chat_stream(["Forty-"])
    stage.answer(CLOUD, Reply(broken.steps[:2], headers=broken.headers))
    found = events(client, "openai_chat", stream=True)
    assert isinstance(found[-1], Failure)
    assert b"wrongly" not in client.body
    assert stage.record.outcome == "failed"


# Waiting -----------------------------------------------------------------------------------------


@BOTH
async def test_a_late_local_answer_is_given_up_and_the_cloud_answers(
    tmp_path: Path, stream: bool
) -> None:
    stage = Stage(tmp_path, hold_s=0.01)
    client = stage.serve(stream=stream)
    await stage.reached(CLOUD)
    assert stage.asked(LOCAL)[0].cancelled
    stage.answer(CLOUD, cloud_says("42", stream=stream))
    stage.asked(LOCAL)[0].receiver.on_end()  # too late to matter
    assert text(client, stream=stream) == "42"
    first = stage.record.attempts[0]
    assert first.fault == "late"
    assert first.usage is not None
    assert first.usage.estimated
    assert first.usage.output_tokens is None, "nobody knows how far it was"
    assert stage.record.cascade is not None
    assert stage.record.cascade.reason == "late"
    assert stage.pipeline.breakers.states(0.0) == {}, "late is our impatience, not its fault"


async def test_an_engine_that_must_not_be_cancelled_is_waited_for(tmp_path: Path) -> None:
    stage = Stage(tmp_path, hold_s=0.001)
    snapshot = stage.pipeline.state.snapshot
    snapshot.targets[LOCAL] = msgspec.structs.replace(
        snapshot.targets[LOCAL], drain_on_disconnect=True
    )
    client = stage.serve()
    await asyncio.sleep(0.02)
    assert not stage.asked(CLOUD)
    stage.answer(LOCAL, replies.chat("42"))
    assert text(client) == "42"


@FORMAT
async def test_a_held_stream_is_kept_alive_and_does_not_say_who_answers_before_it_is_known(
    tmp_path: Path, format_: str
) -> None:
    stage = Stage(tmp_path)
    client = stage.serve(format_, stream=True)
    stage.pipeline._tick()
    assert not client.body, "nothing is sent before it is needed"
    for call in tuple(stage.pipeline._active):
        call.tick(stage.pipeline.mono() + 60)
    assert client.body == FORMATS[format_].ping()
    assert client.headers["x-locavore-cascade"] == "undecided"
    assert "x-locavore-model" not in client.headers
    stage.answer(LOCAL, replies.chat("42"))
    assert text(client, format_, stream=True) == "42"
    assert client.done


# Clients that leave ------------------------------------------------------------------------------


@pytest.mark.parametrize("during", ["local", "sample", "cloud"])
async def test_c11_a_client_that_leaves_cancels_whatever_runs(tmp_path: Path, during: str) -> None:
    sampled = during == "sample"
    stage = Stage(tmp_path, keeps=agreed if sampled else False, samples=1 if sampled else 0)
    client = stage.serve(stream=True)
    if during != "local":
        stage.answer(LOCAL, replies.chat("wrongly so"))
    running = stage.asked(CLOUD if during == "cloud" else LOCAL)[-1]
    assert client.listener is not None
    client.listener.on_disconnect()
    assert running.cancelled
    assert (stage.record.outcome, stage.record.status) == ("cancelled", 499)
    assert len(stage.record.attempts) == (1 if during == "local" else 2)
    assert not client.body
    assert stage.pipeline.inflight == 0
    if during != "cloud":
        assert not stage.asked(CLOUD)


async def test_c11_an_engine_that_must_not_be_cancelled_is_read_to_its_end(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, keeps=False)
    targets = stage.pipeline.state.snapshot.targets
    targets[LOCAL] = msgspec.structs.replace(targets[LOCAL], drain_on_disconnect=True)
    client = stage.serve()
    assert client.listener is not None
    client.listener.on_disconnect()
    assert not stage.journal.records
    stage.answer(LOCAL, replies.chat("wrongly so"))
    assert (stage.record.outcome, stage.record.status) == ("cancelled", 499)
    assert stage.record.attempts[0].usage is not None
    assert stage.record.attempts[0].usage.output_tokens == 3, "what it cost is known"
    assert not stage.asked(CLOUD)
    assert not client.body


# Samples -----------------------------------------------------------------------------------------


async def test_samples_are_asked_in_doubt_only_and_differently_each_time(tmp_path: Path) -> None:
    stage = Stage(tmp_path, keeps=agreed, samples=2)
    client = stage.serve(temperature=0, seed=7)
    stage.answer(LOCAL, replies.chat("42"))
    stage.answer(LOCAL, replies.chat("It is 42."))
    stage.answer(LOCAL, replies.chat("42"))
    assert text(client) == "42"
    first, second, third = (json.loads(call.body) for call in stage.asked(LOCAL))
    assert (first["temperature"], first["seed"]) == (0, 7)
    assert second["temperature"] == third["temperature"] == 0.8
    assert "seed" not in second
    assert [kind for _, kind in stage.kinds] == ["first", "sample", "sample"]
    seen = stage.record.cascade
    assert seen is not None
    assert (seen.agreement, seen.samples, seen.reason) == (1.0, 2, "kept")


async def test_samples_that_disagree_send_the_call_to_the_cloud(tmp_path: Path) -> None:
    stage = Stage(tmp_path, keeps=agreed, samples=1)
    client = stage.serve()
    stage.answer(LOCAL, replies.chat("wrongly so"))
    stage.answer(LOCAL, replies.chat("40"))
    stage.answer(CLOUD, replies.chat("42"))
    assert text(client) == "42"
    assert [kind for _, kind in stage.kinds] == ["first", "sample", "escalation"]


async def test_nothing_is_sampled_where_no_sample_could_change_the_verdict(tmp_path: Path) -> None:
    stage = Stage(tmp_path, keeps=True, samples=3)
    client = stage.serve()
    stage.answer(LOCAL, replies.chat("42"))
    assert client.done
    assert len(stage.asked(LOCAL)) == 1


async def test_a_sample_that_fails_counts_as_one_that_disagrees(tmp_path: Path) -> None:
    stage = Stage(tmp_path, keeps=agreed, samples=2)
    client = stage.serve()
    stage.answer(LOCAL, replies.chat("42"))
    stage.answer(LOCAL, replies.chat("42"))
    stage.answer(LOCAL, replies.openai_error(500))
    stage.answer(CLOUD, replies.chat("43"))
    assert text(client) == "43"
    assert stage.record.cascade is not None
    assert stage.record.cascade.agreement == 0.5


async def test_samples_that_come_too_late_count_as_ones_that_disagree(tmp_path: Path) -> None:
    stage = Stage(tmp_path, keeps=agreed, samples=1)
    client = stage.serve()
    stage.answer(LOCAL, replies.chat("42"))
    stage.time_is_up()
    assert stage.asked(LOCAL)[1].cancelled
    stage.answer(CLOUD, replies.chat("43"))
    assert text(client) == "43"
    assert [(a.kind, a.fault) for a in stage.record.attempts][1] == ("sample", "late")


# Log-probabilities -------------------------------------------------------------------------------


def with_logprobs(words: str) -> Reply:
    reply = json.loads(replies.chat(words).steps[0].data)  # type: ignore[union-attr]
    reply["choices"][0]["logprobs"] = {
        "content": [{"token": "4", "logprob": -0.1}, {"token": "2", "logprob": -0.3}]
    }
    reply["system_fingerprint"] = "fp_local"
    return Reply.json(reply)


@BOTH
async def test_logprobs_are_asked_for_looked_at_and_kept_from_the_client(
    tmp_path: Path, stream: bool
) -> None:
    stage = Stage(tmp_path)
    client = stage.serve(stream=stream)
    assert json.loads(stage.asked(LOCAL)[0].body)["logprobs"] is True
    stage.answer(LOCAL, with_logprobs("42"))
    assert stage.record.cascade is not None
    assert stage.record.cascade.mean_logprob == pytest.approx(-0.2)
    assert stage.promised.seen[0][1].mean_logprob == pytest.approx(-0.2)
    assert b"-0.1" not in client.body
    if not stream:
        answer = json.loads(client.body)
        assert answer["choices"][0]["logprobs"] is None
        assert answer["system_fingerprint"] == "fp_local", "no other field is lost"


async def test_logprobs_that_the_client_asked_for_arrive(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    client = stage.serve(logprobs=True)
    stage.answer(LOCAL, with_logprobs("42"))
    content = json.loads(client.body)["choices"][0]["logprobs"]["content"]
    assert [t["logprob"] for t in content] == [-0.1, -0.3]


async def test_an_engine_that_cannot_tell_them_is_not_asked(tmp_path: Path) -> None:
    stage = Stage(tmp_path, local={"capabilities": frozenset({"chat"})})
    client = stage.serve()
    assert "logprobs" not in json.loads(stage.asked(LOCAL)[0].body)
    stage.answer(LOCAL, replies.chat("42"))
    assert json.loads(client.body)["choices"][0]["message"]["content"] == "42"


# What the promise and the policy do --------------------------------------------------------------


async def test_c112_a_promise_that_breaks_sends_the_call_to_the_cloud(tmp_path: Path) -> None:
    def broken(_: Signals) -> bool:
        raise ZeroDivisionError

    stage = Stage(tmp_path, keeps=broken)
    client = stage.serve()
    stage.answer(LOCAL, replies.chat("wrongly so"))
    stage.answer(CLOUD, replies.chat("42"))
    assert text(client) == "42"
    seen = stage.record.cascade
    assert seen is not None
    assert (seen.reason, seen.margin, seen.escalated) == ("unjudged", None, True)


async def test_the_promise_is_asked_about_the_users_own_words(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.serve("anthropic_messages")
    stage.answer(LOCAL, replies.chat("42"))
    assert stage.promised.seen[0][0].last == "What is six times seven?"


@pytest.mark.parametrize("repair", [False, True])
async def test_c29_wrapped_json_is_mended_where_policy_says_so(
    tmp_path: Path, repair: bool
) -> None:
    stage = Stage(tmp_path, repair_json=repair)
    client = stage.serve(response_format={"type": "json_object"})
    stage.answer(LOCAL, replies.chat('```json\n{"a": 1}\n```'))
    if repair:
        assert json.loads(text(client)) == {"a": 1}
        assert "json_repaired" in stage.record.flags
    else:
        stage.answer(CLOUD, replies.chat('{"a": 2}'))
        assert json.loads(text(client)) == {"a": 2}


async def test_a_local_answer_with_a_tool_call_is_served_whole(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "map", "parameters": {"type": "object"}}}]
    call = {"id": "c1", "type": "function", "function": {"name": "map", "arguments": '{"x": 1}'}}
    stage = Stage(tmp_path)
    client = stage.serve(stream=True, tools=tools)
    reply = replies.chat(None, finish_reason="tool_calls", tool_calls=[call])  # type: ignore[arg-type]
    stage.answer(LOCAL, reply)
    assert b'"name":"map"' in client.body
    assert b"tool_calls" in client.body.split(b"finish_reason")[-1]


# Busy engines and ends ---------------------------------------------------------------------------


def one_at_a_time(stage: Stage) -> None:
    targets = stage.pipeline.state.snapshot.targets
    targets[LOCAL] = msgspec.structs.replace(targets[LOCAL], max_concurrency=1)


async def test_c84_a_full_local_queue_sends_the_call_to_the_cloud(tmp_path: Path) -> None:
    stage = Stage(tmp_path, bounds=Limits(max_queue=0))
    one_at_a_time(stage)
    first, second = stage.serve(), stage.serve()
    stage.answer(CLOUD, replies.chat("43"))
    assert text(second) == "43"
    assert stage.record.cascade is not None
    assert stage.record.cascade.reason == "queue_full"
    assert [kind for _, kind in stage.kinds] == ["escalation"]
    stage.answer(LOCAL, replies.chat("42"))
    assert text(first) == "42"


async def test_waiting_for_a_slot_is_waiting(tmp_path: Path) -> None:
    stage = Stage(tmp_path, hold_s=0.02)
    one_at_a_time(stage)
    gate = stage.pipeline.admission.gate(LOCAL, 1)
    gate.enter(lambda: None)
    client = stage.serve()
    await stage.reached(CLOUD)
    assert not stage.asked(LOCAL)
    stage.answer(CLOUD, replies.chat("43"))
    assert text(client) == "43"
    assert [kind for _, kind in stage.kinds] == ["escalation"]
    assert stage.record.cascade is not None
    assert stage.record.cascade.reason == "late"
    gate.leave()
    assert (gate.running, gate.waiting) == (0, 0), "its place in the queue is given up"


@pytest.mark.parametrize("during", ["local", "cloud"])
async def test_a_worker_that_ends_leaves_a_record_of_every_call(
    tmp_path: Path, during: str
) -> None:
    stage = Stage(tmp_path, keeps=False)
    client = stage.serve()
    if during == "cloud":
        stage.answer(LOCAL, replies.chat("sound"))
    stage.pipeline.cut()
    record = stage.record
    assert stage.pipeline.inflight == 0
    if during == "local":
        assert (client.status, record.outcome, record.status) == (503, "failed", 503)
        assert record.cascade is None
    else:
        assert text(client) == "sound", "a sound answer was there all along"
        assert (record.outcome, len(record.attempts)) == ("served", 2)
        assert record.cascade is not None
        assert record.cascade.reason == "cloud_failed"
