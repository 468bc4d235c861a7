"""Names that say nothing are refused, and so are files that nothing can find."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFUSED = frozenset(
    {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "managers"}
)
NOT_OURS = frozenset({"node_modules", "build"})
PYTHON = sorted(
    path
    for folder in ("src", "tests", "benchmarks", "scripts")
    for path in (ROOT / folder).rglob("*.py")
    if not NOT_OURS.intersection(path.parts)
)


def test_there_is_something_to_look_at() -> None:
    assert len(PYTHON) > 200


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks", "scripts"])
def test_no_module_or_package_has_a_name_that_says_nothing(folder: str) -> None:
    inside = [
        path.relative_to(ROOT / folder) for path in PYTHON if path.is_relative_to(ROOT / folder)
    ]
    named = [p for p in inside if REFUSED & {*p.parts[:-1], p.stem}]
    assert named == []


def test_every_package_says_what_it_is_for() -> None:
    packages = [p for p in PYTHON if p.name == "__init__.py" and "src" in p.parts]
    silent = [p.relative_to(ROOT) for p in packages if not p.read_text("utf-8").startswith('"""')]
    assert silent == []


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in PYTHON if "src" in path.parts} - {ROOT / "src"}
    assert [f for f in folders if not (f / "__init__.py").exists()] == []


def test_nothing_names_the_machine_it_was_written_on() -> None:
    """No path of a developer's machine, and no registry, in anything that is delivered."""
    # Joined here, so that this file does not name them itself.
    parts = (("/wo", "rk/"), ("/ro", "ot/"), ("pypi", ".org"), ("npmjs", ".org"), ("../sh", "ared"))
    marks = ["".join(pair) for pair in parts]
    delivered = [*PYTHON, *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), ROOT / "Makefile"]
    found = [
        (path.relative_to(ROOT).as_posix(), mark)
        for path in delivered
        for mark in marks
        if mark in path.read_text("utf-8")
    ]
    assert found == []
