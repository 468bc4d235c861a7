"""Writes what is derived from the list of configuration keys.

    python scripts/configuration_reference.py

The tables of docs/reference/configuration.md below its marker, and the JSON Schema beside it. A
test fails when either is out of date.
"""

import json
from pathlib import Path

from locavore.config.reference import json_schema, reference

DOCS = Path(__file__).parent.parent / "docs" / "reference"
PAGE = DOCS / "configuration.md"
SCHEMA = DOCS / "locavore.schema.json"
MARKER = "<!-- below: written by scripts/configuration_reference.py -->\n"


def page(text: str) -> str:
    """The page with its tables as the code has them."""
    head, _, _ = text.partition(MARKER)
    return f"{head}{MARKER}\n{reference()}"


def schema() -> str:
    return json.dumps(json_schema(), indent=1, sort_keys=True) + "\n"


def main() -> None:
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    SCHEMA.write_text(schema(), "utf-8")


if __name__ == "__main__":
    main()
