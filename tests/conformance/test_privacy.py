"""Labels bind every attempt, log line and stored byte: C91, C92, C94, C100, C104."""

from pathlib import Path
from typing import Any

import pytest

from locavore.testing import Reply, ScriptedUpstream, replies
from tests.conformance.client import CHAT, CHAT_PATH, Client, backend
from tests.conformance.conftest import Start

STAY = '[[rule]]\nname = "stay"\nwhen = { label = "health" }\nrequire = { farthest = "on_prem" }\n'
HEALTH = {"x-locavore-labels": "health"}
CANARY_KEY = "sk-canary-7f3a9b2c4d5e6f708192a3b4c5d6e7f8"
CANARY_TEXT = "patient-canary-4711"


def local_and_cloud(start: Start, home: ScriptedUpstream, cloud: ScriptedUpstream) -> Client:
    config = 'baseline = "cloud/x"\n' + backend("home/m", home)
    config += backend("cloud/x", cloud, place="public_api", api_key_env="CLOUD_KEY") + STAY
    return start(config, CLOUD_KEY=CANARY_KEY)


def test_c91_a_label_by_header_or_metadata_stays_in_the_building(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = local_and_cloud(start, upstream, other)
    upstream.always(replies.chat())
    other.always(replies.chat())
    assert client.chat(model="auto", headers=HEALTH).status == 200
    assert client.chat(model="auto", metadata={"labels": "health", "team": "a"}).status == 200
    assert not other.requests
    assert upstream.requests[1].json["metadata"] == {"team": "a"}
    assert client.chat(model="auto").status == 200
    assert len(other.requests) == 1, "observe: an unlabelled call goes to the baseline"


def test_c91_a_named_cloud_model_is_refused_for_a_labelled_call(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = local_and_cloud(start, upstream, other)
    answer = client.chat(model="cloud/x", headers=HEALTH)
    assert answer.status == 400
    assert not other.requests


def test_an_unknown_label_is_a_400_that_names_the_known_ones(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = local_and_cloud(start, upstream, other)
    answer = client.chat(headers={"x-locavore-labels": "helth"})
    assert answer.status == 400
    assert "helth" in answer.error["message"]
    assert "health" in answer.error["message"]


@pytest.mark.parametrize("by", ["header", "metadata"])
def test_c92_one_labelled_message_taints_its_session(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream, by: str
) -> None:
    client = local_and_cloud(start, upstream, other)
    upstream.always(replies.chat())
    other.always(replies.chat())

    def turn(session: str, labels: str | None = None) -> int:
        headers: dict[str, str] = {}
        metadata: dict[str, str] = {}
        if by == "header":
            headers = {"x-locavore-session": session} | (
                {"x-locavore-labels": labels} if labels else {}
            )
        else:
            metadata = {"session_id": session} | ({"labels": labels} if labels else {})
        fields: dict[str, Any] = {"metadata": metadata} if metadata else {}
        return client.chat(model="auto", headers=headers, **fields).status

    assert turn("s1") == 200
    assert len(other.requests) == 1
    assert turn("s1", "health") == 200
    assert turn("s1") == 200
    assert turn("s1") == 200
    assert len(other.requests) == 1, "a tainted session stays local"
    assert turn("s2") == 200
    assert len(other.requests) == 2, "another session is not tainted"


def test_c92_a_reset_ends_the_taint(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = local_and_cloud(start, upstream, other)
    upstream.always(replies.chat())
    other.always(replies.chat())
    session = {"x-locavore-session": "s 1"}
    client.chat(model="auto", headers=session | HEALTH)
    client.chat(model="auto", headers=session)
    assert not other.requests
    assert client.delete("/v1/sessions/s%201/labels").status == 204
    client.chat(model="auto", headers=session)
    assert len(other.requests) == 1


def test_c92_a_call_that_fails_taints_its_session_all_the_same(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = local_and_cloud(start, upstream, other)
    upstream.always(replies.openai_error(400))
    other.always(replies.chat())
    session = {"x-locavore-session": "s1"}
    client.chat(model="auto", headers=session | HEALTH)
    client.chat(model="auto", headers=session)
    assert not other.requests


def test_c94_no_key_and_no_text_is_logged_or_stored(
    start: Start,
    upstream: ScriptedUpstream,
    other: ScriptedUpstream,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(0)
    client = local_and_cloud(start, upstream, other)
    upstream.script(replies.chat(f"about {CANARY_TEXT}"), replies.openai_error(500, CANARY_KEY))
    other.always(replies.openai_error(500, f"your key {CANARY_KEY} is bad"))
    said = [{"role": "user", "content": CANARY_TEXT}]
    client.chat(headers=HEALTH, messages=said)
    client.chat(headers=HEALTH, messages=said, stream=True)
    client.chat(model="cloud/x", messages=said)
    client.records()
    stored = b"".join(p.read_bytes() for p in (tmp_path / "home").rglob("*") if p.is_file())
    told = "\n".join([caplog.text, *client.gateway.messages]).encode()
    for secret in (CANARY_KEY.encode(), CANARY_TEXT.encode()):
        assert secret not in stored
        assert secret not in told


def test_c100_nothing_a_client_sends_chooses_the_host(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream))
    upstream.always(replies.chat())
    other.always(replies.chat("stolen"))
    fields: dict[str, Any] = {
        "base_url": other.url,
        "api_base": other.url,
        "API_BASE": other.url,
        "extra_body": {"base_url": other.url},
    }
    headers = {
        "x-base-url": other.url,
        "x-forwarded-host": f"127.0.0.1:{other.port}",
        "authorization": "Bearer client-secret",
        "openai-organization": "org",
    }
    assert client.chat(headers=headers, **fields).status == 200
    assert not other.requests
    seen = upstream.requests[0].headers
    assert seen["host"] == f"127.0.0.1:{upstream.port}"
    assert "client-secret" not in str(seen)
    assert not any(name.startswith("x-") for name in seen)


def test_c100_a_redirect_is_not_followed(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream) + "[retry]\nattempts = 1\n")
    upstream.script(Reply((), status=307, headers=(("location", f"{other.url}/chat/completions"),)))
    assert client.chat().status == 502
    assert not other.requests


def test_c104_upstream_error_text_is_redacted_for_client_and_ledger(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream) + "[retry]\nattempts = 1\n")
    upstream.script(replies.openai_error(400, f"Incorrect API key provided: {CANARY_KEY}."))
    answer = client.chat()
    assert CANARY_KEY.encode() not in answer.body
    assert CANARY_KEY not in str(client.record)


def test_c33_unknown_fields_are_kept(start: Start, upstream: ScriptedUpstream) -> None:
    client = start(backend("home/m", upstream))
    upstream.script(replies.chat())
    body = CHAT | {"chat_template_kwargs": {"enable_thinking": False}, "min_p": 0.1}
    client.post(CHAT_PATH, body)
    sent = upstream.requests[0].json
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert sent["min_p"] == 0.1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route", "/health/live"])
def test_c100_a_name_rebound_to_loopback_is_not_answered(
    start: Start, upstream: ScriptedUpstream, path: str
) -> None:
    client = start(backend("home/m", upstream))
    answer = client.post(path, CHAT, {"host": f"evil.example:{client.gateway.port}"})
    assert answer.status == 421
    assert not upstream.requests


def test_c100_a_page_of_another_site_cannot_spend_where_no_key_is_asked_for(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream) + '[server]\nhosts = ["gateway.lan:4000"]\n')
    upstream.always(replies.chat())
    assert client.chat(headers={"origin": "https://evil.example"}).status == 403
    assert not upstream.requests
    assert client.chat(headers={"origin": client.gateway.origin}).status == 200
    assert client.chat(headers={"origin": "http://gateway.lan:4000"}).status == 200
    assert client.chat(headers={"host": "gateway.lan:4000"}).status == 200


def test_c100_with_a_key_any_name_may_lead_here(start: Start, upstream: ScriptedUpstream) -> None:
    client = start(backend("home/m", upstream) + '[keys]\nann = "secret-of-ann"\n')
    upstream.always(replies.chat())
    headers = {"host": "gateway.example", "authorization": "Bearer secret-of-ann"}
    assert client.chat(headers=headers).status == 200
