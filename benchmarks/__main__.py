"""`python -m benchmarks NAME ...` runs one benchmark; without a name it lists them."""

import runpy
import sys
from pathlib import Path


def names() -> list[str]:
    """Folders that can be run."""
    return sorted(entry.parent.name for entry in Path(__file__).parent.glob("*/__main__.py"))


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in names():
        print(f"usage: python -m benchmarks {{{','.join(names())}}} [options]", file=sys.stderr)
        return 2
    module = f"benchmarks.{sys.argv.pop(1)}"
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
