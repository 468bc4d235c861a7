"""`locavore calibrate` on a running gateway and scripted models with known error rates."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner, Result
from rich.progress import Progress

from locavore.cli import main
from locavore.routing.estimators import trunk
from locavore.routing.estimators.promised import FOLDER, Promises, read
from locavore.testing.gateway import RunningGateway
from locavore.testing.replies import chat, openai_error
from locavore.testing.upstream import Received, Reply, ScriptedUpstream

LOCAL, CLOUD = "home/small", "cloud/big"
CONFIG = """
stage = "route"
baseline = "cloud/big"
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


def answer(received: Received) -> Reply:
    """The cloud adds and multiplies; the small model only adds."""
    body = json.loads(received.body)
    a, sign, b = re.findall(r"(\d+) ([+*]) (\d+)", body["messages"][-1]["content"])[0]
    right = int(a) + int(b) if sign == "+" else int(a) * int(b)
    wrong = sign == "*" and body["model"] == "small"
    return chat(f"It is {right + wrong}.", model=body["model"])


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as found:
        found.always(answer)
        yield found


@pytest.fixture
def gateway(upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path / "home", CONFIG.format(url=upstream.url)) as running:
        yield running


def items(many: int, *, judged: bool = True) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for k in range(many):
        easy = k % 2 == 0
        right = k + 7 if easy else k * 7
        sums = f"Please add: what is {k} + 7?" if easy else f"Please multiply: what is {k} * 7?"
        item: dict[str, object] = {"prompt": sums, "task": "add" if easy else "multiply"}
        found.append(item | ({"expect": {"number": right}} if judged else {}))
    return found


def calibrate(
    gateway: RunningGateway, prompts: list[dict[str, object]], *more: str
) -> tuple[Result, dict[str, object]]:
    path = gateway.home / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, prompts)))
    arguments = ["calibrate", str(path), "--local", LOCAL, "--cloud", CLOUD, "--json", "--yes"]
    arguments += ["--url", gateway.origin, "--home", str(gateway.home), "--samples", "0", *more]
    result = CliRunner().invoke(main, arguments)
    if result.exit_code == 2 or not result.stdout:
        return result, {}
    return result, json.loads(result.stdout)


def test_what_the_local_model_can_do_stays_local_and_the_rest_does_not(
    gateway: RunningGateway,
) -> None:
    result, found = calibrate(gateway, items(300))
    assert result.exit_code == 0, result.output
    assert found["judged"] == 300
    assert found["local_quality"] == 0.5
    assert found["cloud_quality"] == 1.0
    promises = Promises(trunk.load(), read(gateway.home / FOLDER))
    adds = [
        promises.verdict(f"Please add: what is {k} + 8?", LOCAL, CLOUD, "add") for k in range(160)
    ]
    multiplies = [
        promises.verdict(f"Please multiply: what is {k} * 8?", LOCAL, CLOUD, "multiply")
        for k in range(160)
    ]
    assert sum(v is not None and v.keeps for v in adds) > 100
    assert not any(v is None or v.keeps for v in multiplies)
    assert adds[0] is not None
    assert 0.98 <= adds[0].quality.low <= adds[0].quality.mean <= 1.0


def test_a_second_run_asks_nothing_again(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    calibrate(gateway, items(40))
    assert len(upstream.requests) == 80
    log = next((gateway.home / "calibrations").glob("*.jsonl"))
    log.write_bytes(log.read_bytes()[:-20])  # as an interruption leaves it
    _, found = calibrate(gateway, items(40))
    assert len(upstream.requests) == 81
    assert found["judged"] == 40


def test_the_cost_is_told_before_anything_is_spent(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    path = gateway.home / "prompts.jsonl"
    path.write_text(json.dumps(items(1)[0]))
    arguments = ["calibrate", str(path), "--local", LOCAL, "--cloud", CLOUD]
    arguments += ["--url", gateway.origin, "--home", str(gateway.home)]
    result = CliRunner().invoke(main, arguments, input="n\n")
    assert re.search(r"4 calls, about \$0\.\d+ if every answer", result.stderr)
    assert result.exit_code == 1
    assert upstream.requests == []


def test_without_comparators_it_reports_agreement_and_promises_nothing(
    gateway: RunningGateway,
) -> None:
    result, found = calibrate(gateway, items(40, judged=False))
    assert result.exit_code == 1
    assert found["agreement"] == 0.5
    assert found["judged"] == 0
    assert found["file"] is None
    assert not (gateway.home / FOLDER).exists()


def test_too_few_prompts_promise_nothing_and_say_so(gateway: RunningGateway) -> None:
    result, found = calibrate(gateway, items(6))
    assert result.exit_code == 1
    promises = found["promises"]
    assert isinstance(promises, dict)
    assert promises["pre"]["kept_local"] == 0
    assert promises["pre"]["missing"] == "24 more labelled calls"


def test_verdicts_need_no_calls(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    given: list[dict[str, object]] = [
        {"prompt": f"p {k}", "verdicts": {"local": 1, "cloud": 1}} for k in range(200)
    ]
    result, found = calibrate(gateway, given)
    assert result.exit_code == 0, result.output
    assert found["judged"] == 200
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "x", "expect": {"exact": "a", "number": 1}}', "exactly one|takes one of"),
        ('{"prompt": "x", "expect": {"regex": "("}}', "regex"),
        ('{"text": "x"}', "line 1"),
        ("", "no prompts"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(line)
    result = CliRunner().invoke(
        main, ["calibrate", str(path), "--local", LOCAL, "--cloud", CLOUD, "--home", str(tmp_path)]
    )
    assert result.exit_code == 2
    assert re.search(said, result.output)


def test_a_gateway_that_is_not_there_is_said(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(items(1)[0]))
    arguments = ["calibrate", str(path), "--local", LOCAL, "--cloud", CLOUD, "--yes"]
    arguments += ["--url", "http://127.0.0.1:9", "--home", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "locavore serve" in result.output


@pytest.mark.parametrize("looks", [False, True])
def test_the_running_gateway_routes_by_the_promise(
    gateway: RunningGateway, upstream: ScriptedUpstream, looks: bool
) -> None:
    """By the request alone, and by the answer that was looked at."""
    prompts = [{k: v for k, v in i.items() if k != "task"} for i in items(400)]
    calibrate(gateway, prompts)
    routing = f"routing = {{ cascade = {str(looks).lower()} }}"
    gateway.reload(f"{routing}\n{CONFIG.format(url=upstream.url)}")
    served = {"add": set[str](), "multiply": set[str]()}
    with httpx2.Client(base_url=gateway.origin) as client:
        for item, plain in zip(prompts[:40], items(40), strict=True):
            said = [{"role": "user", "content": item["prompt"]}]
            body = {"model": "auto", "messages": said}
            answer = client.post("/v1/chat/completions", json=body)
            model = answer.headers["x-locavore-model"]
            served[str(plain["task"])].add(model)
            explained = client.post("/v1/route", json=body).json()
            fate = answer.headers.get("x-locavore-cascade")
            if explained["chosen"].startswith("cascade:"):
                assert looks
                assert (model, fate) in {(LOCAL, "kept"), (CLOUD, "escalated")}
            else:
                assert (explained["chosen"], fate) == (model, None)
    assert LOCAL in served["add"]
    assert served["multiply"] == {CLOUD}


def test_c116_a_promise_is_void_when_the_engine_behind_it_changes(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    prompts = items(400)
    calibrate(gateway, prompts)
    other_model = CONFIG.format(url=upstream.url).replace(
        'id = "home/small"', 'id = "home/small"\nmodel = "another"'
    )
    gateway.reload(other_model)
    with httpx2.Client(base_url=gateway.origin) as client:
        said = [{"role": "user", "content": prompts[0]["prompt"]}]
        body = {"model": "auto", "messages": said}
        explained = client.post("/v1/route", json=body).json()
    assert "promise" not in json.dumps(explained)
    assert any("void" in message for message in gateway.messages)


def test_few_labels_are_told_what_more_might_bring(gateway: RunningGateway) -> None:
    _, found = calibrate(gateway, items(120))
    more = found["more_labels"]
    assert isinstance(more, list)
    assert [m["labels"] for m in more] == [240, 480]
    assert all(0 <= m["low"] <= m["high"] <= 1 for m in more)
    path = gateway.home / "prompts.jsonl"
    arguments = ["calibrate", str(path), "--local", LOCAL, "--cloud", CLOUD, "--yes"]
    arguments += ["--url", gateway.origin, "--home", str(gateway.home), "--samples", "0"]
    text = CliRunner().invoke(main, arguments).stdout
    assert "labels drawn like these" in text or "120 labels are few" in text
    assert text.count("(not used)") == 1
    assert "a running gateway takes it up" in text


def test_what_was_spent_is_told_and_failures_are_asked_again(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    def failing(received: Received) -> Reply:
        bad = b"what is 8 + 7" in received.body and b"big" in received.body
        return openai_error(400) if bad else answer(received)

    upstream.always(failing)
    result, found = calibrate(gateway, items(20))
    assert "asked 40 calls for $0.0009, 1 failed; run it again to ask those anew" in result.stderr
    assert (found["judged"], found["failed"]) == (19, 1)
    upstream.always(answer)
    result, found = calibrate(gateway, items(20))
    assert "asked 1 calls for $0.0000" in result.stderr
    assert (found["judged"], found["failed"]) == (20, 0)


def test_an_interruption_stops_the_spending(
    gateway: RunningGateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", interrupted)
    result, _ = calibrate(gateway, items(300), "--at-once", "2")
    assert "stopped: 1 of 600 answers are kept; the same command goes on" in result.stderr
    assert 1 <= len(upstream.requests) < 600
    monkeypatch.undo()
    log = next((gateway.home / "calibrations").glob("*.jsonl"))
    assert len(log.read_bytes().splitlines()) == 1
