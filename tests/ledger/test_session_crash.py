"""A label that was taken on outlives the worker that took it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from locavore.ledger.session_labels import FileSessionLabels

WRITER = """
import os, signal, sys
from pathlib import Path
from locavore.ledger.session_labels import FileSessionLabels
FileSessionLabels(Path(sys.argv[1])).add("s", frozenset({"health", "secret"}))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_c92_labels_survive_kill_9(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)], env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert FileSessionLabels(tmp_path).get("s") == {"health", "secret"}
