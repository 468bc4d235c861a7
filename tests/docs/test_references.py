"""docs/reference/http.md, cli.md, testing.md and the operator's list of metrics are the code."""

import re
import runpy
from pathlib import Path
from typing import Any

import msgspec

from locavore import testing
from locavore.core.decision import Decision
from locavore.gateway.app import Admin
from locavore.gateway.routes import FORMAT_BY_PATH
from locavore.testing import ScriptedUpstream, replies
from tests.docs.examples import ROOT, World

CLI = runpy.run_path(str(ROOT / "scripts" / "cli_reference.py"))
HTTP = (ROOT / "docs" / "reference" / "http.md").read_text("utf-8")
OPERATE = (ROOT / "docs" / "howto" / "operate.md").read_text("utf-8")
TESTING = (ROOT / "docs" / "reference" / "testing.md").read_text("utf-8")


def test_the_command_line_page_is_up_to_date() -> None:
    assert CLI["PAGE"].read_text("utf-8") == CLI["page"](), "run: python scripts/generated_pages.py"


def test_every_hot_route_is_in_the_table() -> None:
    told = dict(re.findall(r"^\| `POST (\S+)` \| `(\w+)` \|", HTTP, re.MULTILINE))
    assert told == {path.decode(): name for path, name in FORMAT_BY_PATH.items()}


def test_every_other_route_is_in_the_page_with_its_guard() -> None:
    nothing: Any = None  # the routes are only listed
    stores = {"key_store": nothing, "verdict_store": nothing}
    app = Admin(nothing, nothing, find=nothing, exposition=nothing, home=nothing, **stores).app()
    for route in app.routes:
        path = re.sub(r":path", "", route.path)  # type: ignore[attr-defined]
        assert f"`{path}`" in HTTP or f" {path}`" in HTTP, path
        guarded = route.endpoint.__name__ == "guarded"  # type: ignore[attr-defined]
        row = re.search(rf"^\| `\w+ {re.escape(path)}` \| (yes|no) \|", HTTP, re.MULTILINE)
        if row:
            assert (row[1] == "yes") is guarded, path


def sources(*names: str) -> str:
    src = ROOT / "src" / "locavore"
    return "".join((src / name).read_text("utf-8") for name in names)


def test_every_header_of_ours_is_in_the_page() -> None:
    serving = [f"serving/{name}.py" for name in ("replying", "client_reply", "cascaded")]
    code = sources(*serving, "gateway/routes.py", "gateway/app.py")
    used = set(re.findall(r"x-locavore-[a-z-]*[a-z]", code))
    assert used == set(re.findall(r"`(x-locavore-[a-z-]+)`", HTTP))


def test_the_fields_of_a_decision_are_in_the_page() -> None:
    part = HTTP.split("## `POST /v1/route`")[1].split("\n## ")[0]
    told = set(re.findall(r"`(\w+)`", part))
    assert {f.name for f in msgspec.structs.fields(Decision)} <= told


def test_every_metric_is_in_the_operators_table(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        world = World(
            tmp_path / "home",
            upstream,
            '[[backend]]\nid = "a/b"\nurl = "http://127.0.0.1:8000/v1"\n',
        )
        with world.gateway:
            text = world.shell("curl -sS http://127.0.0.1:4000/metrics")
    served = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    assert served == set(re.findall(r"^\| `((?:locavore|gen_ai)_\w+)`", OPERATE, re.MULTILINE))


def test_what_the_testing_page_names_is_there() -> None:
    for name in re.findall(r"`replies\.(\w+)", TESTING):
        assert hasattr(replies, name), name
    for name in ("Chunk", "Hold", "Close", "Reset", "Reply", "ScriptedUpstream"):
        assert f"`{name}" in TESTING
        assert hasattr(testing, name)
