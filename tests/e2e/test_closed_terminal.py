"""A gateway whose terminal was closed still does what it is told."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.e2e.serving import QUIET, environment, eventually


def test_sigterm_ends_a_gateway_whose_messages_nobody_can_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(QUIET)
    out, (reads, writes) = tmp_path / "out", os.pipe()
    with out.open("wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-m", "locavore", "serve", "--port=0", "--workers=1"],
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=writes, env=environment(tmp_path),
        )  # fmt: skip
    try:
        os.close(writes)
        eventually(lambda: b"Locavore serves on " in out.read_bytes(), "the gateway serves")
        os.close(reads)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.kill()
        process.wait()
