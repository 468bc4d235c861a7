"""Make the checkout importable in its own environment without a build step.

Writes a path file (as `pip install -e` does) and the console script, so that a fresh machine
needs no build back end and no network for the product itself.
"""

import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """#!{python}
import sys

from locavore.__main__ import main

sys.exit(main())
"""


def link() -> None:
    purelib = Path(sysconfig.get_path("purelib"))
    (purelib / "locavore-checkout.pth").write_text(f"{ROOT / 'src'}\n", encoding="utf-8")
    script = Path(sys.executable).parent / "locavore"
    script.write_text(SCRIPT.format(python=sys.executable), encoding="utf-8")
    script.chmod(0o755)


if __name__ == "__main__":
    link()
