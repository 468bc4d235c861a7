"""The other model's answer: in nobody's way, on nobody's bill, nowhere it may not go."""

import asyncio
import contextlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from locavore.core.access import Grant, Quota
from locavore.core.backend import Capability, Place
from locavore.core.decision import Decision, Explored
from locavore.core.money import Price, Rate
from locavore.core.outcome import CallRecord
from locavore.core.policy import Policy
from locavore.ledger import kept_answers
from locavore.ledger.budgets import Authorizer, leases_dir
from locavore.ledger.leases import LeaseTable
from locavore.ledger.sqlite_leases import SqliteLeases
from locavore.serving import shadow as shadowing
from locavore.serving.pipeline import Envelope
from locavore.serving.shadow import Shadows
from locavore.testing import Reply, replies
from tests.serving.doubles import Client, ScriptedEngine, Sent, backend, pipeline_over, snapshot_of

pytestmark = pytest.mark.anyio
LOCAL, CLOUD = "home/small", "cloud/large"
CAN = frozenset({Capability.CHAT.value, Capability.JSON_SCHEMA.value, Capability.TOOLS.value})
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "Where?"}]}
PRICE = Price(rate=Rate(input_mtok=Decimal(2), output_mtok=Decimal(8)), source="config")


class Stage:
    """A pipeline with its shadows, two models, and every `auto` call explored."""

    def __init__(
        self, home: Path, *, serves: str = LOCAL, limits: Authorizer | None = None, **more: Any
    ) -> None:
        self.engines = {id_: ScriptedEngine() for id_ in (LOCAL, CLOUD)}
        backends = [
            backend(LOCAL, capabilities=CAN),
            backend(CLOUD, Place.PUBLIC_API, price=PRICE, capabilities=CAN),
        ]
        policy = Policy(stage="route", baseline=CLOUD, labels=frozenset({"internal", "health"}))
        self.snapshot = snapshot_of(*backends, policy=policy, home=str(home), **more)
        self.pipeline, self.journal = pipeline_over(
            lambda target: self.engines[target.name], home, self.snapshot, limits
        )
        self.pipeline.watcher = self.shadows = Shadows(self.pipeline)
        self._explore(serves)

    def _explore(self, serves: str) -> None:
        """What is explored is tested with deciding."""
        router = self.pipeline.state.router
        decide = router.decide

        def decided(*args: Any, **named: Any) -> Decision:
            made = decide(*args, **named)
            if made.requested != "auto":
                return made
            pair = Explored(local=LOCAL, cloud=CLOUD, promise="p")
            return msgspec.structs.replace(
                made, chosen=serves, fallbacks=(), explored=pair, propensity=0.1
            )

        router.decide = decided  # type: ignore[method-assign]

    def serve(self, model: str = "auto", envelope: Envelope | None = None, **fields: Any) -> Client:
        client = Client()
        body = json.dumps(ASK | {"model": model} | fields).encode()
        self.pipeline.serve("openai_chat", body, client, envelope or Envelope(no_fallback=False))
        return client

    def asked(self, backend_id: str) -> list[Sent]:
        return self.engines[backend_id].calls

    async def answer(self, backend_id: str, reply: Reply) -> None:
        next(c for c in reversed(self.asked(backend_id)) if not c.cancelled).play(reply)
        await asyncio.sleep(0)  # the watcher is told

    def shadow(self) -> CallRecord:
        (record,) = [r for r in self.journal.records if r.parent_id]
        return record

    def close(self) -> None:
        self.shadows.close()
        self.pipeline.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_c69_c114_the_client_is_served_before_the_shadow_is_asked(
    tmp_path: Path, stream: bool
) -> None:
    stage = Stage(tmp_path)
    client = stage.serve(stream=stream)
    assert not stage.asked(CLOUD)
    stage.asked(LOCAL)[0].play(
        replies.chat_stream(("Bo", "nn")) if stream else replies.chat("Bonn")
    )
    assert client.done
    assert not stage.asked(CLOUD), "asked while the client's last byte was on its way"
    await asyncio.sleep(0)
    body = json.loads(stage.asked(CLOUD)[0].body)
    assert (body["model"], body["messages"]) == ("large", ASK["messages"])
    assert not body.get("stream")
    before = client.body
    await stage.answer(CLOUD, replies.chat("Bonn."))
    assert client.body == before
    parent, child = stage.journal.records
    assert child.parent_id == parent.id
    assert [(a.kind, a.backend) for a in child.attempts] == [("shadow", CLOUD)]
    assert child.attempts[0].cost is not None
    assert child.attempts[0].cost.usd == Decimal("0.000048")  # 12 and 3 tokens
    assert child.extra["shadow"] == {"form_served": 1.0, "form_shadow": 1.0, "agrees": True}
    assert [a.backend for a in parent.attempts] == [LOCAL]
    stage.close()


async def test_where_the_cloud_served_the_model_at_home_is_asked(tmp_path: Path) -> None:
    stage = Stage(tmp_path, serves=CLOUD)
    stage.serve()
    await stage.answer(CLOUD, replies.chat("Bonn"))
    await stage.answer(LOCAL, replies.chat("Berlin"))
    assert stage.shadow().extra["shadow"]["agrees"] is False
    stage.close()


async def test_a_broken_form_is_seen_without_anybodys_verdict(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    wanted = {"type": "json_schema", "json_schema": {"name": "c", "schema": CITY}}
    stage.serve(response_format=wanted)
    await stage.answer(LOCAL, replies.chat('{"town": "Bonn"}'))
    await stage.answer(CLOUD, replies.chat('{"city": "Bonn"}'))
    compared = stage.shadow().extra["shadow"]
    assert compared == {"form_served": 0.0, "form_shadow": 1.0, "agrees": False}
    stage.close()


async def test_a_failed_shadow_is_booked_and_says_nothing_of_the_backend(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for _ in range(20):
        stage.serve()
        await stage.answer(LOCAL, replies.chat("Bonn"))
        await stage.answer(CLOUD, replies.openai_error(500))
    failed = [r for r in stage.journal.records if r.parent_id]
    assert len(failed) == 20
    assert {(r.outcome, r.attempts[0].status, bool(r.extra)) for r in failed} == {
        ("failed", 500, False)
    }
    assert not stage.pipeline.breakers.any_open
    assert not stage.pipeline.breakers.rates
    stage.close()


async def test_c114_a_shadow_that_succeeds_says_nothing_of_the_backend_either(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path)
    stage.pipeline.breakers.rates[CLOUD] = 0.5
    stage.serve()
    await stage.answer(LOCAL, replies.chat("Bonn"))
    await stage.answer(CLOUD, replies.chat("Bonn"))
    assert stage.shadow().outcome == "served"
    assert stage.pipeline.breakers.rates == {CLOUD: 0.5}
    assert CLOUD not in stage.pipeline.used
    stage.close()


async def test_c114_a_model_at_home_is_asked_only_while_no_client_needs_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path, serves=CLOUD)
    waiting = stage.serve(LOCAL)
    stage.serve()
    await stage.answer(CLOUD, replies.chat("Bonn"))
    assert len(stage.asked(LOCAL)) == 1, "a client waits for it"
    stage.asked(LOCAL)[0].play(replies.chat("done"))
    assert waiting.done
    stage.shadows._go_on()  # as its timer does, within a second
    assert len(stage.asked(LOCAL)) == 2
    client = stage.serve(LOCAL)
    assert stage.asked(LOCAL)[1].cancelled, "the shadow made room"
    stage.asked(LOCAL)[2].play(replies.chat("done"))
    assert client.done
    stage.shadows._go_on()
    await stage.answer(LOCAL, replies.chat("Bonn"))
    attempts = stage.shadow().attempts
    assert [(a.kind, a.fault) for a in attempts] == [("shadow", "given_up"), ("shadow", None)]
    stage.close()


async def test_c114_a_fault_of_shadows_harms_no_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("a shadow's own bug")

    monkeypatch.setattr(shadowing.Shadow, "give_up", broken)
    stage = Stage(tmp_path, serves=CLOUD)
    stage.serve()
    await stage.answer(CLOUD, replies.chat("Bonn"))
    client = stage.serve(LOCAL)
    await stage.answer(LOCAL, replies.chat("done"))
    assert client.status == 200
    stage.pipeline.close()


async def test_a_shadow_that_is_always_in_the_way_is_not_asked_for_ever(tmp_path: Path) -> None:
    stage = Stage(tmp_path, serves=CLOUD)
    stage.serve()
    await stage.answer(CLOUD, replies.chat("Bonn"))
    for _ in range(shadowing.TRIES):
        stage.serve(LOCAL)
        await stage.answer(LOCAL, replies.chat("done"))
        stage.shadows._go_on()
    assert stage.shadows.pending == 0
    record = stage.shadow()
    assert (record.outcome, len(record.attempts)) == ("failed", shadowing.TRIES)
    stage.close()


async def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadowing, "QUEUE", 3)
    stage = Stage(tmp_path)
    for _ in range(20):
        stage.serve()
        await stage.answer(LOCAL, replies.chat("Bonn"))
    assert len(stage.asked(CLOUD)) == shadowing.AT_ONCE
    assert stage.shadows.pending == shadowing.AT_ONCE + 3
    stage.close()


async def test_a_shadow_in_flight_at_the_end_is_in_the_books(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.serve()
    await stage.answer(LOCAL, replies.chat("Bonn"))
    stage.close()
    assert stage.asked(CLOUD)[0].cancelled
    attempt = stage.shadow().attempts[0]
    assert attempt.fault == "given_up"
    assert attempt.cost is not None
    assert attempt.cost.usd is None, "how much was written by then, nobody knows"
    assert stage.shadows.pending == 0


# Money -------------------------------------------------------------------------------------------


def limited(home: Path, *quotas: Quota) -> Authorizer:
    return Authorizer(quotas, SqliteLeases(home), LeaseTable(leases_dir(home)))


def quota(scope: Any, unit: Any, limit: str) -> Quota:
    return Quota(scope=scope, unit=unit, limit=Decimal(limit), period="total")


async def test_c114_no_key_pays_for_a_shadow_and_no_rate_limit_counts_it(tmp_path: Path) -> None:
    quotas = (quota("all", "usd", "1"), quota("key", "usd", "1"), quota("all", "requests", "100"))
    limits = limited(tmp_path, *quotas)
    stage = Stage(tmp_path, limits=limits)
    stage.serve(envelope=Envelope(grant=Grant(name="k")))
    await stage.answer(LOCAL, replies.chat("Bonn"))
    await stage.answer(CLOUD, replies.chat("Bonn"))
    record = stage.shadow()
    assert (record.key_name, record.tenant, record.team) == (None, None, None)
    stage.close()
    limits.close()
    with contextlib.closing(SqliteLeases(tmp_path)) as store:
        used = {account.quota: nano for account, nano in store.committed().items()}
    assert used["all:*:usd:total:UTC"] == 48_000  # nano-dollars of the shadow
    assert used.get("key:*:usd:total:UTC", 0) == 0
    assert used["all:*:requests:total:UTC"] == 1


async def test_a_shadow_never_passes_the_operators_budget(tmp_path: Path) -> None:
    limits = limited(tmp_path, quota("all", "usd", "0.000001"))
    stage = Stage(tmp_path, limits=limits)
    client = stage.serve()  # at home it costs nothing
    await stage.answer(LOCAL, replies.chat("Bonn"))
    assert client.status == 200
    assert not stage.asked(CLOUD)
    assert stage.shadows.pending == 0
    stage.close()
    limits.close()


# Privacy -----------------------------------------------------------------------------------------


def holding(home: Path, words: bytes) -> list[Path]:
    return [p for p in home.rglob("*") if p.is_file() and words in p.read_bytes()]


@pytest.mark.parametrize(
    ("more", "labels", "kept"),
    [
        ({}, (), False),
        ({"keep_answers_s": 60.0}, (), True),
        ({"keep_answers_s": 60.0}, ("internal",), False),
        ({"keep_answers_s": 60.0, "keep_labels": frozenset({"internal"})}, ("internal",), True),
        (
            {"keep_answers_s": 60.0, "keep_labels": frozenset({"internal"})},
            ("internal", "health"),
            False,
        ),
    ],
    ids=["off", "on", "labelled", "allowed", "one_is_not"],
)
async def test_an_answer_is_kept_only_where_policy_says_so(
    tmp_path: Path, more: dict[str, Any], labels: tuple[str, ...], kept: bool
) -> None:
    stage = Stage(tmp_path, **more)
    stage.serve(envelope=Envelope(labels=frozenset(labels)))
    await stage.answer(LOCAL, replies.chat("Bonn"))
    await stage.answer(CLOUD, replies.chat("The secret is Bonn"))
    id_ = stage.journal.records[0].id
    found = kept_answers.find(tmp_path, id_)
    assert (found is not None) is kept
    on_disk = holding(tmp_path, b"secret")
    assert bool(on_disk) is kept
    if found is not None:
        assert (found.backend, found.text) == (CLOUD, "The secret is Bonn")
        assert on_disk[0].stat().st_mode & 0o777 == 0o600
        assert on_disk[0].parent.stat().st_mode & 0o777 == 0o700
    stage.close()


def test_c95_a_kept_answer_goes_with_its_time_and_on_request(tmp_path: Path) -> None:
    for id_, until_s in (("a-1", 50.0), ("a-2", 150.0), ("a-3", 150.0)):
        kept = kept_answers.KeptAnswer(id=id_, backend=CLOUD, text="x", until_s=until_s)
        kept_answers.save(tmp_path, kept)
    assert kept_answers.find(tmp_path, "a-1", now_s=60.0) is None
    assert kept_answers.expire(tmp_path, now_s=60.0) == 1
    assert kept_answers.drop(tmp_path, ["a-2", "a-9"]) == 1
    assert [p.stem for p in (tmp_path / "shadows").iterdir()] == ["a-3"]


@pytest.mark.parametrize("id_", ["../config", "a/b", "", "a" * 99, "a\n"])
def test_an_id_is_no_path(tmp_path: Path, id_: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert kept_answers.find(tmp_path, id_) is None
    assert kept_answers.drop(tmp_path, [id_]) == 0
    assert (tmp_path / "config.json").exists()


# Every format ------------------------------------------------------------------------------------

BODIES: dict[str, dict[str, Any]] = {
    "openai_completions": {"prompt": "Where?"},
    "openai_responses": {"input": "Where?"},
    "anthropic_messages": {"messages": ASK["messages"], "max_tokens": 100},
}


@pytest.mark.parametrize("request_format", list(BODIES))
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_of_any_format_has_its_other_answer_compared(
    tmp_path: Path, request_format: str, stream: bool
) -> None:
    stage = Stage(tmp_path)
    client = Client()
    body = json.dumps(BODIES[request_format] | {"model": "auto", "stream": stream}).encode()
    stage.pipeline.serve(request_format, body, client, Envelope(no_fallback=False))
    served = replies.chat_stream(("Bo", "nn")) if stream else replies.chat("Bonn")
    await stage.answer(LOCAL, served)
    assert client.status == 200
    await stage.answer(CLOUD, replies.chat("bonn"))
    record = stage.shadow()
    assert record.format == request_format
    assert record.extra["shadow"] == {"form_served": 1.0, "form_shadow": 1.0, "agrees": True}
    stage.close()


async def test_tool_calls_are_compared_by_name_and_value_and_checked(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "find", "parameters": CITY}}
    arguments = ('{"city": "Bonn"}', '{ "city":"Bonn" }', '{"town": 1}')
    for other, agrees, form in ((arguments[1], True, 1.0), (arguments[2], False, 0.0)):
        stage = Stage(tmp_path / str(agrees))
        stage.serve(tools=[tool])
        await stage.answer(LOCAL, called(arguments[0]))
        await stage.answer(CLOUD, called(other))
        compared = stage.shadow().extra["shadow"]
        assert compared == {"form_served": 1.0, "form_shadow": form, "agrees": agrees}
        stage.close()


def called(arguments: str) -> Reply:
    function = {"name": "find", "arguments": arguments}
    call = {"id": "c1", "type": "function", "function": function}
    usage = {"prompt_tokens": 90, "completion_tokens": 9, "total_tokens": 99}
    return replies.chat("", usage=usage, finish_reason="tool_calls", tool_calls=[call])
