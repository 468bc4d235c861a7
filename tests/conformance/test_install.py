"""What installing and importing does: nothing that was not asked for (C106)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WATCH = r'''
import importlib, json, os, pkgutil, sys
import locavore

HOME = os.path.dirname(locavore.__file__)
FORBIDDEN = {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname",
             "subprocess.Popen", "os.system", "os.fork", "os.posix_spawn", "os.exec"}
seen, reading = [], False

THROUGH = ("os.py", "_collections_abc.py", "pathlib.py", "io.py", "codecs.py")

def ours():
    """Our line that asked for this; None when somebody else's code did."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_code.co_filename.endswith((*THROUGH, "(os)", "_abc>", "os>")):
        frame = frame.f_back
    name = frame.f_code.co_filename
    return f"{name[len(HOME) + 1:]}:{frame.f_lineno}" if name.startswith(HOME) else None

def audit(event, arguments):
    if event in FORBIDDEN:
        seen.append([event, str(arguments[0])])
    elif event == "open" and (where := ours()):
        seen.append(["open", f"{arguments[0]} at {where}"])

class Environment(type(os.environ)):
    def __getitem__(self, name):
        if where := ours():
            seen.append(["environment", f"{name} at {where}"])
        return super().__getitem__(name)

os.environ.__class__ = Environment
sys.addaudithook(audit)
modules = ["locavore", *(m.name for m in pkgutil.walk_packages([HOME], "locavore."))]
for name in modules:
    importlib.import_module(name)
print(json.dumps({"modules": modules, "seen": seen}))
'''


def test_c106_importing_every_module_does_nothing_but_import() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WATCH],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"]},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["modules"]) > 100
    assert found["seen"] == []


@pytest.mark.parametrize("statement", ["open('/dev/null').close()", "os.environ.get('HOME')"])
def test_c106_the_watch_sees_what_it_forbids(tmp_path: Path, statement: str) -> None:
    """A module of ours that does it at import would be told."""
    package = tmp_path / "locavore"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "guilty.py").write_text(f"import os\n{statement}\n")
    done = subprocess.run(
        [sys.executable, "-c", WATCH],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
        check=True,
    )
    ((_, told),) = json.loads(done.stdout)["seen"]
    assert "guilty.py:2" in told


LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_c106_every_requirement_is_pinned_by_hash_and_names_no_registry(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert not re.search(r"https?://|--(index|extra|find|trusted)|file:|(^|\s)\.{0,2}/\w", text)
    lines = [
        s for s in text.replace("\\\n", " ").splitlines() if s and not s.lstrip().startswith("#")
    ]
    assert len(lines) > 10
    for line in lines:
        name, _, hashes = line.partition(" ")
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,_-]+\])?==[\w.+!]+", name), line
        assert "--hash=sha256:" in hashes, name


def test_c106_the_node_packages_are_pinned_by_hash_and_name_no_registry() -> None:
    lock = ROOT / "tests" / "clients" / "node" / "package-lock.json"
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    packages = json.loads(text)["packages"]
    assert len(packages) > 6
    for name, package in packages.items():
        if name:  # the first entry is the folder itself
            assert package["integrity"].startswith("sha512-"), name
            assert not package.get("hasInstallScript"), name
