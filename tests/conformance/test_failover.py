"""Retries, fallbacks, breakers and overload: C50-C56, C84, through the gateway."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from email.utils import formatdate

import pytest

from locavore.testing import Hold, Reply, ScriptedUpstream, replies
from tests.conformance.client import backend
from tests.conformance.conftest import Start

FALLBACK = '[fallback]\n"home/m" = ["home/second"]\n'
ONE_TRY = "[retry]\nattempts = 1\n"


def test_c50_a_short_retry_after_is_waited_for(start: Start, upstream: ScriptedUpstream) -> None:
    client = start(backend("home/m", upstream))
    upstream.script(replies.openai_error(429, retry_after_ms="20"), replies.chat("second try"))
    answer = client.chat()
    assert answer.status == 200
    assert [a.kind for a in client.record.attempts] == ["first", "retry"]


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        ("retry_after", "77", 77),
        ("retry_after_ms", "77000", 77),
        ("retry_after", "date", 77),
    ],
    ids=["seconds", "milliseconds", "date"],
)
def test_c50_a_long_retry_after_is_forwarded(
    start: Start, upstream: ScriptedUpstream, name: str, value: str, seconds: int
) -> None:
    client = start(backend("home/m", upstream))
    if value == "date":
        value = formatdate(time.time() + seconds, usegmt=True)
    upstream.script(replies.openai_error(429, "slow down", **{name: value}))
    answer = client.chat()
    assert answer.status == 429
    assert float(answer.headers["retry-after"]) == pytest.approx(seconds, abs=3)
    assert answer.headers["x-should-retry"] == "true"
    assert len(upstream.requests) == 1


def test_c51_a_client_error_is_not_retried_and_says_so(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream) + backend("home/second", other) + FALLBACK)
    upstream.script(replies.openai_error(400, "temperature must be a number"))
    answer = client.chat()
    assert answer.status == 400
    assert answer.error["message"] == "temperature must be a number"
    assert answer.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1
    assert not other.requests


def test_c51_bytes_that_were_accepted_are_not_sent_to_the_same_backend_again(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream) + "[timeouts]\nfirst_byte_s = 0.3\n")
    upstream.always(Reply((Hold(), *replies.chat().steps)))
    assert client.chat().status == 504
    assert len(upstream.requests) == 1


def test_an_empty_200_is_not_an_answer(start: Start, upstream: ScriptedUpstream) -> None:
    client = start(backend("home/m", upstream) + ONE_TRY)
    upstream.script(Reply(()))
    assert client.chat().status == 502
    assert client.record.attempts[0].fault == "protocol"


def test_c52_extra_attempts_are_bounded_by_a_budget(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    config = backend("home/m", upstream) + backend("home/second", other) + FALLBACK
    config += "[retry]\nattempts = 3\nbackoff_s = 0.001\nbudget_ratio = 0.1\n"
    client = start(config + "[breaker]\nfailures = 1000\n")
    upstream.always(replies.openai_error(500))
    other.always(replies.openai_error(500))
    calls = 100
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: client.chat(), range(calls)))
    sent = len(upstream.requests) + len(other.requests)
    # Without a budget: 100 calls × 2 backends × 3 tries = 600.
    assert calls <= sent <= calls * 1.1 + 10


@pytest.mark.parametrize("status", [401, 402, 403])
def test_c53_a_refused_key_stops_that_key_and_not_the_provider(
    start: Start, upstream: ScriptedUpstream, status: int
) -> None:
    first = backend("cloud/a", upstream, place="public_api", api_key_env="KEY_A")
    second = backend("cloud/b", upstream, place="public_api", api_key_env="KEY_B")
    client = start(first + second + ONE_TRY, KEY_A="sk-a", KEY_B="sk-b")
    upstream.script(replies.openai_error(status, "bad key"))
    upstream.always(replies.chat())
    refused = client.chat(model="cloud/a")
    assert refused.status == 502
    assert refused.error["code"] == "upstream_credential_refused"
    assert "the key in KEY_A" in refused.error["message"]
    assert "sk-a" not in refused.error["message"]
    assert client.chat(model="cloud/a").status == 503
    assert len(upstream.requests) == 1
    assert client.chat(model="cloud/b").status == 200


def test_auto_says_that_a_baseline_is_missing_where_only_names_are_served(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start("", OPENAI_API_KEY="sk-a", OPENAI_BASE_URL=upstream.url)
    refused = client.chat(model="auto")
    assert refused.status == 400
    assert (
        "Models of openai/... are served by name; name one as `baseline`"
        in refused.error["message"]
    )
    assert not upstream.requests


def test_c53_a_local_engine_is_never_disabled_by_them(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream) + ONE_TRY)
    upstream.script(*(replies.openai_error(401) for _ in range(8)), replies.chat())
    for _ in range(8):
        client.chat()
    assert client.chat().status == 200


def test_c54_half_open_lets_exactly_one_probe_through(
    start: Start, upstream: ScriptedUpstream
) -> None:
    config = backend("home/m", upstream) + ONE_TRY + "[breaker]\nfailures = 2\nopen_s = 0.3\n"
    client = start(config)
    upstream.script(replies.openai_error(500), replies.openai_error(500))
    client.chat()
    client.chat()
    assert client.chat().status == 503
    assert len(upstream.requests) == 2
    hold = Hold()
    upstream.always(Reply((hold, *replies.chat().steps)))
    time.sleep(0.35)  # the breaker's own pause; there is no event to wait for
    answers: list[int] = []
    probe = threading.Thread(target=lambda: answers.append(client.chat().status))
    probe.start()
    assert hold.reached.wait(5)
    refused = [client.chat().status for _ in range(5)]
    hold.release()
    probe.join(5)
    assert refused == [503] * 5
    assert answers == [200]
    assert len(upstream.requests) == 3
    assert client.chat().status == 200


def test_c54_open_state_is_per_target(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    config = backend("home/m", upstream) + backend("home/second", other)
    client = start(config + ONE_TRY + "[breaker]\nfailures = 1\n")
    upstream.script(replies.openai_error(500))
    other.always(replies.chat())
    client.chat()
    assert client.chat().status == 503
    assert client.chat(model="home/second").status == 200


def test_c55_all_targets_down_names_each_excluder_and_is_kept(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    config = backend("home/m", upstream) + backend("home/second", other)
    client = start(config + ONE_TRY + "[breaker]\nfailures = 1\n")
    upstream.always(replies.openai_error(500))
    other.always(replies.openai_error(500))
    client.chat(model="home/m")
    client.chat(model="home/second")
    answer = client.chat(model="local")
    assert answer.status == 503
    assert "home/m" in answer.error["message"]
    assert "home/second" in answer.error["message"]
    refused = client.records()[-1]
    assert refused.outcome == "refused"
    assert {c.id for c in refused.decision.considered} == {"home/m", "home/second"}
    kept = client.get(f"/v1/decisions/{refused.id}")
    assert kept.json["decision"]["chosen"] is None


LABELLED = (
    '[[rule]]\nname = "stay"\nwhen = { label = "health" }\nrequire = { farthest = "on_prem" }\n'
)


@pytest.mark.parametrize("stream", [False, True])
def test_c56_fallback_stays_inside_the_boundary(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream, stream: bool
) -> None:
    config = backend("home/m", upstream) + backend("cloud/x", other, place="public_api")
    config += '[fallback]\n"home/m" = ["cloud/x"]\n' + ONE_TRY + LABELLED
    client = start(config)
    upstream.always(replies.openai_error(500))
    other.always(replies.chat())
    answer = client.chat(stream=stream, headers={"x-locavore-labels": "health"})
    assert answer.status == 500
    assert not other.requests
    other.clear()
    other.always(replies.chat_stream() if stream else replies.chat())
    assert client.chat(stream=stream).status == 200
    assert len(other.requests) == 1


def test_c56_no_eligible_target_fails_closed(start: Start, other: ScriptedUpstream) -> None:
    client = start(backend("cloud/x", other, place="public_api") + LABELLED)
    answer = client.chat(model="auto", headers={"x-locavore-labels": "health"})
    assert answer.status == 400
    assert "cloud/x" in answer.error["message"]
    assert "place" in answer.error["message"]
    assert not other.requests


def test_c84_a_full_queue_is_a_503_with_retry_after_and_health_stays_truthful(
    start: Start, upstream: ScriptedUpstream
) -> None:
    config = backend("home/m", upstream, max_concurrency=1) + "[server]\nmax_queue = 1\n"
    client = start(config)
    hold = Hold()
    upstream.script(Reply((hold, *replies.chat().steps)), replies.chat())
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(client.chat) for _ in range(5)]
        finished = as_completed(calls, timeout=10)
        refused = [next(finished).result() for _ in range(3)]
        assert [a.status for a in refused] == [503] * 3
        assert all("retry-after" in a.headers for a in refused)
        assert client.get("/health/live").status == 200
        assert client.get("/health/ready").status == 200
        hold.release()
        assert [f.result().status for f in finished] == [200, 200]
