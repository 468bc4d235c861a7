"""A process to be killed: appends calls without end and says which append has returned."""

import itertools
import os
import sys
from pathlib import Path

from locavore.ledger.journal import SegmentJournal
from tests.ledger.records import call


def main(home: str, name: str) -> None:
    journal = SegmentJournal(Path(home), segment_bytes=64 << 10)
    for n in itertools.count():
        journal.append(call(f"{name}-{n}"))
        os.write(1, b"%d\n" % n)


if __name__ == "__main__":
    main(*sys.argv[1:])
