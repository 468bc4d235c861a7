"""The SDKs of the Node world: equal objects straight and through the gateway.

A request names its scenario in its prompt, so that one Node process runs them all.
"""

import importlib.util
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from locavore.testing import Received, Reply, replies
from tests.clients import test_anthropic_python as claude
from tests.clients import test_openai_python as gpt
from tests.clients.model import message_events
from tests.clients.sides import Sides

NODE = Path(__file__).parent / "node"
LIMIT_S = 60.0


def _missing() -> str | None:
    script = Path(__file__).parents[2] / "scripts" / "node_packages.py"
    spec = importlib.util.spec_from_file_location("node_packages", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reason: str | None = module.missing()
    if reason is None and not (NODE / "node_modules").is_dir():
        reason = "no tests/clients/node/node_modules: python scripts/node_packages.py"
    return reason


MISSING = _missing()
pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]

Scenarios = dict[str, Callable[[dict[str, Any]], Reply]]


class Script:
    """Answers by the scenario that the prompt names, and counts how often it was asked."""

    def __init__(self, scenarios: Scenarios) -> None:
        self.scenarios = scenarios
        self.asked: Counter[str] = Counter()

    def __call__(self, received: Received) -> Reply:
        found = re.search(r"scenario:(\w+)", received.body.decode())
        assert found is not None
        name = found.group(1)
        self.asked[name] += 1
        if name == "retried":
            return self.scenarios["retried" if self.asked[name] == 3 else "busy"](received.json)
        return self.scenarios[name](received.json)


def run_node(script: str, origin: str, model: str, *wanted: str, provider: str = "") -> Any:
    """What the scenarios of `script` returned, by name."""
    done = subprocess.run(
        ["node", NODE / script, origin, model, *wanted],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={"PATH": os.environ["PATH"], "PROVIDER": provider},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def both(sides: Sides, script: str, scenarios: Scenarios, *, model: str, provider: str = "") -> Any:
    """Results and how often each scenario was asked, equal on both sides."""
    outcomes = []
    for origin, name in ((sides.upstream.origin, "m"), (sides.gateway.origin, model)):
        answers = Script(scenarios)
        sides.upstream.clear()
        sides.upstream.always(answers)
        outcomes.append((run_node(script, origin, name, provider=provider), answers.asked))
    (direct, asked_direct), (through, asked_through) = outcomes
    for name, value in direct.items():
        assert through[name] == value, name
    assert asked_through == asked_direct
    return through


CITY = '{"name":"Oslo","people":7}'
FINAL = "Cold in both."


def chat_text(text: str) -> Callable[[dict[str, Any]], Reply]:
    """Whole or streamed, as it is asked for."""

    def answer(body: dict[str, Any]) -> Reply:
        if not body.get("stream"):
            return replies.chat(text, usage=gpt.USAGE)
        asked = (body.get("stream_options") or {}).get("include_usage")
        return replies.chat_stream([text[:2], text[2:]], usage=gpt.USAGE if asked else None)

    return answer


def chat_calls(body: dict[str, Any]) -> Reply:
    """Two parallel calls, then an answer once their results are there."""
    if body["messages"][-1]["role"] == "tool":
        return chat_text(FINAL)(body)
    if body.get("stream"):
        return gpt.parallel_calls(interleaved=False)
    calls = gpt.WHOLE_CALLS
    return replies.chat("", usage=gpt.USAGE, finish_reason="tool_calls", tool_calls=calls)


def chat_error(status: int) -> Callable[[dict[str, Any]], Reply]:
    return lambda _: replies.openai_error(status, "told", code="why", kind="kind")


CHAT: Scenarios = {
    "text": chat_text("Hé ✓"),
    "choices": lambda _: gpt.many_choices(),
    "stream": chat_text("Hé ✓"),
    "calls": chat_calls,
    "streamed_calls": chat_calls,
    "parsed": chat_text(CITY),
    "retried": chat_text("Hé ✓"),
    "busy": lambda _: replies.openai_error(503, "busy", retry_after_ms="10"),
    **{f"e{status}": chat_error(status) for status in (400, 404, 422, 429, 500)},
}


def message_text(text: str) -> Callable[[dict[str, Any]], Reply]:
    block = {"type": "text", "text": text}

    def answer(body: dict[str, Any]) -> Reply:
        return Reply.sse(*message_events(block)) if body.get("stream") else claude.whole(block)

    return answer


def message_calls(body: dict[str, Any]) -> Reply:
    last = body["messages"][-1]["content"]
    if isinstance(last, list) and any(block["type"] == "tool_result" for block in last):
        return message_text(FINAL)(body)
    blocks: list[dict[str, Any]] = [claude.THINKING] if "thinking" in body else []
    blocks += [claude.call("call_0", "Oslo"), claude.call("call_1", "Rom")]
    if body.get("stream"):
        return Reply.sse(*message_events(*blocks, stop_reason="tool_use"))
    return claude.whole(*blocks, stop_reason="tool_use")


def message_parsed(body: dict[str, Any]) -> Reply:
    """By a schema for the text, or by a tool that stands for one."""
    if body.get("tools"):
        block = {
            "type": "tool_use",
            "id": "toolu_1",
            "name": body["tools"][-1]["name"],
            "input": json.loads(CITY),
        }
        return claude.whole(block, stop_reason="tool_use")
    return message_text(CITY)(body)


def message_error(status: int) -> Callable[[dict[str, Any]], Reply]:
    return lambda _: replies.anthropic_error(status, "told", kind=dict(claude.ERRORS)[status])


MESSAGES: Scenarios = {
    "text": message_text("Hé ✓"),
    "stream": message_text("Hé ✓"),
    "calls": message_calls,
    "streamed_calls": message_calls,
    "parsed": message_parsed,
    "retried": message_text("Hé ✓"),
    "busy": lambda _: replies.anthropic_error(
        529, "busy", kind="overloaded_error", retry_after_ms="10"
    ),
    **{f"e{status}": message_error(status) for status in (400, 404, 429, 500, 529)},
}


def test_openai_node(sides: Sides) -> None:
    results = both(sides, "openai.mjs", CHAT, model="home/m")
    calls = results["calls"]["final"]["choices"][0]["message"]["tool_calls"]
    assert [c["function"]["parsed_arguments"] for c in calls] == [{"city": "Oslo"}, {"city": "Rom"}]
    assert results["parsed"]["parsed"] == json.loads(CITY)
    assert results["e422"]["constructor"] == "UnprocessableEntityError"


def test_anthropic_node(sides: Sides) -> None:
    results = both(sides, "anthropic.mjs", MESSAGES, model="claude/m")
    kinds = [block["type"] for block in results["calls"]["final"]["content"]]
    assert kinds == ["thinking", "tool_use", "tool_use"]
    assert results["e404"]["constructor"] == "NotFoundError"


def check_ai(results: Any) -> None:
    """What every provider of the AI SDK must have made of the scenarios."""
    assert (results["text"]["text"], results["stream"]["text"]) == ("Hé ✓", "Hé ✓")
    for name in ("calls", "streamed_calls"):
        first, last = results[name]
        assert [call[2] for call in first["calls"]] == [{"city": "Oslo"}, {"city": "Rom"}]
        assert [result[1] for result in first["results"]] == [
            "12 degrees in Oslo",
            "12 degrees in Rom",
        ]
        assert (first["finishReason"], last["finishReason"]) == ("tool-calls", "stop")
        assert last["text"] == FINAL
    assert results["parsed"] == json.loads(CITY)
    assert (results["e400"]["isRetryable"], results["e429"]["isRetryable"]) == (False, True)


def test_ai_sdk_openai_compatible(sides: Sides) -> None:
    check_ai(both(sides, "ai.mjs", CHAT, model="home/m"))


def test_ai_sdk_anthropic(sides: Sides) -> None:
    check_ai(both(sides, "ai.mjs", MESSAGES, model="claude/m", provider="anthropic"))


def test_ai_sdk_openai_compatible_before_an_anthropic_backend(sides: Sides) -> None:
    sides.upstream.always(Script(MESSAGES))
    check_ai(run_node("ai.mjs", sides.gateway.origin, "claude/m"))


def test_ai_sdk_anthropic_before_an_openai_backend(sides: Sides) -> None:
    sides.upstream.always(Script(CHAT))
    check_ai(run_node("ai.mjs", sides.gateway.origin, "plain/m", provider="anthropic"))
