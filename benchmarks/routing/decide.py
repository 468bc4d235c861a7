"""What a decision costs: CPU microseconds of facts + decide, as the gateway calls it.

    python -m benchmarks.routing.decide [--json FILE]

A call that names its model, and `auto` over six candidates, each with a 1.5 KB prompt; then `auto`
with rules and labels. Then `auto` under a promise, each ask read for the first time: the estimate
is in it, and so is reading the conversation, up to a megabyte. The median of repeated runs of
process time; the floor is what building the records of the answer costs, which any implementation
with these records must pay.
"""

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from locavore.core.backend import Backend, Place
from locavore.core.decision import Considered, Decision, Facts
from locavore.core.estimate import Estimate
from locavore.core.money import FREE, Price, Rate
from locavore.core.policy import Policy, Require, Rule, When
from locavore.core.request import Request
from locavore.routing.conversation import Talk
from locavore.routing.estimators import trunk
from locavore.routing.estimators.promised import Entry, Promises
from locavore.routing.judging import Judge
from locavore.routing.promise import Target, nothing
from locavore.routing.router import Router
from locavore.wire.formats import FORMATS

ASK = "Can you tell me what we should look at when we visit the old town next week? "
RUNS, CALLS = 15, 2000
CHAT = FORMATS["openai_chat"]


def backend(name: str, place: Place, usd: str | None, score: float | None) -> Backend:
    provider, _, model = name.partition("/")
    price = FREE
    if usd is not None:
        price = Price(rate=Rate(input_mtok=Decimal(usd), output_mtok=Decimal(usd)), source="bench")
    return Backend(
        id=name,
        provider=provider,
        model=model,
        url="http://127.0.0.1:1/v1",
        dialect="openai",
        place=place,
        context_tokens=128_000,
        capabilities=frozenset({"chat", "tools", "json_schema"}),
        price=price,
        quality={} if score is None else {"chat": Estimate.exact(score, source="bench")},
        prefill_tokens_s=60.0 if place is Place.EMBEDDED else None,
    )


FLEET = (
    backend("cloud/large", Place.PUBLIC_API, "8", 0.90),
    backend("cloud/medium", Place.PUBLIC_API, "2", 0.85),
    backend("cloud/small", Place.PUBLIC_API, "0.5", 0.75),
    backend("home/large", Place.ON_PREM, "0.3", 0.78),
    backend("home/small", Place.ON_PREM, None, 0.55),
    backend("embedded/tiny", Place.EMBEDDED, None, None),
)
PLAIN = Policy(stage="route", baseline="cloud/large")
RULES = Policy(
    stage="route",
    baseline="cloud/large",
    labels=frozenset({"health"}),
    rules=(
        Rule(name="health", when=When(label="health"), require=Require(farthest=Place.ON_PREM)),
        Rule(name="code", when=When(task="code"), require=Require(max_ttft_s=5.0)),
        Rule(name="cost", require=Require(max_cost_usd=Decimal(1))),
    ),
)


def request(model: str, labels: frozenset[str] = frozenset()) -> Request:
    text = (ASK * 40)[:1500]
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()
    return Request(format=CHAT.name, model=model, body=body, prompt_bytes=len(text), labels=labels)


def decision(policy: Policy, asked: Request) -> Callable[[], object]:
    router = Router(policy, FLEET)
    return lambda: router.decide(asked, decision_id="bench", talk=Talk(asked, CHAT.turns))


def judged(messages: list[dict[str, str]]) -> Callable[[], object]:
    """A decision under a promise, from the body on; nothing is remembered of the call before."""
    local, cloud = "home/small", "cloud/large"
    entry = Entry(
        local=local,
        cloud=cloud,
        pre=nothing(Target(), 0, "labels"),
        local_quality=0.5,
        cloud_quality=1.0,
        made_s=0.0,
    )
    shipped = trunk.load()
    router = Router(PLAIN, FLEET, promises=Promises(shipped, [entry]))
    body = json.dumps({"model": "auto", "messages": messages}).encode()
    asked = CHAT.request(body)

    def run() -> Decision:
        router.judge = Judge(Promises(shipped, [entry]), FLEET[0], deadline_s=float("inf"))
        return router.decide(asked, decision_id="bench", talk=Talk(asked, CHAT.turns))

    told = next(c for c in run().considered if c.id == local)
    assert told.promise is not None, "the estimate is not in it"
    return run


def talk(turns: int, chars: int) -> list[dict[str, str]]:
    """So many answered turns of so many characters on either side, then a short follow-up."""
    found = []
    for k in range(turns):
        said = f"Please explain lemma {k} of chapter {k % 7} to me. " * (chars // 44 + 1)
        found.append({"role": "user", "content": said[:chars]})
        found.append(
            {"role": "assistant", "content": ("It says that. " * (chars // 14 + 1))[:chars]}
        )
    return [*found, {"role": "user", "content": "commit it"}]


def records(count: int) -> Callable[[], object]:
    """The floor: a Decision with `count` candidates, nothing decided."""
    usd = Decimal("0.01")

    def build() -> Decision:
        tokens = Estimate(mean=400.0, low=250.0, high=600.0, source="bytes", unit="tokens")
        facts = Facts(input_tokens=tokens, output_tokens=1024, task="chat", language="Latn")
        rows = tuple(
            Considered(id="a/b", place="on_prem", verdict="allowed", reasons=(), cost_usd=usd)
            for _ in range(count)
        )
        return Decision(
            id="bench",
            requested="auto",
            resolved="auto",
            chosen="a/b",
            considered=rows,
            facts=facts,
            stage="route",
            posture="local_first",
        )

    return build


def cpu_us(call: Callable[[], object], calls: int = CALLS) -> float:
    """Median over runs of the process time of one call."""
    found = []
    for _ in range(RUNS):
        start = time.process_time()
        for _ in range(calls):
            call()
        found.append((time.process_time() - start) / calls * 1e6)
    return statistics.median(found)


def measure() -> dict[str, float]:
    auto, health = request("auto"), request("auto", frozenset({"health"}))
    return {
        "records_1_us": cpu_us(records(1)),
        "named_us": cpu_us(decision(PLAIN, request("home/large"))),
        "records_6_us": cpu_us(records(6)),
        "ask_us": cpu_us(lambda: Talk(auto, CHAT.turns).read()),
        "auto_6_us": cpu_us(decision(PLAIN, auto)),
        "auto_6_rules_us": cpu_us(decision(RULES, auto)),
        "auto_6_labelled_us": cpu_us(decision(RULES, health)),
        "judged_1_5_kb_us": cpu_us(judged([{"role": "user", "content": (ASK * 40)[:1500]}]), 200),
        "judged_60_turns_90_kb_us": cpu_us(judged(talk(60, 750)), 50),
        "judged_1000_turns_1_mb_us": cpu_us(judged(talk(1000, 500)), 5),
        "judged_1_mb_us": cpu_us(judged([{"role": "user", "content": ASK * 13_000}]), 10),
        "judged_1_mb_of_tags_us": cpu_us(
            judged([{"role": "user", "content": "<system-reminder>" * 60_000}]), 10
        ),
        "judged_2_mb_escaped_us": cpu_us(
            judged([{"role": "user", "content": "中文" * 170_000}]), 5
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    path = parser.parse_args().json
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    found = {
        "commit": commit,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "figures": {name: round(value, 2) for name, value in measure().items()},
    }
    text = json.dumps(found, indent=2)
    print(text)
    if path is not None:
        path.write_text(text + "\n")


if __name__ == "__main__":
    main()
