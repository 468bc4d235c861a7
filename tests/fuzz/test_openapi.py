"""The gateway against its own OpenAPI document: nothing fails inside, every answer is as promised.

schemathesis runs as a process of its own: its pytest plugin would be loaded by every test run.
"""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from locavore.core.access import Grant
from locavore.gateway.openapi import document
from locavore.gateway.routes import FORMAT_BY_PATH
from locavore.ledger.keys import KeyStore
from locavore.testing import Received, Reply, ScriptedUpstream, replies
from locavore.testing.gateway import RunningGateway
from tests.conformance.client import Client, backend

EXAMPLES = 12
LIMIT_S = 60.0
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance," + (
    "response_schema_conformance"
)
CAPABILITIES = ["chat", "embeddings", "tools", "json_object", "json_schema", "vision"]


@dataclass(frozen=True)
class Scene:
    gateway: RunningGateway
    upstream: ScriptedUpstream
    secrets: dict[str, str]


def reply(received: Received) -> Reply:
    """What an upstream says to a chat: whole, or streamed when that was asked for."""
    return replies.chat_stream("Hello") if received.json.get("stream") else replies.chat("Hello")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    home = tmp_path_factory.mktemp("fuzzed") / "home"
    with closing(KeyStore(home)) as store:
        secrets = {
            "data": store.create(Grant(name="data")),
            "admin": store.create(Grant(name="admin", admin=True)),
        }
    with ScriptedUpstream() as upstream:
        upstream.always(reply)
        upstream.route("/v1/embeddings", replies.embeddings())
        config = backend("home/m", upstream, capabilities=CAPABILITIES, embedding_family="e")
        with RunningGateway(home, config) as gateway:
            yield Scene(gateway, upstream, secrets)


@pytest.mark.parametrize(
    ("who", "paths"), [("data", "^/(v1|metrics|health)"), ("admin", "^/admin")], ids=str
)
def test_no_request_of_the_document_fails_inside(
    scene: Scene, tmp_path: Path, who: str, paths: str
) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", "--no-color"]
    command += [f"--include-path-regex={paths}", f"--max-examples={EXAMPLES}"]
    command += [
        "--phases=examples,coverage,fuzzing",
        f"--checks={CHECKS}",
        "--generation-deterministic",
    ]
    command += ["--suppress-health-check=all"]
    command += ["--header", f"Authorization: Bearer {scene.secrets[who]}"]
    run = subprocess.run(
        [*command, f"{scene.gateway.origin}/openapi.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    if who == "data":  # it got through to where the answers come from
        asked = {received.path for received in scene.upstream.requests}
        assert asked >= {"/v1/chat/completions", "/v1/embeddings"}
    else:
        with closing(KeyStore(scene.gateway.home)) as store:
            assert len(store.list()) > len(scene.secrets)


def test_the_document_lists_every_hot_route_with_an_example_that_is_served(scene: Scene) -> None:
    paths = json.loads(document())["paths"]
    client, headers = Client(scene.gateway), {"x-api-key": scene.secrets["data"]}
    for path in (name.decode() for name in FORMAT_BY_PATH):
        body = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        for sent in body["examples"]:
            answer = client.post(path, sent, headers)
            assert answer.status == 200, (path, answer.body)


# -- who is calling -------------------------------------------------------------------------------

FIELD = st.binary(max_size=80).map(
    lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F)
)
SCHEMES = st.sampled_from([b"", b"Bearer ", b"bearer ", b"BEARER\t", b"Basic ", b"Bearer  lv-"])
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["Authorization", "authorization", "x-api-key", "X-API-KEY"]),
        st.builds(lambda scheme, rest: scheme + rest, SCHEMES, FIELD),
    ),
    max_size=4,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(headers=HEADERS, path=st.sampled_from(["/v1/models", "/admin/keys", "/v1/messages"]))
@example(headers=[], path="/v1/models")
@example(headers=[("Authorization", b"Bearer ")], path="/admin/keys")
@example(headers=[("x-api-key", b"\xff\xfe")], path="/v1/messages")
def test_c102_no_made_up_credential_gets_in(
    scene: Scene, headers: list[tuple[str, bytes]], path: str
) -> None:
    status, body = ask(scene.gateway.port, path, headers)
    assert status == 401
    assert body["error"]["type"] == "authentication_error"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_c102_no_mangled_key_gets_in(scene: Scene, data: st.DataObject) -> None:
    secret = scene.secrets["data"]
    at = data.draw(st.integers(0, len(secret) - 1), label="position")
    new = data.draw(st.sampled_from("aZ09-_. %").filter(lambda c: c != secret[at]), label="sign")
    mangled = data.draw(
        st.sampled_from([secret[:at], secret[:at] + new + secret[at + 1 :], secret + new.strip()])
    )
    if mangled.strip() == secret:
        return
    status, _ = ask(scene.gateway.port, "/v1/models", [("x-api-key", mangled.encode())])
    assert status == 401


def ask(port: int, path: str, headers: list[tuple[str, bytes]]) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        posted = path == "/v1/messages"
        connection.putrequest("POST" if posted else "GET", path)
        for name, value in headers:
            connection.putheader(name, value)
        if posted:
            connection.putheader("content-length", "2")
        connection.endheaders(b"{}" if posted else None)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()
