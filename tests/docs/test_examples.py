"""Every example of the guides runs."""

import configparser
import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from locavore.cli.serve import banner
from locavore.config import load
from locavore.core.backend import Backend, Place
from locavore.core.outcome import Cascaded
from locavore.routing.estimators import promised
from locavore.serving.snapshot import Snapshot, Wildcard
from locavore.testing import Received, Reply, ScriptedUpstream, replies
from tests.docs.examples import ROOT, SECRETS, World, sections
from tests.serving.promises import short_answers_are_right

FLEET = """
[[backend]]
id = "house/m"
url = "http://127.0.0.1:8000/v1"
context_tokens = 32768
"""


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        yield server


START = {section.title: section for section in sections("start/index.md")}


@pytest.mark.parametrize("title", [title for title in START if title.startswith(("A ", "Data"))])
def test_the_start_of_each_user_works(
    title: str, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    section = START[title]
    (config,) = section.code("toml")
    world = World(tmp_path / "home", upstream, config)
    with world.gateway:
        printed = [world.shell(code) for code in section.code("sh")]
    assert printed
    assert upstream.requests, "no call was made"
    if title.startswith("A laptop"):
        assert "x-locavore-model: openai/gpt-4.1" in printed[-1]
    if title.startswith("A platform"):
        assert "search" in printed[0]
    if title.startswith("Data"):
        assert "house/qwen3-32b would serve" in printed[0]


def test_the_privacy_guide_works(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    parts = sections("howto/privacy.md")
    world = World(tmp_path / "home", upstream, parts[0].code("toml")[0])
    with world.gateway:
        for section in parts:
            for language, code in section.blocks:
                if language == "python":
                    world.python(code)
                elif language == "sh":
                    world.shell(code)
        records = world.gateway.records()
    labelled = [r for r in records if "health" in r.decision.facts.labels]
    assert labelled
    assert {a.place for r in labelled for a in r.attempts} == {"on_prem"}


CLIENTS = {section.title: section for section in sections("howto/clients.md")}


@pytest.mark.parametrize("title", ["OpenAI SDK", "Anthropic SDK", "LangChain"])
def test_the_clients_work(
    title: str, tmp_path: Path, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path / "home", upstream, FLEET)
    with world.gateway:
        for code in CLIENTS[title].code("python"):
            world.python(code)
    assert "Hello" in capsys.readouterr().out


def test_lines_for_agents_are_those_that_serve_prints(tmp_path: Path) -> None:
    (lines,) = CLIENTS["Coding agents"].code("text")
    path = tmp_path / "config.toml"
    path.write_text("")
    config = load(path, {}, {"home": str(tmp_path)})
    told = banner(config, Snapshot(version="", policy=config.policy, backends=()), 4000, [])
    squeezed = re.sub(r"\s+", " ", told.replace("\\\n", ""))
    for line in lines.replace("\\\n", "").splitlines():
        assert re.sub(r"\s+", " ", line) in squeezed


def test_a_cloud_known_by_name_only_is_not_taken_for_the_test_model(tmp_path: Path) -> None:
    config = load(None, {}, {"home": str(tmp_path)})
    template = Backend(
        id="openai/*",
        provider="openai",
        model="*",
        url="http://127.0.0.1:1/v1",
        dialect="openai",
        place=Place.PUBLIC_API,
    )
    any_name = Wildcard(prefix="openai", template=template)
    snapshot = Snapshot(version="", policy=config.policy, backends=(), wildcards=(any_name,))
    told = banner(config, snapshot, 4000, [])
    assert "test model" not in told
    assert "`baseline`" in told
    assert '"model": "openai/MODEL"' in told, "a line to paste that cannot work helps nobody"
    assert "auto" not in told.partition("Next:")[0]


def test_other_settings_of_the_clients_page_are_valid(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    (aliases,) = CLIENTS["Coding agents"].code("toml")
    world = World(tmp_path / "home", upstream, FLEET + aliases)
    with world.gateway:
        world.python(CLIENTS["Anthropic SDK"].code("python")[0].replace("auto", "claude-haiku-5-5"))
    (models,) = CLIENTS["llm"].code("yaml")
    assert re.findall(r"(\w+): ", models) == ["model_id", "model_name", "api_base"]


def test_the_operators_guide_works(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    world = World(tmp_path / "home", upstream, FLEET)
    with world.gateway:
        for section in sections("howto/operate.md"):
            for code in section.code("sh"):
                world.shell(code)
        assert (world.gateway.home / "backup.sqlite3").stat().st_size > 0


def test_the_service_file_is_one() -> None:
    (unit,) = [code for s in sections("howto/operate.md") for code in s.code("ini")]
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # keys keep their case
    parser.read_string(unit)
    assert parser["Service"]["ExecStart"].split()[1:] == ["serve", "--host", "0.0.0.0"]


def test_the_examples_of_the_http_reference_work(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    world = World(tmp_path / "home", upstream, FLEET)
    with world.gateway:
        printed = [world.shell(c) for s in sections("reference/http.md") for c in s.code("sh")]
    assert [text.split() for text in printed] == [
        ['"house/m"', '"chosen"'],
        ['"served"', '"house/m"'],
    ]


def test_the_examples_of_the_testing_reference_work(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    world = World(tmp_path / "home", upstream, FLEET)
    for section in sections("reference/testing.md"):
        for code in section.code("python"):
            world.python(code)


def test_no_page_shows_a_real_secret() -> None:
    assert all(secret.startswith("secret-of-") for secret in SECRETS.values())


def test_the_cascades_guide_works(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    parts = sections("howto/cascades.md")
    local, cloud = "house/qwen3-8b", "openai/gpt-4.1"
    folder = tmp_path / "home" / promised.FOLDER
    promised.save(folder, short_answers_are_right(local, cloud))
    world = World(tmp_path / "home", upstream, parts[0].code("toml")[0] + "[explore]\nshare = 0\n")

    def says(received: Received) -> Reply:
        sure = b"six times seven" in received.body and received.json["model"] == "qwen3-8b"
        return replies.chat("42", usage=usage_of(1 if sure else 200))

    upstream.always(says)
    with world.gateway:
        printed = [world.shell(code) for section in parts for code in section.code("sh")]
        records = world.gateway.records()
    assert "x-locavore-cascade: kept" in printed[0]
    assert json.loads(printed[1].splitlines()[0]) == "doubtful"
    assert [r.cascade.escalated for r in records if r.cascade] == [False, True]
    told = (ROOT / "docs" / "howto" / "cascades.md").read_text("utf-8")
    for field in msgspec.structs.fields(Cascaded):
        assert f"`{field.name}`" in told, field.name


def usage_of(output_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 12, "completion_tokens": output_tokens}


def test_the_explain_guide_works(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    parts = sections("howto/explain.md")
    world = World(tmp_path / "home", upstream, 'stage = "route"\n' + FLEET)
    with world.gateway:
        printed = [world.shell(code) for section in parts for code in section.code("sh")]
    assert "house/m was chosen for 'auto'" in printed[0]
    assert "nothing else is allowed" in printed[0]
    assert "house/m would serve 'auto'" in printed[1]
    assert "counts as free" in printed[1]


def test_the_guide_to_promises_works(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    parts = {section.title: section for section in sections("howto/promise.md")}
    (config,) = parts["Make it"].code("toml")
    world = World(tmp_path / "home", upstream, config.replace("share = 0.05", "share = 1.0"))
    with world.gateway:
        (calibrated,) = (world.shell(code) for code in parts["Make it"].code("sh"))
        assert "320 judged" in calibrated
        assert world.gateway.keep_promises(), "taken up"
        judging, importing = parts["Judge"].code("sh")
        asked = len(upstream.requests)
        assert '"served":1.0' in world.shell(judging)
        world.gateway.wait_for_shadows()
        assert len(upstream.requests) == asked + 2, "the other model answers, too"
        assert "1 verdicts taken, 0 lines refused" in world.shell(importing)
        (told,) = (world.shell(code) for code in parts["See what is achieved"].code("sh"))
    assert "Promised: house/qwen3-8b instead of openai/gpt-4.1: at least 98.0%" in told
    assert '"judged": 1' in told
    assert "house/qwen3-8b: 98.0% of openai/gpt-4.1's quality promised" in told
