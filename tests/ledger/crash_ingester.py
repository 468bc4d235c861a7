"""A process to be killed: ingests without end, in small transactions."""

import os
import sys
from pathlib import Path

from locavore.ledger.ingest import Ingester


def main(home: str) -> None:
    ingester = Ingester(Path(home), batch=7)
    os.write(1, b"up\n")
    while True:
        ingester.run_once()


if __name__ == "__main__":
    main(*sys.argv[1:])
