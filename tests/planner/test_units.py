"""Quantities as people write them, and what is refused."""

import pytest

from locavore.core.errors import ConfigError
from locavore.planner import units


def test_quantities() -> None:
    assert units.amount("1.5K", what="x") == 1500
    assert units.amount("5_000", what="x") == 5000
    assert units.per_day("5B/month", what="x") == pytest.approx(5e9 * 12 / 365)
    assert units.per_day("200/s", what="x") == pytest.approx(200 * 86400)
    assert units.bytes_of("24GB", what="x") == 24e9
    assert units.bytes_of("24GiB", what="x") == 24 * 2**30
    assert units.tokens("128K") == 131072
    assert units.share("30%", what="x") == units.share("0.3", what="x") == 0.3
    assert units.machine_count("2x RTX 4090") == (2, "RTX 4090")
    assert units.machine_count("RTX 4090") == (1, "RTX 4090")


@pytest.mark.parametrize("text", ["-5", "0", "ten", "", "1e99", "5 apples", "nan", "inf"])
def test_refused_amounts_name_the_value(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        units.amount(text, what="--input")
    assert "--input" in caught.value.problems[0]
    assert repr(text) in caught.value.problems[0]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: units.per_day("5M/fortnight", what="volume"), "fortnight"),
        (lambda: units.bytes_of("24", what="memory"), "unit"),
        (lambda: units.bytes_of("24 tokens", what="memory"), "unit"),
        (lambda: units.tokens("-4096"), "negative"),
        (lambda: units.tokens("24GB"), "tokens"),
        (lambda: units.share("130%", what="share"), "share"),
        (lambda: units.machine_count("0x H100"), "0 devices"),
    ],
)
def test_mixed_units_are_refused(call: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        call()  # type: ignore[operator]
