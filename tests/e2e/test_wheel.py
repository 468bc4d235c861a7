"""The wheel: built offline, installed into a fresh environment, served from."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from locavore import __version__
from locavore.engines.test_model import SENTENCE
from tests.e2e.serving import QUIET, Serving

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the back end itself, which needs no network."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return folder / built.stdout.split()[-1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin/` of an environment that has the wheel, and this one's dependencies without our code."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install"),
            *("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)),
        ],
        timeout=120,
        check=True,
    )
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = home / "lib" / version / "site-packages"
    # A plain path line: unlike a site directory, it does not run the path files in there.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_c106_the_wheel_has_data_and_no_path_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [n for n in names if n.endswith(".pth")] == []
    assert {n.partition("/")[0] for n in names} == {
        "locavore",
        f"locavore-{__version__}.dist-info",
    }
    packed = {n for n in names if n.startswith("locavore/")}
    source = ROOT / "src" / "locavore"
    data = [p for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    missing = {f"locavore/{p.relative_to(source).as_posix()}" for p in data} - packed
    assert missing == set()


def test_the_installed_wheel_tells_its_version_and_where_it_is(installed: Path) -> None:
    where = "import locavore; print(locavore.__file__)"
    env = {"PATH": os.environ["PATH"]}
    found = subprocess.run(
        [installed / "python", "-c", where], capture_output=True, text=True, env=env, check=True
    )
    assert str(installed.parent) in found.stdout
    told = subprocess.run(
        [installed / "locavore", "--version"], capture_output=True, text=True, env=env, check=True
    )
    assert told.stdout.strip() == f"locavore {__version__}"


def test_the_installed_wheel_serves(installed: Path, tmp_path: Path) -> None:
    command = (str(installed / "locavore"),)
    with Serving(tmp_path, QUIET, "--workers=1", command=command) as serving:
        assert serving.chat().text == SENTENCE
        workers = serving.children()["workers"]
        assert all(str(installed) in w.cmdline()[0] for w in workers)
        assert serving.stop() == 0
