"""`python -m locavore` and the `locavore` script."""

import os
import sys

from locavore.core.errors import ConfigError, LocavoreError


def main() -> int:
    """Run the command line; turn our errors into one readable message and an exit code."""
    from locavore.cli import main as cli  # click costs 40 ms that importing the package must not

    try:
        cli(prog_name="locavore")
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"error: {problem}\n")
        return 2
    except LocavoreError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    except BrokenPipeError:  # `| head` closed the pipe: not an error worth a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
