"""`locavore verdicts`, and what `report` says of achieved quality."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from locavore.cli import main
from locavore.core.decision import Explored
from locavore.ledger import kept_answers
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.kept_answers import KeptAnswer
from locavore.routing.estimators.promised import FOLDER, Entry, save
from locavore.routing.promise import Promise, Target
from tests.ledger.records import attempt, call, decision

CLOUD: dict[str, Any] = {"backend": "cloud/big", "provider": "cloud", "model": "big"}
ENTRY = Entry(
    local="home/small",
    cloud="cloud/big",
    pre=Promise(
        target=Target(quality=0.9),
        basis="evidence",
        labels=300,
        threshold=0.0,
        share=0.6,
        quality=0.97,
        lower=0.92,
    ),
    local_quality=0.8,
    cloud_quality=0.9,
    made_s=1.0,
)


def run(home: Path, *arguments: str, **more: Any) -> Result:
    return CliRunner().invoke(main, [*arguments, "--home", str(home)], **more)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """80 explored calls under a promise; even ones were kept at home."""
    save(tmp_path / FOLDER, ENTRY)
    journal = SegmentJournal(tmp_path)
    pair = Explored(local="home/small", cloud="cloud/big", promise=ENTRY.id)
    for k in range(80):
        made = decision(f"d{k:02d}", explored=pair, propensity=0.1)
        served, other = (attempt(), attempt(**CLOUD))[:: 1 if k % 2 == 0 else -1]
        journal.append(call(f"d{k:02d}", served, decision=made))
        compared = {"form_served": 1.0, "form_shadow": 1.0, "agrees": k % 4 != 0}
        child = decision(f"d{k:02d}.shadow")
        extra = {"shadow": compared}
        journal.append(
            call(f"d{k:02d}.shadow", other, decision=child, parent_id=f"d{k:02d}", extra=extra)
        )
    journal.close()
    return tmp_path


def verdicts(home: Path, lines: list[Any], *more: str) -> Result:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return run(home, "verdicts", "import", "-", *more, input=text)


def whole(k: int, *, lost: bool = False) -> dict[str, Any]:
    line = {"id": f"d{k:02d}", "served": 0 if lost else 1}
    return line | ({"shadow": 1} if k % 2 == 0 else {})


def test_what_waits_for_a_verdict_is_listed_until_it_has_one(home: Path) -> None:
    text = run(home, "verdicts", "pending").stdout.splitlines()
    assert len(text) == 80
    assert text[0].startswith("d00  chat  served by home/small, also cloud/big: judge served and")
    assert text[1].endswith("served by cloud/big, also home/small: judge served")
    verdicts(home, [{"id": "d00", "served": 1}, {"id": "d01", "served": 1}])
    waiting = json.loads(run(home, "verdicts", "pending", "--json").stdout)
    assert len(waiting) == 79
    assert (waiting[0]["id"], waiting[0]["served"], waiting[0]["answer_kept"]) == ("d00", 1, False)
    verdicts(home, [whole(k) for k in range(80)])
    assert "Nothing waits" in run(home, "verdicts", "pending").stdout


def test_good_lines_are_taken_and_bad_ones_told_with_their_number(home: Path) -> None:
    kept = KeptAnswer(id="d02", backend="cloud/big", text="x", until_s=2**40)
    kept_answers.save(home, kept)
    lines = [
        whole(2),
        "",
        {"id": "nobody", "served": 1},
        {"id": "d04", "served": 3},
        {"id": "d04", "scored": 1},
        "not json",
        whole(2),
        {"id": "d02", "served": 0},
    ]
    done = verdicts(home, lines)
    assert done.exit_code == 1
    assert "2 verdicts taken, 5 lines refused" in done.stdout
    told = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in told] == [f"line {n}" for n in (3, 4, 5, 6, 8)]
    assert "no call 'nobody'" in told[0]
    assert "served 3.0: give a score between 0 and 1" in told[1]
    assert "judged 1.0 before and is 0.0 now" in told[4]
    assert kept_answers.find(home, "d02") is None, "judged, so its text has gone"
    assert json.loads(verdicts(home, [whole(6)], "--json").stdout) == {"taken": 1, "refused": []}


def test_without_verdicts_the_report_says_what_is_missing(home: Path) -> None:
    text = run(home, "report").stdout
    assert (
        "Promised: home/small instead of cloud/big: at least 90.0% of its quality, with 95% "
        "confidence over the draw of 300 labels (basis: evidence); 97.0% in expectation." in text
    )
    assert "No evidence yet: needs about 65 judged calls; 80 calls were explored" in text
    assert "Both models said the same in 75.0%" in text
    assert "that is agreement, not quality" in text
    (line,) = json.loads(run(home, "report", "--json").stdout)["quality"]
    assert (line["quality"], line["missing"], line["explored"], line["kept"]) == (None, 65, 80, 40)
    assert line["form"]["mean"] == 1.0


def test_achieved_quality_stands_beside_the_promise_with_its_interval(home: Path) -> None:
    lost = {0, 10, 20}
    verdicts(home, [whole(k, lost=k in lost) for k in range(80)])
    (line,) = json.loads(run(home, "report", "--json").stdout)["quality"]
    quality = line["quality"]
    assert quality["mean"] == pytest.approx(77 / 80)
    assert quality["low"] < 77 / 80 < quality["high"]
    assert (quality["n"], line["judged"], line["judged_kept"]) == (80, 80, 40)
    assert (line["target"], line["confidence"], line["basis"]) == (0.9, 0.95, "evidence")
    text = run(home, "report").stdout
    assert "Achieved 96.2% (" in text
    assert "from verdicts on 80 of 80 explored calls" in text
    assert 100 < line["missing"] < 1000
    assert f"About {line['missing']:,} more judged calls like these could confirm it." in text


def test_achieved_quality_that_is_not_above_the_promise_is_called_so(home: Path) -> None:
    lost = set(range(0, 80, 4))
    verdicts(home, [whole(k, lost=k in lost) for k in range(80)])
    (line,) = json.loads(run(home, "report", "--json").stdout)["quality"]
    assert line["quality"]["mean"] == pytest.approx(0.75)
    assert line["missing"] == 0
    assert "That is not above the promise" in line["status"]


def test_a_home_without_promises_has_no_part_about_quality(tmp_path: Path) -> None:
    assert "Promised" not in run(tmp_path, "report").stdout
    assert json.loads(run(tmp_path, "report", "--json").stdout)["quality"] == []


def test_a_promise_nobody_can_read_is_named(home: Path) -> None:
    (home / FOLDER / "broken.json").write_text("{")
    done = run(home, "report")
    assert done.exit_code == 1
    assert "broken.json" in done.stderr


@pytest.mark.parametrize(("share", "warns"), [("0.0", True), ("0.02", False)])
def test_doctor_says_when_a_promise_is_not_watched(home: Path, share: str, warns: bool) -> None:
    (home / "config.toml").write_text(f"[explore]\nshare = {share}\n[discover]\nlocal = false\n")
    found = json.loads(run(home, "doctor", "--json").stdout)
    lines = [f for f in found if f["where"] == "promise"]
    assert any("no promise is measured" in f["what"] for f in lines) is warns
    assert any("nothing achieved is known yet" in f["what"] for f in lines)
