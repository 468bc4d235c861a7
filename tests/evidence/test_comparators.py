"""Comparators say right or wrong by a rule."""

import pytest

from locavore.core.errors import ConfigError
from locavore.evidence.comparators import Expect, score


@pytest.mark.parametrize(
    ("answer", "expect", "right"),
    [
        ("  Santiago. ", Expect(exact="santiago"), 1.0),
        ("Santiago de Chile", Expect(exact="santiago"), 0.0),
        ("So it is 1,234.50 in all", Expect(number=1234.5), 1.0),
        ("about 10.4", Expect(number=10, tolerance=0.5), 1.0),
        ("about 10.6", Expect(number=10, tolerance=0.5), 0.0),
        ("none", Expect(number=1), 0.0),
        ('Here: {"city": "Bonn", "x": 1} ok', Expect(json={"city": "Bonn"}), 1.0),
        ('{"city": "Bonn", "zip": 1}', Expect(json={"city": "Bonn", "zip": 2}), 0.5),
        ("{broken", Expect(json={"city": "Bonn"}), 0.0),
        ("Yes, it is", Expect(regex=r"(?i)^yes\b"), 1.0),
        ("No", Expect(regex=r"(?i)^yes\b"), 0.0),
        (
            "```python\ndef add(a, b):\n    return a + b\n```",
            Expect(python="assert add(2, 2) == 4"),
            1.0,
        ),
        (
            "```python\ndef add(a, b):\n    return a - b\n```",
            Expect(python="assert add(2, 2) == 4"),
            0.0,
        ),
        ("I would rather not", Expect(python="assert True"), 0.0),
    ],
    ids=str,
)
def test_scores(answer: str, expect: Expect, right: float) -> None:
    assert score(answer, expect, run_code=True) == right


def test_code_does_not_run_unless_allowed() -> None:
    with pytest.raises(ConfigError, match="--run-code"):
        score("print(1)", Expect(python="assert True"))


@pytest.mark.parametrize("fields", [{}, {"exact": "a", "number": 1.0}, {"regex": "("}])
def test_a_comparator_that_cannot_work_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expect takes one|regex"):
        Expect(**fields)  # type: ignore[arg-type]
