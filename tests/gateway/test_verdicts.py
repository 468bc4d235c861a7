"""Verdicts and other answers over HTTP, through a running gateway under a promise."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from locavore.core.estimate import Estimate
from locavore.evidence.watch import Watch
from locavore.ledger.query import open_current
from locavore.ledger.verdicts import explored
from locavore.routing.estimators.promised import (
    FOLDER,
    Withdrawal,
    read,
    save,
    withdraw,
)
from locavore.testing.gateway import RunningGateway
from locavore.testing.replies import chat
from locavore.testing.upstream import Received, Reply, ScriptedUpstream
from tests.promises import entry

LOCAL, CLOUD = "home/small", "cloud/big"
CONFIG = """
stage = "route"
baseline = "cloud/big"
[routing]
cascade = false
[explore]
share = 1.0
keep_answers_s = 3600
[keys]
app = "app-secret"
other = "other-secret"
[[backend]]
id = "cloud/big"
url = "{url}"
place = "public_api"
context_tokens = 100000
price = {{ input_mtok = 2, output_mtok = 8 }}
[[backend]]
id = "home/small"
url = "{url}"
context_tokens = 100000
price = {{ input_mtok = 0, output_mtok = 0 }}
[[rule]]
name = "health stays"
when = {{ label = "health" }}
require = {{ farthest = "on_prem" }}
"""


def answer(received: Received) -> Reply:
    body = json.loads(received.body)
    return chat("Bonn" if body["model"] == "big" else "Berlin", model=body["model"])


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as found:
        found.always(answer)
        yield found


@pytest.fixture
def gateway(upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[RunningGateway]:
    home = tmp_path / "home"
    save(home / FOLDER, entry(LOCAL, CLOUD))
    with RunningGateway(home, CONFIG.format(url=upstream.url)) as running:
        yield running


def client(gateway: RunningGateway, key: str = "app-secret") -> httpx2.Client:
    return httpx2.Client(base_url=gateway.origin, headers={"authorization": f"Bearer {key}"})


def asked(http: httpx2.Client, **headers: str) -> httpx2.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": "Where?"}]}
    found = http.post("/v1/chat/completions", json=body, headers=headers)
    assert found.status_code == 200, found.text
    return found


def shadowed(gateway: RunningGateway, upstream: ScriptedUpstream, requests: int) -> None:
    """Return once the upstream has had so many requests and all records are in the ledger."""
    upstream.wait_for_requests(requests)
    gateway.wait_for_records(requests)


def test_an_application_sees_the_other_answer_and_judges_both(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    with client(gateway) as http, client(gateway, "other-secret") as other:
        served = asked(http)
        assert served.headers["x-locavore-explored"] == "true"
        assert served.headers["x-locavore-model"] == LOCAL
        shadowed(gateway, upstream, 2)
        id_ = served.headers["x-locavore-decision"]
        path = f"/v1/decisions/{id_}"
        found = http.get(f"{path}/shadow")
        assert (found.json()["backend"], found.json()["text"]) == (CLOUD, "Bonn")
        assert other.get(f"{path}/shadow").status_code == 404
        assert other.post(f"{path}/verdict", json={"served": 0}).status_code == 404
        verdict = {"served": 0.25, "shadow": 1}
        for _ in range(2):
            given = http.post(f"{path}/verdict", json=verdict)
            assert given.status_code == 200, given.text
            assert given.json() == {"id": id_, "served": 0.25, "shadow": 1.0}
        again = http.post(f"{path}/verdict", json={"served": 1})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "verdict_exists")
        gone = http.get(f"{path}/shadow")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "no_shadow")
        assert not list((gateway.home / "shadows").iterdir())


def test_c91_a_labelled_call_that_must_stay_is_never_shown_to_the_cloud(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    with client(gateway) as http:
        labelled = asked(http, **{"x-locavore-labels": "health"})
        assert "x-locavore-explored" not in labelled.headers
        asked(http)
        shadowed(gateway, upstream, 3)
        path = f"/v1/decisions/{labelled.headers['x-locavore-decision']}"
        found = http.get(f"{path}/shadow")
        assert (found.status_code, "not explored" in found.text) == (404, True)
        wrong = http.post(f"{path}/verdict", json={"shadow": 1})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "not_explored")
        assert http.post(f"{path}/verdict", json={"served": 1}).status_code == 200
    models = [json.loads(r.body)["model"] for r in upstream.requests]
    assert models.count("big") == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"served": 2}, "served"),
        ({"score": 1}, "score"),
        ({}, "`served`, `shadow` or both"),
        ([], "object"),
    ],
)
def test_a_verdict_that_cannot_be_says_what_is_wrong(
    gateway: RunningGateway, body: Any, said: str
) -> None:
    with client(gateway) as http:
        found = http.post("/v1/decisions/some-id/verdict", json=body)
        assert found.status_code == 400
        assert said in found.json()["error"]["message"]
        unknown = http.post("/v1/decisions/some-id/verdict", json={"served": 1})
        assert (unknown.status_code, "no call 'some-id'" in unknown.text) == (404, True)


def test_the_monitors_know_the_same_after_a_restart(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    with client(gateway) as http:
        ids = [asked(http).headers["x-locavore-decision"] for _ in range(12)]
        shadowed(gateway, upstream, 24)
        for id_ in ids:
            http.post(f"/v1/decisions/{id_}/verdict", json={"served": 0, "shadow": 1})
    (made,) = read(gateway.home / FOLDER)
    db = open_current(gateway.home)
    try:
        assert sum(call.judged for call in explored(db)) == 12
        first, second = Watch(lambda: 1.0), Watch(lambda: 1.0)
        assert [w for _, w in first.look(db, [made])] == [w for _, w in second.look(db, [made])]
    finally:
        db.close()


def test_a_withdrawal_moves_conversations_that_had_begun_at_home(gateway: RunningGateway) -> None:
    first = {"role": "user", "content": "Where do people live on the Rhine, and since when?"}
    with client(gateway) as http:
        body = {"model": "auto", "messages": [first]}
        begun = http.post("/v1/chat/completions", json=body)
        assert begun.headers["x-locavore-model"] == LOCAL
        (made,) = read(gateway.home / FOLDER)
        achieved = Estimate(mean=0.5, low=0.4, high=0.6, n=50, source="test")
        broken = Withdrawal(at_s=1.0, judged="quality", achieved=achieved)
        assert withdraw(gateway.home / FOLDER, made.id, broken) is not None
        assert gateway.keep_promises()
        said = {"role": "assistant", "content": "Berlin"}
        again = {"role": "user", "content": "And on the Elbe?"}
        body = {"model": "auto", "messages": [first, said, again]}
        assert http.post("/v1/chat/completions", json=body).headers["x-locavore-model"] == CLOUD
