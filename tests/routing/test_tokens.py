"""Token estimates hold for real tokenizers; benchmarks/routing/tokens counted these."""

import json
from pathlib import Path
from typing import Any

import pytest

from locavore.core.policy import Policy
from locavore.core.request import Request
from locavore.routing.asks import Asks
from locavore.routing.facts import measure

FOLDER = Path(__file__).parents[2] / "benchmarks" / "routing" / "tokens"
SAMPLES: list[dict[str, Any]] = json.loads((FOLDER / "samples.json").read_text("utf-8"))["samples"]
COUNTED: list[dict[str, Any]] = json.loads((FOLDER / "result.json").read_text("utf-8"))["rows"]
TOKENIZERS = ("o200k_base", "cl100k_base", "qwen2.5", "llama3")
REPEATS = 40
"""Long enough that a template's own tokens do not decide."""


def request(text: str) -> Request:
    body = json.dumps({"messages": [{"role": "user", "content": text}]}, ensure_ascii=False)
    return Request(
        format="openai_chat", model="auto", body=body.encode(), prompt_bytes=len(text.encode())
    )


@pytest.mark.parametrize("index", range(len(SAMPLES)))
def test_c36_every_tokenizer_counts_inside_the_interval(index: int) -> None:
    text, counted = SAMPLES[index]["text"] * REPEATS, COUNTED[index]
    asked = request(text)
    tokens = measure(asked, Policy(), asks=Asks(text)).input_tokens
    unread = measure(asked, Policy()).input_tokens
    for name in TOKENIZERS:
        exact = asked.prompt_bytes / counted[name]
        assert tokens.low <= exact <= tokens.high, name
        assert unread.low <= exact, name


def test_the_samples_are_the_counted_ones() -> None:
    assert [(s["script"], s["kind"], len(s["text"].encode())) for s in SAMPLES] == [
        (c["script"], c["kind"], c["bytes"]) for c in COUNTED
    ]


def test_figures_count_for_more_tokens_than_prose() -> None:
    prose, figures = "the old mill at the river " * 400, "4831.22,0.0041,17 " * 578
    means = [
        measure(request(t), Policy(), asks=Asks(t)).input_tokens.mean for t in (prose, figures)
    ]
    assert abs(len(prose) - len(figures)) < 10
    assert means[1] > 2 * means[0]
