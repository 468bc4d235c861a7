"""docs/adr/0005-dependencies.md lists what is there, and its licenses are as it says."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "dependency_table.py"))
TEXT = SCRIPT["PAGE"].read_text("utf-8")
LOCKED = SCRIPT["locked"]()

PERMISSIVE = re.compile(
    r"^(MIT|MIT-0|MIT License|BSD License|Apache|BSD-[23]-Clause|3-Clause BSD|0BSD|ISC|Zlib|"
    r"CC0-1\.0|PSF-2\.0|"
    r"Apache-2\.0|Apache Software License|Apache License,|Apache License, Version 2\.0|"
    r"Public Domain|CNRI-Python|Python Software Foundation License|Unlicense|"
    r"The Unlicense \(Unlicense\))$"
)
WEAK_COPYLEFT = {"certifi", "hypothesis", "pathspec", "orjson"}
"""Named in the record, with why they may be used."""


def section(title: str) -> set[str]:
    part = TEXT.split(f"## {title}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE))


@pytest.mark.parametrize(
    ("title", "kind"), [("Run time", "run"), ("Optional", "extra"), ("Development", "dev")]
)
def test_the_record_lists_exactly_the_direct_dependencies(title: str, kind: str) -> None:
    assert section(title) == SCRIPT["direct"]()[kind]


def test_versions_and_licenses_are_filled_in() -> None:
    assert SCRIPT["page"](TEXT) == TEXT, "run: python scripts/generated_pages.py"


@pytest.mark.parametrize("name", sorted(LOCKED))
def test_the_license_of_a_locked_package_is_permissive(name: str) -> None:
    declared = SCRIPT["license_of"](name)
    if declared is None:
        assert all(LOCKED[name].values()), "not installed, although no marker excludes it here"
        return
    if name in WEAK_COPYLEFT:
        assert re.search(r"MPL-2\.0|Mozilla", declared), "no longer an exception"
        return
    parts = re.split(r" AND | OR |, (?!Version)|[()]", declared)
    kinds = [part.strip() for part in parts if part.strip()]
    assert kinds
    assert [kind for kind in kinds if not PERMISSIVE.match(kind)] == []


def test_every_record_is_in_the_list() -> None:
    pages = runpy.run_path(str(ROOT / "scripts" / "generated_pages.py"))
    written = (pages["RECORDS"] / "README.md").read_text("utf-8")
    assert written == pages["records"](), "run: python scripts/generated_pages.py"
