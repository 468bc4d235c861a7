"""What must hold for every configuration, seen from outside a running gateway."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from locavore.core.decision import Decision
from locavore.core.outcome import Attempt
from locavore.ledger.query import open_current, report
from locavore.testing import Received, Reply, ScriptedUpstream, replies
from locavore.testing.gateway import RunningGateway
from tests.conformance.client import CHAT, Client, backend, toml

PLACES = ["embedded", "on_prem", "private_cloud", "public_api"]
PORTS = range(4)
VIRTUAL = ["auto", "local", "cloud"]
CAPABILITIES = ["tools", "json_schema"]
STAY = '[[rule]]\nname = "stay"\nwhen = { label = "secret" }\nrequire = { farthest = "on_prem" }\n'
EXAMPLES = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """A random configuration and how its upstreams behave."""

    run: int
    config: str
    places: dict[str, str]
    servers: dict[str, int]
    """Backend id -> number of its upstream. Ids are new in each run, and so are their breakers."""
    behaviour: dict[str, tuple[str, ...]]
    """Backend id -> how it answers, in turn: `ok`, `error`, `busy`, `broken`, `refused`."""


@st.composite
def fleets(draw: st.DrawFn, upstreams: list[ScriptedUpstream]) -> Fleet:
    run = next(RUN)
    numbers = draw(st.lists(st.sampled_from(PORTS), min_size=1, max_size=4, unique=True))
    servers = {f"p{number}-{run}/m": number for number in numbers}
    ids = list(servers)
    places = {id_: draw(st.sampled_from(PLACES[1:])) for id_ in ids}
    config = f"stage = {toml(draw(st.sampled_from(['observe', 'route'])))}\n"
    config += f"posture = {toml(draw(st.sampled_from(['local_only', 'local_first'])))}\n"
    if draw(st.booleans()):
        config += f"baseline = {toml(draw(st.sampled_from(ids)))}\n"
    config += "[retry]\nbackoff_s = 0.001\nmax_wait_s = 0.01\n"
    config += f"attempts = {draw(st.integers(1, 3))}\n"
    config += f"[breaker]\nfailures = {draw(st.integers(1, 3))}\n"
    config += "[fallback]\n"
    for id_ in ids:
        others = draw(st.lists(st.sampled_from(ids), unique=True))
        config += f"{toml(id_)} = {toml([o for o in others if o != id_])}\n"
    for id_ in ids:
        settings_: dict[str, Any] = {"place": places[id_]}
        if draw(st.booleans()):
            settings_["price"] = {"input_mtok": "0.5", "output_mtok": "3"}
        settings_["capabilities"] = draw(st.lists(st.sampled_from(CAPABILITIES), unique=True))
        config += backend(id_, upstreams[servers[id_]], **settings_)
    behaviours = st.lists(
        st.sampled_from(["ok", "ok", "error", "busy", "broken", "refused"]), min_size=1, max_size=6
    )
    return Fleet(
        run=run,
        config=config + STAY,
        places=places,
        servers=servers,
        behaviour={id_: tuple(draw(behaviours)) for id_ in ids},
    )


RUN = iter(range(1 << 30))

calls = st.lists(
    st.fixed_dictionaries(
        {
            "model": st.sampled_from([*PORTS, *PORTS, *VIRTUAL]),
            "labelled": st.booleans(),
            "stream": st.booleans(),
            "session": st.sampled_from([None, "s1", "s2"]),
        }
    ),
    min_size=1,
    max_size=8,
)


def answering(behaviour: tuple[str, ...]) -> Any:
    """A responder that goes through `behaviour` and stays with its last."""
    turn = iter(behaviour)
    last = behaviour[-1]

    def respond(received: Received) -> Reply:
        stream = bool(received.json.get("stream"))
        match next(turn, last):
            case "ok":
                return replies.chat_stream() if stream else replies.chat()
            case "busy":
                return replies.openai_error(429, retry_after_ms="1")
            case "broken":
                whole = replies.chat_stream()
                return Reply(whole.steps[:3], headers=whole.headers, framing="close")
            case "refused":
                return replies.openai_error(401)
        return replies.openai_error(500)

    return respond


@pytest.fixture(scope="module")
def upstreams() -> Iterator[list[ScriptedUpstream]]:
    servers = [ScriptedUpstream() for _ in PORTS]
    for server in servers:
        server.__enter__()
    yield servers
    for server in servers:
        server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One gateway, whose configuration each example replaces."""
    home: Path = tmp_path_factory.mktemp("gateway") / "home"
    with RunningGateway(home) as gateway:
        yield Client(gateway)


def prepare(client: Client, upstreams: list[ScriptedUpstream], fleet: Fleet) -> None:
    for server in upstreams:
        server.clear()
    for id_, behaviour in fleet.behaviour.items():
        upstreams[fleet.servers[id_]].always(answering(behaviour))
    client.gateway.reload(fleet.config)


def named(fleet: Fleet, call: dict[str, Any]) -> str:
    """The model a call names: a virtual one, or the backend at a number (which may be none)."""
    model = call["model"]
    return model if isinstance(model, str) else f"p{model}-{fleet.run}/m"


def headers_of(call: dict[str, Any], run: int) -> dict[str, str]:
    headers = {"x-locavore-labels": "secret"} if call["labelled"] else {}
    if call["session"]:
        headers["x-locavore-session"] = f"{call['session']}-{run}"
    return headers


@EXAMPLES
@given(data=st.data(), made=calls)
def test_c56_c91_c92_a_labelled_call_never_reaches_a_farther_place(
    client: Client, upstreams: list[ScriptedUpstream], data: st.DataObject, made: list[Any]
) -> None:
    fleet = data.draw(fleets(upstreams))
    prepare(client, upstreams, fleet)
    bound: set[str] = set()
    for number, call in enumerate(made):
        marker = f"call-{number}-"
        if call["labelled"] and call["session"]:
            bound.add(call["session"])
        said = [{"role": "user", "content": marker}]
        client.chat(
            model=named(fleet, call),
            stream=call["stream"],
            messages=said,
            headers=headers_of(call, fleet.run),
        )
        if not (call["labelled"] or call["session"] in bound):
            continue
        for id_, place in fleet.places.items():
            if PLACES.index(place) > PLACES.index("on_prem"):
                seen = [
                    r for r in upstreams[fleet.servers[id_]].requests if marker.encode() in r.body
                ]
                assert not seen, f"{id_} at {place} saw a labelled call"


def billed_unknown(attempt: Attempt) -> bool:
    """Somebody may charge for it and nobody knows how much: no price, or cut off without usage."""
    if attempt.cost is not None and attempt.cost.usd is not None:
        return False
    return (attempt.status or 0) < 400


@EXAMPLES
@given(data=st.data(), made=calls)
def test_c69_totals_of_the_ledger_are_the_sum_of_the_attempts(
    client: Client, upstreams: list[ScriptedUpstream], data: st.DataObject, made: list[Any]
) -> None:
    fleet = data.draw(fleets(upstreams))
    prepare(client, upstreams, fleet)
    before = len(client.records())
    for call in made:
        headers = headers_of(call, fleet.run)
        client.chat(model=named(fleet, call), stream=call["stream"], headers=headers)
    records = client.records()
    attempts = [attempt for record in records for attempt in record.attempts]
    sent = sum(len(server.requests) for server in upstreams)
    assert sum(len(r.attempts) for r in records[before:]) == sent, "an attempt is not written down"
    db = open_current(client.gateway.home)
    try:
        total = report(db).total
    finally:
        db.close()
    costs = [a.cost.usd for a in attempts if a.cost is not None and a.cost.usd is not None]
    assert total.attempts == len(attempts)
    assert total.calls == len(records)
    assert total.cost_usd == sum(costs, Decimal(0))
    assert total.unknown_cost == sum(billed_unknown(a) for a in attempts)
    used = [a.usage for a in attempts if a.usage is not None]
    assert total.input_tokens == sum(u.input_tokens or 0 for u in used)
    assert total.output_tokens == sum(u.output_tokens or 0 for u in used)


NEEDS: list[dict[str, Any]] = [
    {},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}},
    {"n": 2},
    {"max_tokens": 100_000},
    {"messages": [{"role": "user", "content": "Please debug this python: " + "x = 1\n" * 900}]},
]


def timeless(decision: Decision) -> bytes:
    """Without its id and without the seconds until a breaker's next try."""
    text = msgspec.json.encode(msgspec.structs.replace(decision, id=""))
    return re.sub(rb"next try in \d+ s", b"", text)


@EXAMPLES
@given(data=st.data(), made=calls, needs=st.sampled_from(NEEDS))
def test_c110_c111_the_dry_run_says_what_the_live_call_records(
    client: Client,
    upstreams: list[ScriptedUpstream],
    data: st.DataObject,
    made: list[dict[str, Any]],
    needs: dict[str, Any],
) -> None:
    fleet = data.draw(fleets(upstreams))
    prepare(client, upstreams, fleet)
    for earlier in made[1:]:  # they open breakers and bind sessions
        client.chat(model=named(fleet, earlier), headers=headers_of(earlier, fleet.run))
    fields = CHAT | needs | {"model": named(fleet, made[0]), "stream": made[0]["stream"]}
    headers = headers_of(made[0], fleet.run)
    sent = sum(len(server.requests) for server in upstreams)
    dry = client.post("/v1/route", fields, headers)
    assert sum(len(server.requests) for server in upstreams) == sent, "a dry run called somebody"
    live = client.post("/v1/chat/completions", fields, headers)
    if dry.status == 404:
        assert live.status == 404
        return
    said = msgspec.json.decode(dry.body, type=Decision)
    record = client.records()[-1]
    assert record.id == live.headers["x-locavore-decision"]
    assert timeless(record.decision) == timeless(said)
    if said.chosen is None:
        assert live.status in (400, 503)
        assert record.outcome == "refused"
    else:
        assert record.attempts[0].backend == said.chosen
        assert {a.backend for a in record.attempts} <= {said.chosen, *said.fallbacks}
