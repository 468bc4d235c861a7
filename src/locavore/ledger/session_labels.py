"""Labels of sessions in small append-only files that all workers share.

One file per labelled session, named by a hash: a line per label, and a line `-` where the session
was reset. Appending a line is one `write`, so a `kill -9` right after it loses nothing, and workers
need no lock. A worker rereads a file only when its size has changed.
"""

import hashlib
import os
from pathlib import Path

from locavore.core.errors import StoreError

NONE: frozenset[str] = frozenset()
RESET = "-"
KEPT = 4096
"""Sessions remembered per worker."""


class FileSessionLabels:
    """`privacy.sessions.SessionLabels` over a directory."""

    def __init__(self, directory: Path) -> None:
        """The directory is made at the first label, readable by its owner only."""
        self._directory = directory
        self._kept: dict[str, tuple[int, frozenset[str]]] = {}
        """session -> (bytes read, labels)"""

    def get(self, session: str) -> frozenset[str]:
        """Labels of a session; raises StoreError when they cannot be read."""
        path = self._path(session)
        try:
            size = os.stat(path).st_size  # noqa: PTH116 - per call; a Path costs more than the stat
        except FileNotFoundError:
            return NONE
        except OSError as error:
            raise _failed("read", path, error) from error
        kept = self._kept.get(session)
        if kept is not None and kept[0] == size:
            return kept[1]
        return self._read(session, path)

    def add(self, session: str, labels: frozenset[str]) -> None:
        """Durable against a crash of any process once it returned."""
        missing = labels - self.get(session)
        if missing:
            self._append(session, sorted(missing))

    def reset(self, session: str) -> None:
        """Forget the labels of a session."""
        if self.get(session):
            self._append(session, [RESET])

    def _path(self, session: str) -> str:
        name = hashlib.blake2b(session.encode(), digest_size=16).hexdigest()
        return f"{self._directory}/{name}"

    def _read(self, session: str, path: str) -> frozenset[str]:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise _failed("read", path, error) from error
        lines = data.decode().splitlines()
        if RESET in lines:
            lines = lines[len(lines) - lines[::-1].index(RESET) :]
        labels = frozenset(lines)
        if len(self._kept) >= KEPT:
            self._kept.clear()
        self._kept[session] = (len(data), labels)
        return labels

    def _append(self, session: str, lines: list[str]) -> None:
        path = self._path(session)
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                written = os.write(file, data)
            finally:
                os.close(file)
        except OSError as error:
            raise _failed("write", path, error) from error
        if written != len(data):
            raise StoreError(f"{path}: only {written} of {len(data)} bytes were written: disk full")


def _failed(verb: str, path: str, error: OSError) -> StoreError:
    return StoreError(f"cannot {verb} the labels of a session at {path}: {error.strerror}")
