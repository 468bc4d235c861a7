"""The real embedded engine behind a gateway: its own counts, its death, its return."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from locavore.engines.test_model import SENTENCE
from locavore.testing.gateway import RunningGateway
from tests.conformance.client import Client
from tests.e2e.serving import QUIET, Serving, eventually

TEXTS = {
    "short": "Hi",
    "English": "The quick brown fox jumps over the lazy dog. " * 20,
    "German": "Über die Straße läuft ein größerer Fuchs. " * 10,
    "Chinese": "敏捷的棕色狐狸跳过懒狗。" * 20,
    "code": "def f(x):\n    return {k: v for k, v in x.items() if v is not None}\n" * 10,
    "emoji": "🦊🐶🚀✨" * 20,
    "figures": "3.14159 2718281828 " * 20,
}
TOOL: dict[str, Any] = {
    "name": "weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A gateway that found nothing, and so runs the built-in model on the real engine."""
    with RunningGateway(tmp_path_factory.mktemp("embedded") / "home") as gateway:
        yield Client(gateway)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("more", [{}, {"system": "Be brief."}, {"tools": [TOOL]}])
def test_c36_count_tokens_is_what_the_engine_then_reads(
    embedded: Client, kind: str, more: dict[str, Any]
) -> None:
    ask = {"model": "auto", "messages": [{"role": "user", "content": TEXTS[kind]}], **more}
    counted = embedded.post("/v1/messages/count_tokens", ask).json["input_tokens"]
    usage = embedded.post("/v1/messages", {**ask, "max_tokens": 1}).json["usage"]
    read = usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)
    assert read <= counted <= read * 1.02


def test_c65_a_stream_and_a_whole_answer_tell_the_same_usage(embedded: Client) -> None:
    whole = embedded.chat(model="auto").json["usage"]
    stream = embedded.chat(model="auto", stream=True, stream_options={"include_usage": True})
    told = next(e["usage"] for e in stream.events if isinstance(e, dict) and not e["choices"])
    fields = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [told[f] for f in fields] == [whole[f] for f in fields]


def test_c120_a_killed_engine_returns_and_no_other_answers_for_it(tmp_path: Path) -> None:
    with Serving(tmp_path, QUIET, "--workers=1") as serving:
        assert serving.chat().text == SENTENCE
        (engine,) = serving.children()["engines"]
        engine.kill()
        engine.wait(10)
        answers = []

        def served() -> bool:
            answers.append(serving.chat())
            return answers[-1].status == 200

        eventually(served, "the engine answers again")
        assert answers[-1].text == SENTENCE
        assert {a.status for a in answers[:-1]} <= {502, 503}
        (successor,) = serving.children()["engines"]
        assert successor.pid != engine.pid
