"""Budgets, rate limits and keys through the gateway: C60, C62, C65, C103 and what a client sees."""

from concurrent.futures import ThreadPoolExecutor, as_completed
from decimal import Decimal
from pathlib import Path

import pytest

from locavore.core.access import Grant
from locavore.core.backend import Place
from locavore.core.errors import ConfigError
from locavore.ledger.keys import KeyStore
from locavore.testing import Hold, Reply, ScriptedUpstream, replies
from tests.conformance.client import Client, backend
from tests.conformance.conftest import Start

PRICE = {"input_mtok": "0", "output_mtok": "10000"}
"""One cent per output token."""
USED = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
BUDGET = '[[budget]]\nscope = "all"\nunit = "usd"\nlimit = "{}"\nperiod = "day"\n'


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def stored(home: Path, grant: Grant) -> str:
    store = KeyStore(home)
    try:
        return store.create(grant)
    finally:
        store.close()


def test_c60_concurrent_calls_never_pass_a_budget(start: Start, upstream: ScriptedUpstream) -> None:
    client = start(backend("home/m", upstream, price=PRICE) + BUDGET.format("0.30"))
    hold = Hold()
    upstream.always(Reply((hold, *replies.chat(usage=USED).steps)))
    with ThreadPoolExecutor(20) as pool:
        # Ten tokens at most are ten cents: a budget of thirty holds three calls at a time.
        calls = [pool.submit(client.chat, max_tokens=10) for _ in range(20)]
        assert hold.reached.wait(5)
        finished = as_completed(calls, timeout=20)
        refused = [next(finished).result() for _ in range(17)]
        assert {a.status for a in refused} == {429}
        assert {a.error["code"] for a in refused} == {"insufficient_quota"}
        hold.release()
        assert [call.result().status for call in finished] == [200] * 3
    assert len(upstream.requests) == 3


def test_what_was_not_used_comes_back(start: Start, upstream: ScriptedUpstream) -> None:
    client = start(backend("home/m", upstream, price=PRICE) + BUDGET.format("0.20"))
    upstream.always(replies.chat(usage=USED))
    # Each call sets ten cents aside and uses three.
    statuses = [client.chat(max_tokens=10).status for _ in range(5)]
    assert statuses == [200, 200, 200, 200, 429]


def test_c62_an_unknown_price_is_refused_under_a_budget(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("cloud/m", upstream, place="public_api") + BUDGET.format("5"))
    upstream.always(replies.chat())
    answer = client.chat(model="cloud/m")
    assert answer.status == 403
    assert answer.error["code"] == "unknown_price"
    assert not upstream.requests


def test_a_nearly_spent_budget_narrows_to_what_it_pays_for(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    cloud = backend("cloud/x", other, place="public_api", price=PRICE)
    config = 'baseline = "cloud/x"\n' + backend("home/m", upstream) + cloud
    client = start(config + BUDGET.format("0.12"))
    upstream.always(replies.chat("local", usage=USED))
    other.always(replies.chat("cloud", usage=USED))

    def said() -> str:
        answer = client.chat(model="auto", max_tokens=10)
        assert answer.status == 200, answer.body
        text: str = answer.json["choices"][0]["message"]["content"]
        return text

    assert said() == "cloud"
    assert said() == "local"


def test_a_failed_call_costs_nothing(start: Start, upstream: ScriptedUpstream) -> None:
    config = backend("home/m", upstream, price=PRICE) + "[retry]\nattempts = 1\n"
    client = start(config + BUDGET.format("0.10"))
    upstream.script(*(replies.openai_error(400) for _ in range(3)), replies.chat(usage=USED))
    assert [client.chat(max_tokens=10).status for _ in range(4)] == [400, 400, 400, 200]


def test_rate_limits_tell_what_is_left(start: Start, upstream: ScriptedUpstream) -> None:
    limit = '[[budget]]\nunit = "requests"\nlimit = 2\nperiod = "day"\n'
    client = start(backend("home/m", upstream) + limit)
    upstream.always(replies.chat())
    first, second, third = (client.chat() for _ in range(3))
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert second.headers["x-ratelimit-remaining-requests"] == "0"
    assert third.status == 429
    assert float(third.headers["retry-after"]) > 0


def test_a_slot_of_a_concurrency_limit_is_free_again_after_the_client_left(
    start: Start, upstream: ScriptedUpstream
) -> None:
    limit = '[[budget]]\nunit = "concurrent"\nlimit = 1\nperiod = "total"\n'
    client = start(backend("home/m", upstream) + limit)
    hold = Hold()
    upstream.script(Reply.sse(hold))
    upstream.always(replies.chat())
    stream = client.open_stream()
    assert hold.reached.wait(5)
    assert client.chat().status == 429
    stream.close()
    assert hold.peer_left.wait(5)
    assert client.chat().status == 200


def test_keys_of_the_store_open_the_gateway_and_bind_models_places_and_labels(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    ann = stored(home, Grant(name="ann", tenant="acme", farthest=Place.ON_PREM))
    bob = stored(home, Grant(name="bob", models=("cloud/*",)))
    admin = stored(home, Grant(name="root", admin=True))
    cloud = backend("cloud/x", other, place="public_api", price=PRICE)
    client: Client = start(backend("home/m", upstream) + cloud)
    upstream.always(replies.chat())
    other.always(replies.chat())
    assert client.chat().status == 401
    assert client.chat(headers=bearer("lv-wrong")).status == 401
    assert client.chat(headers=bearer(ann)).status == 200
    assert client.chat(headers={"x-api-key": ann}).status == 200
    assert client.chat(model="cloud/x", headers=bearer(ann)).status == 400
    assert client.chat(model="cloud/x", headers=bearer(bob)).status == 200
    assert client.chat(headers=bearer(bob)).status == 400
    assert client.chat(headers=bearer(admin)).status == 403
    records = client.records()
    assert {r.key_name for r in records} == {"ann", "bob"}
    assert {r.tenant for r in records if r.key_name == "ann"} == {"acme"}
    kept = b"".join(p.read_bytes() for p in home.rglob("*") if p.is_file())
    assert ann.encode() not in kept


def test_c65_the_books_hold_what_the_budget_counted(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, price=PRICE) + BUDGET.format("1"))
    upstream.script(replies.chat(usage=USED), replies.chat_stream(usage=USED))
    client.chat(max_tokens=10)
    client.chat(max_tokens=10, stream=True)
    costs = [r.attempts[0].cost for r in client.records()]
    assert [c.usd for c in costs if c is not None] == [Decimal("0.03")] * 2


@pytest.mark.parametrize("unit", ["usd", "concurrent"])
def test_a_bad_budget_is_told_by_key_and_value(start: Start, unit: str) -> None:
    bad = f'[[budget]]\nunit = "{unit}"\nlimit = "-1"\nperiod = "day"\nzone = "Mars/Base"\n'
    with pytest.raises(ConfigError, match=r"budget\[0\].limit.*-1"):
        start(bad)
