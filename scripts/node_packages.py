"""Install the Node SDKs that `tests/clients` drives, from their lock file, into an ignored folder.

Without Node 20 or npm nothing is installed, and those tests say why they are skipped.
"""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "clients" / "node"
NODE_MAJOR = 20


def missing() -> str | None:
    """Why the packages cannot be installed; None: they can."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return "node and npm are not installed"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    major = int(version.stdout.strip().lstrip("v").partition(".")[0])
    return None if major >= NODE_MAJOR else f"node is {version.stdout.strip()}, not {NODE_MAJOR}"


def install() -> int:
    """Exit status. Scripts of packages are not run; every package is checked by its hash."""
    reason = missing()
    if reason is not None:
        sys.stdout.write(f"Node client tests will be skipped: {reason}\n")
        return 0
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    return subprocess.run(["npm", "ci", *options], cwd=FOLDER, check=False).returncode  # noqa: S603, S607


if __name__ == "__main__":
    sys.exit(install())
