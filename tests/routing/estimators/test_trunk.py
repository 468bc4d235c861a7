"""The shipped artifact: read in bounded time, the same every time, or refused by name."""

from pathlib import Path

import pytest

from locavore.core.errors import ConfigError
from locavore.routing.estimators import features, trunk


@pytest.fixture(scope="module")
def shipped() -> trunk.Trunk:
    return trunk.load()


def test_a_long_prompt_is_read_in_part(shipped: trunk.Trunk) -> None:
    long = "word " * 200_000
    assert len(features.read(long)) < 5000
    assert shipped.read(long).row[0] > shipped.read("word " * 1000).row[0]


def test_readings_repeat_exactly(shipped: trunk.Trunk) -> None:
    assert trunk.load().read("Prove it twice.").row == shipped.read("Prove it twice.").row


def test_the_artifact_is_small_and_names_what_made_it(shipped: trunk.Trunk) -> None:
    assert trunk.SHIPPED.stat().st_size <= 5_000_000
    assert "alpaca" not in shipped.trained_on.lower()
    assert "mmlupro" in shipped.trained_on


def test_c112_a_missing_artifact_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.bin"):
        trunk.load(tmp_path / "absent.bin")


@pytest.mark.parametrize("cut", [0, 10, 30, 5000, -1])
def test_c112_a_corrupt_artifact_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.bin"
    path.write_bytes(trunk.SHIPPED.read_bytes()[:cut])
    with pytest.raises(ConfigError, match=r"cut\.bin"):
        trunk.load(path)


def test_c112_a_changed_byte_in_the_artifact_is_noticed(tmp_path: Path) -> None:
    data = bytearray(trunk.SHIPPED.read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "changed.bin"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="checksum"):
        trunk.load(path)
