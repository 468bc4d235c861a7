"""Writes every page that is derived from code, tests or locks, and the list of decision records.

    python scripts/generated_pages.py

Tests fail when one of them is out of date.
"""

import runpy
from pathlib import Path

FOLDER = Path(__file__).parent
RECORDS = FOLDER.parent / "docs" / "adr"
WRITERS = ("cli_reference", "configuration_reference", "conformance_table", "dependency_table")
HEAD = """\
# Decision records

Why things are as they are. A record is changed in the open when the code teaches otherwise.

"""


def records() -> str:
    """docs/adr/README.md: each record with its title."""
    found = sorted(RECORDS.glob("[0-9]*.md"))
    return HEAD + "".join(f"- [{_title(path)}]({path.name})\n" for path in found)


def _title(path: Path) -> str:
    return path.read_text("utf-8").partition("\n")[0].lstrip("# ")


def main() -> None:
    (RECORDS / "README.md").write_text(records(), "utf-8")
    for name in WRITERS:
        runpy.run_path(str(FOLDER / f"{name}.py"))["main"]()


if __name__ == "__main__":
    main()
