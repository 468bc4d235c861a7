"""Writes docs/reference/conformance.md: each case, what it asks, and the tests that hold it.

    python scripts/conformance_table.py

Cases and their one-line meanings are tests/conformance/cases.toml; the tests are found by their
names (`test_c21_c22_...` carries two). A test fails when the page is out of date.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "conformance.md"
DATA = ROOT / "tests" / "conformance" / "cases.toml"

HEAD = """\
# Conformance

What a gateway must survive that people trust with money and private text, and the tests that hold
each case. A case is held when a test drives it: a scripted upstream or a real engine tells the
truth, and the test looks at the client's bytes, the ledger's rows and what the upstream saw.

Written by `scripts/conformance_table.py` from `tests/conformance/cases.toml` and the names of the
tests: `test_c21_...` holds C21. One case alone: `pytest -k test_c21`.
"""

_TEST = re.compile(r"^\s*(?:async )?def (test_((?:c\d+_)+)\w*)", re.MULTILINE)


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """(number, entry) of every case, in order."""
    for group in _groups().values():
        yield from ((name, entry) for name, entry in group.items() if name != "title")


def held() -> dict[str, dict[str, list[str]]]:
    """Case -> test file relative to the repository -> names of its tests."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        file = path.relative_to(ROOT).as_posix()
        for name, numbers in _TEST.findall(path.read_text("utf-8")):
            for number in numbers.split("_")[:-1]:
                case = f"C{int(number[1:]):02}"
                found.setdefault(case, {}).setdefault(file, []).append(name)
    return found


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(group, held()) for group in _groups().values())


def _section(group: dict[str, Any], tests: dict[str, dict[str, list[str]]]) -> str:
    lines = ["", f"## {group['title']}", "", "| case | what it asks | held by |", "|---|---|---|"]
    for name, entry in group.items():
        if name != "title":
            lines.append(f"| {name} | {entry['asks']} | {_by(entry, tests.get(name, {}))} |")
    return "\n".join(lines) + "\n"


def _by(entry: dict[str, Any], files: dict[str, list[str]]) -> str:
    links = [f"[{_short(file)}](../../{file})" for file in files]
    if waits := entry.get("waits"):
        links.append(f"does not apply yet: {waits}")
    return ", ".join(links) or "no test"


def _short(file: str) -> str:
    return file.removeprefix("tests/").removesuffix(".py").replace("test_", "")


def _groups() -> dict[str, dict[str, Any]]:
    return tomllib.loads(DATA.read_text("utf-8"))


def main() -> None:
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
