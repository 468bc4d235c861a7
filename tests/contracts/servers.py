"""Real servers for the contract tests, each in its own folder, on a Unix socket, killable."""

import contextlib
import os
import pwd
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def valkey_binary() -> str | None:
    return shutil.which("valkey-server") or shutil.which("redis-server")


def postgres_bin() -> Path | None:
    found = shutil.which("postgres")
    return Path(found).parent if found else next(iter(POSTGRES), None)


class Valkey:
    """A server without persistence."""

    def __init__(self, folder: Path) -> None:
        binary = valkey_binary()
        assert binary
        self.socket = folder / "valkey.sock"
        self.url = f"unix://{self.socket}"
        self.process = subprocess.Popen(
            [binary, "--port", "0", "--unixsocket", str(self.socket), "--save", "",
             "--appendonly", "no", "--dir", str(folder), "--daemonize", "no"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout
        for line in self.process.stdout:
            if b"ready to accept connections" in line:
                break

    def kill(self) -> None:
        """Safe to call twice."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@contextlib.contextmanager
def valkey() -> Iterator[Valkey]:
    folder = Path(tempfile.mkdtemp(prefix="valkey"))  # socket paths must be short
    server = Valkey(folder)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)


class Postgres:
    """A cluster of its own, reached over a Unix socket without a password."""

    def __init__(self, folder: Path, bin_dir: Path) -> None:
        self.folder = folder
        self._bin = bin_dir
        # postgres refuses to run as root, as which containers like to run tests
        self.user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        self.url = f"postgresql:///postgres?host={folder}&user={self.user}"
        self.socket = folder / ".s.PGSQL.5432"
        subprocess.run(
            [bin_dir / "initdb", "-D", folder / "data", "-A", "trust", "-N", "-E", "UTF8"],
            check=True, stdout=subprocess.DEVNULL, user=self._run_as,
        )  # fmt: skip
        self.process = self.start()

    @property
    def _run_as(self) -> str | None:
        return self.user if os.getuid() == 0 else None

    def start(self, *, largest_file_bytes: int | None = None) -> "subprocess.Popen[bytes]":
        """`largest_file_bytes`: a file that would grow beyond is refused, as on a full disk."""

        def limited() -> None:
            if largest_file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes,) * 2)

        process = subprocess.Popen(
            [self._bin / "postgres", "-D", self.folder / "data", "-k", self.folder,
             "-c", "listen_addresses=", "-c", "fsync=off"],
            stderr=subprocess.PIPE, user=self._run_as, preexec_fn=limited,
        )  # fmt: skip
        assert process.stderr
        for line in process.stderr:
            if b"ready to accept connections" in line:
                break
        self.process = process
        return process

    def stop(self) -> None:
        """In order, but without waiting for its clients."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate()

    def kill(self) -> None:
        """As a crash; its children go when they notice."""
        self.process.kill()
        self.process.communicate()
        pid = self.folder / "data" / "postmaster.pid"
        pid.unlink(missing_ok=True)


@contextlib.contextmanager
def postgres(bin_dir: Path) -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = Postgres(folder, bin_dir)
    try:
        yield server
    finally:
        server.stop()
        for _ in range(50):
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
                break
            time.sleep(0.02)
