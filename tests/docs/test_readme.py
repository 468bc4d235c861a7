"""The README leads to every page, and its tree is the tree."""

import re
from pathlib import Path

import pytest

from tests.docs.examples import ROOT

README = (ROOT / "README.md").read_text("utf-8")
PAGES = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"), ROOT / "README.md"]
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


def test_every_page_is_reached_from_the_readme() -> None:
    pages = [p for p in PAGES if "adr" not in p.parts or p.name == "README.md"]
    wanted = {str(p.relative_to(ROOT)) for p in pages} - {"README.md"}
    assert wanted <= set(LINK.findall(README))


def test_every_decision_record_is_in_their_list() -> None:
    folder = ROOT / "docs" / "adr"
    listed = set(LINK.findall((folder / "README.md").read_text("utf-8")))
    assert {p.name for p in folder.glob("0*.md")} <= listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text("utf-8")), link


def _anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_the_tree_names_every_package_and_nothing_else() -> None:
    tree = README.partition("## The tree")[2].partition("```\n")[2].partition("```")[0]
    told = set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE))
    folders = (ROOT / "src" / "locavore").iterdir()
    assert told == {f.name for f in folders if (f / "__init__.py").exists()}
    above = set(re.findall(r"^(\w+)/ ", tree, re.MULTILINE))
    assert all((ROOT / name).is_dir() for name in above)
