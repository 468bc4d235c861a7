"""Fills versions and licenses into the tables of docs/adr/0005-dependencies.md.

    python scripts/dependency_table.py

Versions come from the lock files, licenses from the metadata of what is installed; the reasons are
written by hand. A test fails when the page is out of date or a dependency has no row.
"""

import re
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "adr" / "0005-dependencies.md"
LOCKS = (ROOT / "requirements" / "run.txt", ROOT / "requirements" / "dev.txt")

_PIN = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)([^\\\n]*)", re.MULTILINE)
_NAME = re.compile(r"^[A-Za-z0-9_.-]+")
_ROW = re.compile(r"^\| `([^`]+)` \|[^|]*\|[^|]*\|", re.MULTILINE)


def direct() -> dict[str, set[str]]:
    """Names a person wrote down: `run` and `extra` in pyproject.toml, `dev` only in dev.in."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "requirements" / "dev.in").read_text("utf-8").splitlines()
    run = {_name(line) for line in project["dependencies"]}
    extra = {_name(n) for names in project["optional-dependencies"].values() for n in names}
    dev = {_name(line) for line in lines if line and line[0] not in "#-"}
    return {"run": run, "extra": extra, "dev": dev - run - extra}


def locked() -> dict[str, dict[str, str]]:
    """Package -> version -> marker ('' when it applies everywhere)."""
    found: dict[str, dict[str, str]] = {}
    for path in LOCKS:
        for name, version, rest in _PIN.findall(path.read_text("utf-8")):
            found.setdefault(name.lower(), {})[version] = rest.partition(";")[2].strip()
    return found


def license_of(name: str) -> str | None:
    """As the package declares it, in the order of preference of the metadata; None: not here."""
    try:
        declared = metadata.metadata(name).json
    except metadata.PackageNotFoundError:
        return None
    if expression := declared.get("license_expression"):
        return str(expression)
    named = [c for c in declared.get("classifier", ()) if str(c).startswith("License ::")]
    kinds = [str(c).split(" :: ")[-1] for c in named]
    if kinds:
        return ", ".join(kind for kind in kinds if kind != "DFSG approved")
    return " ".join(str(declared.get("license", "")).split()[:2])


def page(text: str) -> str:
    """The page with versions and licenses as they are."""

    def row(match: re.Match[str]) -> str:
        name = match[1]
        versions = " / ".join(locked().get(name, {})) or "not locked"
        return f"| `{name}` | {versions} | {license_of(name) or 'not installed'} |"

    return _ROW.sub(row, text)


def _name(requirement: str) -> str:
    match = _NAME.match(requirement)
    if match is None:
        raise ValueError(f"{requirement!r} names no package")
    return match[0].lower()


def main() -> None:
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
