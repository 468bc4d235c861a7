"""The examples of `docs/reference/wire.md` run."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "wire.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_reference_runs(number: int) -> None:
    exec(compile(EXAMPLES[number], str(PAGE), "exec"), {})


def test_the_reference_has_examples() -> None:
    assert len(EXAMPLES) >= 4
