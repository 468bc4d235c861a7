"""What leaves the building is counted by the kernel: packets on the only way out.

A real `locavore serve` runs in a network namespace with a configured cloud, a local engine and a
rule that keeps a label inside.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from locavore.testing import ScriptedUpstream, replies
from tests.conformance.namespaces import INTERNET, Building, unavailable
from tests.e2e.serving import Answer, Serving, locavore

MISSING = unavailable()
pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.xdist_group("namespaces"),
]

CONFIG = """
posture = "quality_first"
stage = "route"
baseline = "cloud/big"
labels = ["health"]
[retry]
attempts = 2
backoff_s = 0.01
[discover]
local = false
[fallback]
"home/m" = ["cloud/big"]
[[backend]]
id = "cloud/big"
url = "{cloud}"
place = "public_api"
capabilities = ["embeddings", "chat"]
[[backend]]
id = "home/m"
url = "{home}"
capabilities = ["embeddings", "chat"]
[[rule]]
name = "health stays in the building"
when = {{ label = "health" }}
require = {{ farthest = "on_prem" }}
[[rule]]
name = "patients are health"
when = {{ model = "patients" }}
set_labels = ["health"]
[alias]
patients = "auto"
"""
LABELLED = {"x-locavore-labels": "health"}
WORDS = "the patient Jane Roe"


@dataclass
class Scene:
    building: Building
    serving: Serving
    home: ScriptedUpstream
    cloud: ScriptedUpstream

    def chat(self, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        with self.building.inside.entered():
            return self.serving.chat(
                headers, messages=[{"role": "user", "content": WORDS}], **fields
            )

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        with self.building.inside.entered():
            return self.serving.call("POST", path, body, LABELLED)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        building = stack.enter_context(Building())
        with building.outside.entered():
            cloud = stack.enter_context(ScriptedUpstream(host=INTERNET))
        with building.inside.entered():
            home = stack.enter_context(ScriptedUpstream())
            # A provider of the environment is a second way out.
            env = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": cloud.url}
            config = CONFIG.format(cloud=cloud.url, home=home.url)
            folder = tmp_path_factory.mktemp("building")
            serving = stack.enter_context(Serving(folder, config, "--workers=1", env=env))
        yield Scene(building, serving, home, cloud)


@pytest.fixture(autouse=True)
def healthy(scene: Scene) -> None:
    scene.home.clear()
    scene.home.route("/v1/chat/completions", replies.chat("Local."))
    scene.home.route("/v1/embeddings", replies.embeddings())
    scene.cloud.always(replies.chat("Cloud."))


def test_c106_starting_sends_nothing(scene: Scene) -> None:
    assert scene.building.sent_packets() == 0


@pytest.mark.parametrize("model", ["auto", "local", "home/m", "patients"])
def test_c91_a_labelled_call_sends_no_packet_out(scene: Scene, model: str) -> None:
    labels = {} if model == "patients" else LABELLED  # a rule labels that name
    assert scene.chat(labels, model=model).text == "Local."
    scene.home.route("/v1/chat/completions", replies.chat_stream(["Lo", "cal."]))
    assert scene.chat(labels, model=model, stream=True).text == "Local."
    assert scene.building.sent_packets() == 0


def test_c91_a_label_in_the_metadata_binds_too_and_stays_here(scene: Scene) -> None:
    assert scene.chat(metadata={"labels": "health"}).text == "Local."
    assert b"health" not in scene.home.requests[0].body
    assert scene.building.sent_packets() == 0


@pytest.mark.parametrize("model", ["cloud/big", "openai/gpt-4.1", "cloud"])
def test_c91_a_cloud_that_is_named_is_refused_without_a_packet(scene: Scene, model: str) -> None:
    refused = scene.chat(LABELLED, model=model)
    assert 400 <= refused.status < 500
    assert scene.home.requests == []
    assert scene.building.sent_packets() == 0


def test_c91_other_endpoints_are_bound_alike(scene: Scene) -> None:
    ask = [{"role": "user", "content": WORDS}]
    calls: dict[str, dict[str, Any]] = {
        "/v1/messages": {"model": "auto", "max_tokens": 9, "messages": ask},
        "/v1/messages/count_tokens": {"model": "auto", "messages": ask},
        "/v1/responses": {"model": "auto", "input": WORDS},
        "/v1/embeddings": {"model": "home/m", "input": WORDS},
        "/v1/route": {"model": "auto", "messages": ask},
    }
    assert {path: scene.post(path, body).status for path, body in calls.items()} == dict.fromkeys(
        calls, 200
    )
    assert scene.building.sent_packets() == 0


def test_c91_a_failing_engine_is_no_reason_to_send_a_packet(scene: Scene) -> None:
    scene.home.route("/v1/chat/completions", replies.openai_error(500, "broken"))
    assert scene.chat(LABELLED).status >= 500
    assert scene.chat(LABELLED, stream=True).status >= 500
    assert scene.building.sent_packets() == 0


def test_c91_the_session_of_a_labelled_call_stays_inside(scene: Scene) -> None:
    session = {"x-locavore-session": "s1"}
    assert scene.chat(LABELLED | session).text == "Local."
    assert scene.chat(session).text == "Local."
    assert scene.building.sent_packets() == 0


def test_c91_commands_send_nothing(scene: Scene) -> None:
    env = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": scene.cloud.url}
    with scene.building.inside.entered():
        for command in (["route", WORDS], ["report"], ["models"], ["doctor"]):
            done = locavore(*command, home=scene.serving.home, **env)
            assert "Traceback" not in done.stderr, done.stderr
    assert scene.building.sent_packets() == 0


def test_c91_the_count_sees_what_an_unlabelled_call_sends(scene: Scene) -> None:
    """Last: it shows that the zeros above were measured."""
    assert scene.chat(model="cloud/big").text == "Cloud."
    assert scene.building.sent_packets() > 0
    assert [WORDS.encode() in r.body for r in scene.cloud.requests] == [True]
