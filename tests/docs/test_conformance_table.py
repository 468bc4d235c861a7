"""docs/reference/conformance.md is what the tests say, and no promise is without a test."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "conformance_table.py"))
CASES = dict(SCRIPT["cases"]())
HELD = SCRIPT["held"]()


def test_the_page_is_up_to_date() -> None:
    written = SCRIPT["PAGE"].read_text("utf-8")
    assert written == SCRIPT["page"](), "run: python scripts/generated_pages.py"


@pytest.mark.parametrize("case", [name for name, entry in CASES.items() if entry.get("gateway")])
def test_every_promise_of_the_gateway_has_a_test(case: str) -> None:
    assert case in HELD or "waits" in CASES[case]


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_case_has_a_test_or_says_why_not(case: str) -> None:
    assert case in HELD or CASES[case].get("waits")


def test_tests_carry_known_numbers() -> None:
    assert set(HELD) <= set(CASES)


def test_the_gateways_promises_are_these() -> None:
    """The list the gateway was specified with; leaving one out of the data would hide it."""
    spans = [(1, 16), (20, 36), (40, 43), (50, 57), (59, 59), (65, 67), (69, 69), (84, 85)]
    spans += [(91, 92), (94, 94), (100, 101), (104, 107), (110, 112), (121, 123)]
    listed = {f"C{n:02}" for first, last in spans for n in range(first, last + 1)}
    assert {name for name, entry in CASES.items() if entry.get("gateway")} == listed


def test_what_waits_has_no_test_yet() -> None:
    """A test that came since makes the reason for waiting stale."""
    stale = {name for name, entry in CASES.items() if entry.get("waits")} & set(HELD)
    assert sorted(stale) == [], "take `waits` of these out of tests/conformance/cases.toml"
