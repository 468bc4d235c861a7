"""docs/explain/routing.md shows what was measured, and its example runs."""

import json
import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from benchmarks.routing.__main__ import RESULTS
from benchmarks.routing.tables import tables
from locavore.cli import main
from locavore.routing.promise import FEWEST_LABELS

TEXT = (Path(__file__).parents[2] / "docs" / "explain" / "routing.md").read_text("utf-8")


def test_the_tables_are_those_of_the_last_results() -> None:
    shown = re.search(r"<!-- tables -->\n(.*?)<!-- end -->", TEXT, re.DOTALL)
    assert shown is not None
    assert shown[1].strip() == tables(json.loads(RESULTS.read_text("utf-8")))


def test_the_fewest_labels_are_the_codes() -> None:
    assert f"| `evidence` | {FEWEST_LABELS} labels or more" in TEXT


def test_the_example_runs(tmp_path: Path) -> None:
    line = next(x for x in TEXT.splitlines() if x.startswith("locavore calibrate "))
    prompts = tmp_path / "prompts.jsonl"
    given = [{"prompt": f"p {k}", "verdicts": {"local": 1, "cloud": 1}} for k in range(60)]
    prompts.write_text("\n".join(map(json.dumps, given)))
    words = shlex.split(line.replace("prompts.jsonl", str(prompts)))[1:]
    result = CliRunner().invoke(main, [*words, "--home", str(tmp_path)])
    assert result.exit_code in (0, 1), result.output
    assert "60 judged, 0 not judged" in result.output
