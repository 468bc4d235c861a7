"""The reference page, the JSON Schema and the example are what the code says."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest

from locavore.config import load
from locavore.config.schema import File
from locavore.core.backend import Place

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "configuration_reference.py"))
HOW = "run: python scripts/configuration_reference.py"


def example() -> str:
    text = SCRIPT["PAGE"].read_text("utf-8")
    match = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert match is not None
    return match[1]


def test_the_page_is_up_to_date() -> None:
    text = SCRIPT["PAGE"].read_text("utf-8")
    assert SCRIPT["page"](text) == text, HOW


def test_the_json_schema_is_up_to_date() -> None:
    assert SCRIPT["SCHEMA"].read_text("utf-8") == SCRIPT["schema"](), HOW


def test_every_key_is_explained() -> None:
    text = SCRIPT["PAGE"].read_text("utf-8")
    assert "| None |" not in text
    for name in File.__struct_fields__:
        assert f"`{name}`" in text or f"[{name}" in text


def test_the_example_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(example())
    config = load(path, {"CLINIC_KEY": "k"}, {})
    assert config.keys == {"clinic": "k"}
    assert config.policy.rules[1].require.farthest is Place.ON_PREM
    assert config.policy.fallbacks == {"home/qwen3-8b": ("openai/gpt-4.1-mini",)}


@pytest.mark.parametrize("key", sorted(tomllib.loads(example())))
def test_the_example_only_uses_known_keys(key: str) -> None:
    assert key in File.__struct_fields__
