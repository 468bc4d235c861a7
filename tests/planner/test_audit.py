"""The audit: checks over structured claims, and the five documents they were written for."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from locavore.cli.audit import command
from locavore.core.errors import RequestError
from locavore.planner import audit, claims

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "tests/data/seed_tables"
DOC = ROOT / "docs/explain/audit.md"
_FIGURE = re.compile(r"\d[\d,]*\.?\d*")

# Rows that state quoted measurements or plain inputs and derive nothing from them.
UNDERIVED = {
    ("000-t01", 2),
    ("001-t01", 5),
    ("001-t09", 0),
    ("001-t09", 1),
    ("001-t09", 8),
    ("001-t15", 6),
    ("001-t18", 4),
    ("001-t31", 4),
    ("001-t35", 0),
    ("001-t35", 1),
    ("001-t35", 2),
    ("001-t35", 3),
    ("001-t39", 1),
    ("001-t39", 5),
    ("001-t39", 6),
    ("001-t39", 9),
    ("001-t40", 1),
    ("001-t40", 5),
    ("002-t02", 3),
    ("002-t04", 0),
    *(("002-t05", row) for row in (0, 1, 5, 6, 7, 8, 11)),
    ("003-t02", 0),
    ("003-t02", 1),
    ("003-t02", 2),
    ("003-t06", 0),
    ("003-t07", 1),
    ("004-t03", 2),
    ("004-t03", 3),
    ("004-t03", 10),
}


def one(**fields: object) -> audit.Verdict:
    """The verdict of a claim file with one claim."""
    lines = [f"{key} = {_toml(value)}" for key, value in fields.items()]
    return audit.verdict(claims.parse("[[claim]]\n" + "\n".join(lines))[0])


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


@pytest.mark.parametrize(
    ("stated", "verdict"),
    [
        ("35945 USD/month", "holds"),
        ("36000 USD/month", "holds"),
        ("40000 USD/month", "approximate"),
        ("362000 USD/month", "wrong"),
        ("1182 USD/day", "holds"),
        ("35900 USD/day", "wrong"),
    ],
)
def test_period_of_an_hourly_price(stated: str, verdict: str) -> None:
    found = one(text="rent", formula="rent", stated=stated, let={"rent": "49.24 USD/hour"})
    assert found.verdict == verdict


def test_a_slip_of_period_is_named() -> None:
    found = one(text="rent", formula="rent", stated="35945 USD/day", let={"rent": "49.24 USD/hour"})
    assert "a month against a day" in found.comment


@pytest.mark.parametrize(
    ("speed", "verdict"), [("30", "holds"), ("41", "approximate"), ("60", "wrong")]
)
def test_bandwidth_roof(speed: str, verdict: str) -> None:
    found = one(
        text="decode",
        check="roof",
        formula="bandwidth / size * per",
        stated=f"{speed} tok/s",
        let={"bandwidth": "1792 GB/s", "size": "42.8 GB", "per": "1 tok"},
    )
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("room", "verdict"),
    [("48 GiB", "holds"), ("44 GB", "approximate"), ("43 GB", "wrong"), ("24 GB", "wrong")],
)
def test_capacity(room: str, verdict: str) -> None:
    found = one(
        text="fits", check="fits", need="need", have="room", let={"need": "42.8 GB", "room": room}
    )
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("stated", "verdict"),
    [
        ("10-60 x", "approximate"),  # overlaps
        ("200-400 x", "wrong"),
        ("6-150 x", "holds"),
    ],
)
def test_ranges(stated: str, verdict: str) -> None:
    inputs = {"cloud": "500-3000 ms", "local": "20-80 ms"}
    assert one(text="faster", formula="cloud / local", stated=stated, let=inputs).verdict == verdict


@pytest.mark.parametrize(
    ("stated", "verdict"), [("50 %", "holds"), ("54 %", "approximate"), ("60 %", "wrong")]
)
def test_percentages_count_points(stated: str, verdict: str) -> None:
    assert one(text="share", formula="1 / 2", stated=stated).verdict == verdict


def test_rounding_as_written_is_accepted() -> None:
    assert one(text="share", formula="2.2 / 34", stated="0.06 x").verdict == "holds"


def test_a_wrong_premise_makes_a_sound_product_approximate() -> None:
    parts = [
        {"formula": "gap", "stated": "564000 USD/year"},
        {"formula": "gap", "stated": "90000 USD/month", "premise": True},
    ]
    text = "[[claim]]\ntext = 'gap'\nlet = { gap = '47000 USD/month' }\nparts = "
    text += "[" + ", ".join(_toml(part) for part in parts) + "]"
    assert audit.verdict(claims.parse(text)[0]).verdict == "approximate"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"formula": "a", "stated": "5 parsec", "let": {"a": "5 GB"}}, "'parsec'"),
        ({"formula": "a + b", "stated": "5 GB", "let": {"a": "5 GB", "b": "1 W"}}, "units differ"),
        ({"formula": "a", "stated": "5 W", "let": {"a": "5 GB"}}, "units differ"),
        ({"formula": "a / b", "stated": "1 GB", "let": {"a": "5 GB", "b": "0 x"}}, "zero"),
        ({"formula": "unknown", "stated": "1 GB"}, "'unknown'"),
        ({"formula": "__import__('os')", "stated": "1 GB"}, "inputs only"),
        ({"formula": "a", "stated": "9-3 GB", "let": {"a": "5 GB"}}, "backwards"),
    ],
)
def test_bad_claims_name_the_value(fields: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        one(text="bad", **fields)


@pytest.mark.parametrize("text", ["not toml", "[[claim]]\n", "[[claim]]\ntext = 'x'\nfoo = 1\n"])
def test_bad_files_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        claims.parse(text)


# --- the five documents ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def documents() -> list[audit.Verdict]:
    return audit.audit(claims.documents())


def test_every_table_row_is_reproduced_or_flagged() -> None:
    figures: dict[str, set[float]] = {}
    for claim in claims.documents():
        for table in claim.table.split(","):
            found = _figures(json.dumps(msgspec.to_builtins(claim)))
            figures.setdefault(f"{claim.seed}-{table}", set()).update(found)
    missing = []
    for path in sorted(TABLES.glob("0*.json")):
        table = json.loads(path.read_text())
        key = "-".join(table["id"].split("-")[:2])
        for number, row in enumerate(table["rows"]):
            stated = _figures(" ".join(str(v) for v in row.values() if v is not None))
            if stated and not stated & figures.get(key, set()):
                missing.append((key, number))
    assert set(missing) <= UNDERIVED


def test_every_table_has_claims() -> None:
    covered = {f"{c.seed}-{t}" for c in claims.documents() for t in c.table.split(",")}
    tables = {"-".join(p.stem.split("-")[:2]) for p in TABLES.glob("0*.json")}
    assert tables <= covered


def test_verdicts_agree_with_the_published_audit(documents: list[audit.Verdict]) -> None:
    ours = {(v.seed, v.table, v.claim): v.verdict for v in documents}
    theirs = json.loads((TABLES / "audit.json").read_text())
    differ = [
        a["id"] for a in theirs if ours.get((a["seed"], a["table"], a["claim"])) != a["verdict"]
    ]
    assert differ == []


def test_no_verdict_is_stored_in_the_claims() -> None:
    folder = ROOT / "src/locavore/planner/data/claims"
    text = "".join(path.read_text() for path in folder.glob("*.toml"))
    assert not re.search(r'=\s*"(holds|approximate|wrong|note)"', text)


def _figures(text: str) -> set[float]:
    return {float(x.replace(",", "").rstrip(".")) for x in _FIGURE.findall(text)}


# --- the command ----------------------------------------------------------------------------


def test_the_documented_example_runs_as_shown(tmp_path: Path) -> None:
    page = DOC.read_text()
    toml = re.search(r"```toml\n(.*?)```", page, re.S)
    shown = re.search(r"\$ locavore audit claims.toml\n(.*?)```", page, re.S)
    assert toml
    assert shown
    path = tmp_path / "claims.toml"
    path.write_text(toml[1])
    result = CliRunner().invoke(command, [str(path)])
    assert result.output == shown[1]


def test_json_has_the_agreed_fields() -> None:
    result = CliRunner().invoke(command, ["--documents", "--json"])
    rows = json.loads(result.output)
    assert {"seed", "table", "claim", "formula", "recomputed", "verdict"} <= set(rows[0])
    assert {row["verdict"] for row in rows} <= set(audit.VERDICTS)


def test_strict_exits_with_one_for_a_wrong_claim(tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    path.write_text('[[claim]]\ntext = "x"\nformula = "1 + 1"\nstated = "3 x"\n')
    assert CliRunner().invoke(command, [str(path), "--strict"]).exit_code == 1
    assert CliRunner().invoke(command, [str(path)]).exit_code == 0


def test_a_missing_file_is_named() -> None:
    result = CliRunner().invoke(command, ["absent.toml"])
    assert isinstance(result.exception, RequestError)
    assert "'absent.toml'" in result.exception.message
