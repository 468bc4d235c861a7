"""A promise from calibration to withdrawal, with models whose error rates are known.

Both models translate; the local one seldom multiplies right. What a model does with a prompt
follows from the prompt, so the truth about every call is known, also of calls that nobody judged.
"""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from click.testing import CliRunner, Result

from locavore.cli import main
from locavore.testing.gateway import RunningGateway
from locavore.testing.replies import chat
from locavore.testing.upstream import Received, Reply, ScriptedUpstream

LOCAL, CLOUD = "home/small", "cloud/big"
TARGET = 0.95
AT_ONCE = 64
CONFIG = """
stage = "route"
baseline = "cloud/big"
[explore]
share = 0.5
keep_answers_s = 3600
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
"""


class Models:
    """How often each errs; `drift` makes the local one worse at what it was good at."""

    def __init__(self) -> None:
        self.translating_wrong = 0.02

    def wrong(self, model: str, prompt: str) -> bool:
        if model == "big":
            return _drawn("big", prompt) < 0.03
        rate = self.translating_wrong if "Translate" in prompt else 0.7
        return _drawn("small", prompt) < rate

    def answer(self, received: Received) -> Reply:
        body = json.loads(received.body)
        prompt = body["messages"][-1]["content"]
        off = 1 if self.wrong(body["model"], prompt) else 0
        return chat(f"It is {right(prompt) + off}.", model=body["model"])


def _drawn(*words: str) -> float:
    """A number in [0, 1) that looks random and follows from the words."""
    return int.from_bytes(blake2b(repr(words).encode(), digest_size=8).digest(), "big") / 2**64


def right(prompt: str) -> int:
    numbers = [int(found) for found in re.findall(r"\d+", prompt)]
    return prod(numbers)


def prompts(first: int, many: int) -> list[str]:
    """Two thirds translate."""
    return [
        f"What is {k} * 7?" if k % 3 == 0 else f"Translate to French: the town has {k} houses."
        for k in range(first, first + many)
    ]


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def gateway(models: Models, tmp_path: Path) -> Iterator[RunningGateway]:
    with ScriptedUpstream() as upstream:
        upstream.always(models.answer)
        with RunningGateway(tmp_path / "home", CONFIG.format(url=upstream.url)) as running:
            yield running


def run(gateway: RunningGateway, *arguments: str) -> Result:
    home = ["--home", str(gateway.home)]
    return CliRunner().invoke(main, [*arguments, *home], catch_exceptions=False)


def calibrate(gateway: RunningGateway, first: int, many: int = 240) -> dict[str, Any]:
    path = gateway.home / "prompts.jsonl"
    items = [{"prompt": p, "expect": {"number": right(p)}} for p in prompts(first, many)]
    path.write_text("\n".join(map(json.dumps, items)))
    done = run(
        gateway,
        *("calibrate", str(path), "--local", LOCAL, "--cloud", CLOUD, "--target", str(TARGET)),
        *("--url", gateway.origin, "--samples", "0", "--at-once", "16", "--yes", "--json"),
    )
    assert done.exit_code == 0, done.output
    assert gateway.keep_promises(), "the gateway notices what calibration has written"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Called(msgspec.Struct):
    """One call as the application saw it."""

    id: str
    prompt: str
    model: str
    text: str
    explored: bool


class Application:
    """Calls `auto`, and judges what it can."""

    def __init__(self, gateway: RunningGateway, models: Models) -> None:
        self.gateway = gateway
        self.models = models
        self.calls: list[Called] = []

    def call(self, asked: list[str]) -> list[Called]:
        limits = httpx2.Limits(max_connections=AT_ONCE)
        with (
            httpx2.Client(base_url=self.gateway.origin, limits=limits, timeout=30.0) as http,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            made = list(pool.map(lambda prompt: self._one(http, prompt), asked))
        self.calls += made
        return made

    def _one(self, http: httpx2.Client, prompt: str) -> Called:
        body = {"model": "auto", "messages": [{"role": "user", "content": prompt}]}
        answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return Called(
            id=answer.headers["x-locavore-decision"],
            prompt=prompt,
            model=answer.headers["x-locavore-model"],
            text=answer.json()["choices"][0]["message"]["content"],
            explored="x-locavore-explored" in answer.headers,
        )

    def judge(self, made: list[Called]) -> int:
        """Import verdicts on the explored ones that stayed at home or went to the cloud."""
        explored = [call for call in made if call.explored]
        others = [c for c in explored if c.model == LOCAL]
        shadows = self.others(others)
        lines = []
        for call in explored:
            line: dict[str, Any] = {"id": call.id, "served": score(call.prompt, call.text)}
            if call.id in shadows:
                line["shadow"] = score(call.prompt, shadows[call.id])
            lines.append(json.dumps(line))
        path = self.gateway.home / "verdicts.jsonl"
        path.write_text("\n".join(lines))
        done = run(self.gateway, "verdicts", "import", str(path), "--json")
        assert done.exit_code == 0, done.output
        return int(json.loads(done.stdout)["taken"])

    def others(self, explored: list[Called]) -> dict[str, str]:
        """The cloud's answers to these calls, once all have come."""
        self.gateway.wait_for_shadows()
        with httpx2.Client(base_url=self.gateway.origin) as http:
            found = {c.id: http.get(f"/v1/decisions/{c.id}/shadow") for c in explored}
        return {id_: a.json()["text"] for id_, a in found.items() if a.status_code == 200}

    def truth(self, made: list[Called]) -> float:
        """Achieved quality as a share of the cloud's, over all calls, judged or not."""
        got = sum(score(call.prompt, call.text) for call in made)
        cloud = sum(not self.models.wrong("big", call.prompt) for call in made)
        return got / cloud


def score(prompt: str, text: str) -> float:
    return float(re.findall(r"-?\d+", text)[-1] == str(right(prompt)))


def report(gateway: RunningGateway) -> dict[str, Any]:
    """Of the whole promise: its line in `locavore report --json`."""
    found: dict[str, Any] = json.loads(run(gateway, "report", "--json").stdout)
    (line,) = [q for q in found["quality"] if q["task"] is None]
    told: dict[str, Any] = line | {"saved_usd": found["total"]["saved_usd"]}
    return told


def local_share(made: list[Called], kind: str) -> float:
    of_kind = [call for call in made if kind in call.prompt]
    return sum(call.model == LOCAL for call in of_kind) / len(of_kind)


def _kept_then_withdrawn(
    gateway: RunningGateway, models: Models, many: int, kept: Callable[[dict[str, Any]], bool]
) -> None:
    application = Application(gateway, models)
    before = application.call(prompts(1_000_000, 30))
    assert {call.model for call in before} == {CLOUD}, "nothing was promised yet"
    calibrate(gateway, first=10_000)
    assert "No evidence yet" in report(gateway)["status"]

    made = application.call(prompts(20_000, many))
    assert local_share(made, "Translate") > 0.5
    assert local_share(made, "What is") < 0.05
    assert application.judge(made) > many * 0.3
    assert not gateway.keep_promises(), "a promise that is kept stays"
    truth, told = application.truth(made), report(gateway)
    assert truth >= TARGET
    assert told["quality"]["low"] <= truth <= told["quality"]["high"]
    assert (told["target"], told["confidence"], told["withdrawn"]) == (TARGET, 0.95, None)
    assert kept(told)
    text = run(gateway, "report").output
    assert "Promised: home/small instead of cloud/big: at least 95.0% of its quality" in text
    assert "Achieved" in text

    models.translating_wrong = 0.9
    drifted = application.call(prompts(40_000, many // 2))
    assert local_share(drifted, "Translate") > 0.5
    application.judge(drifted)
    assert gateway.keep_promises(), "other promises hold than before"
    assert any("the promise for home/small is withdrawn" in line for line in gateway.messages)
    after = application.call(prompts(60_000, 60))
    assert {call.model for call in after} == {CLOUD}
    assert not any(call.explored for call in after)
    broken = report(gateway)
    assert broken["withdrawn"]["judged"] == "quality"
    assert broken["withdrawn"]["achieved"]["high"] < TARGET
    assert "WITHDRAWN" in broken["status"]
    assert not gateway.keep_promises(), "nothing brings it back by itself"


def test_a_promise_is_kept_measured_and_withdrawn(gateway: RunningGateway, models: Models) -> None:
    _kept_then_withdrawn(gateway, models, 700, lambda told: told["judged"] > 200)
    with httpx2.Client(base_url=gateway.origin) as http:
        ask = [{"role": "user", "content": prompts(70_001, 1)[0]}]
        explained = http.post("/v1/route", json={"model": "auto", "messages": ask}).json()
        metrics = http.get("/metrics").text
    (local,) = [c for c in explained["considered"] if c["id"] == LOCAL]
    assert any(r.startswith("promise_withdrawn: quality") for r in local["reasons"])
    assert f'locavore_promise_withdrawn{{local="{LOCAL}",cloud="{CLOUD}"}} 1.0' in metrics
    findings = json.loads(run(gateway, "doctor", "--json").stdout)
    assert any(f["where"] == "promise" and "withdrawn" in f["what"] for f in findings)

    models.translating_wrong = 0.02
    calibrate(gateway, first=80_000)
    again = Application(gateway, models).call(prompts(90_000, 150))
    assert local_share(again, "Translate") > 0.5, "a new calibration restores it"
    assert report(gateway)["withdrawn"] is None


@pytest.mark.torture
def test_a_promise_is_kept_measured_and_withdrawn_over_many_calls(
    gateway: RunningGateway, models: Models
) -> None:
    def confirmed(told: dict[str, Any]) -> bool:
        return bool(told["quality"]["low"] >= TARGET)

    _kept_then_withdrawn(gateway, models, 12_000, confirmed)
