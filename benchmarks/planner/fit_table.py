"""The documentation's table of errors, from what a fit measured."""

from pathlib import Path

from benchmarks.planner.fit_errors import Errors

DOC = Path(__file__).resolve().parents[2] / "docs/explain/speed-model.md"
HEAD = "| class | goal |"
VIEWS = (
    "fitted",
    "hardware",
    "hardware, known path",
    "model",
    "family",
    "simple, hardware",
    "simple, model",
)


def write_table(errors: Errors, doc: Path = DOC) -> None:
    """Replace the rows under the table's head; the head and the text around stay."""
    lines = doc.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(HEAD)) + 2
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    doc.write_text("\n".join([*lines[:start], *_rows(errors), *lines[end:]]) + "\n")


def _rows(errors: Errors) -> list[str]:
    return [
        f"| {label} | {found['goal']} | "
        + " | ".join(
            f"{found[view][0]:g} / {found[view][1]:g}" if view in found else "" for view in VIEWS
        )
        + " |"
        for label, found in errors.items()
    ]
