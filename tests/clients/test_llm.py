"""The `llm` command line before the gateway; its own log cross-checks ours."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from locavore.testing import replies
from tests.clients import model
from tests.clients.sides import Sides

MODELS = """
- model_id: gateway
  model_name: {model}
  api_base: {url}
  supports_tools: true
  supports_schema: true
"""
TOOL = "def weather(city: str) -> str:\n    return 'Sunny in ' + city\n"


def llm(sides: Sides, home: Path, *arguments: str, name: str = "home/m") -> str:
    """Standard output of one prompt, sent through the gateway."""
    home.mkdir(exist_ok=True)
    models = MODELS.format(model=name, url=sides.gateway.url)
    (home / "extra-openai-models.yaml").write_text(models)
    done = subprocess.run(
        [sys.executable, "-m", "llm", "--log", "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LLM_USER_PATH": str(home),
            "OPENAI_API_KEY": "k",
            "LLM_LOAD_PLUGINS": "",
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def logged(home: Path) -> Any:
    """(input tokens, output tokens) that `llm` wrote down."""
    db = sqlite3.connect(home / "logs.db")
    try:
        return db.execute("SELECT input_tokens, output_tokens FROM turns").fetchall()
    finally:
        db.close()


def test_a_streamed_answer_and_equal_books(sides: Sides, tmp_path: Path) -> None:
    sides.upstream.script(replies.chat_stream(["Hé ", "✓"]))
    assert llm(sides, tmp_path / "llm", "Say hello.").strip() == "Hé ✓"
    (record,) = sides.gateway.records()
    usage = record.attempts[0].usage
    assert usage is not None
    assert logged(tmp_path / "llm") == [(usage.input_tokens, usage.output_tokens)] == [(12, 3)]


def test_a_schema_before_an_anthropic_backend(sides: Sides, tmp_path: Path) -> None:
    sides.upstream.always(model.respond)
    told = llm(sides, tmp_path / "llm", "--schema", "name, people int", "42", name="claude/m")
    assert json.loads(told) == {"name": "a cat", "people": 42}


def test_tools_before_either_backend(sides: Sides, tmp_path: Path) -> None:
    sides.upstream.always(model.respond)
    for name in ("home/m", "claude/m"):
        called = llm(sides, tmp_path / "llm", "--functions", TOOL, "In 'Rom'?", "--td", name=name)
        assert "scripted model" in called
    results = [r for r in sides.upstream.requests if b"Sunny in Rom" in r.body]
    assert [r.path for r in results] == ["/v1/chat/completions", "/v1/messages"]
