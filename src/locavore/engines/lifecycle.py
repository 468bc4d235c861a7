"""Child processes that must not outlive us: pid files, orphans, environment, socket paths."""

import contextlib
import hashlib
import os
import signal
import tempfile
import time
from pathlib import Path

import msgspec
import psutil

# Everything else, keys above all, stays out of the engine's environment.
_PASSED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_PASSED_PREFIXES = ("LC_", "OMP_", "GOMP_", "KMP_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "ROCM_")
_SUN_PATH = 100  # bytes; the kernel's limit is 108 on Linux and 104 on macOS


class PidFile(msgspec.Struct, frozen=True, kw_only=True):
    """A child and the parent it belongs to; start times tell a reused pid from the process."""

    pid: int
    started: float
    parent_pid: int
    parent_started: float


def run_folder(home: Path) -> Path:
    """`home/run`, made with mode 0700."""
    folder = home / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def socket_path(folder: Path, name: str) -> Path:
    """`folder/name.sock`, or a short private path when that is too long for a Unix socket."""
    path = folder / f"{name}.sock"
    if len(os.fsencode(path)) <= _SUN_PATH:
        return path
    short = Path(tempfile.gettempdir()) / f"locavore-{os.getuid()}"
    short.mkdir(mode=0o700, exist_ok=True)
    if short.is_symlink() or short.stat().st_uid != os.getuid():
        raise PermissionError(f"{short} belongs to somebody else; set TMPDIR or a shorter home")
    short.chmod(0o700)
    return short / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:24]}.sock"


def child_environment() -> dict[str, str]:
    """What an engine process may see."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED or name.startswith(_PASSED_PREFIXES)
    }
    # On abort llama.cpp would otherwise start a debugger on itself and print its memory.
    return kept | {"GGML_NO_BACKTRACE": "1"}


def write_pid_file(path: Path, pid: int) -> None:
    """Note that `pid` is our child."""
    record = PidFile(
        pid=pid,
        started=_started(pid) or 0.0,
        parent_pid=os.getpid(),
        parent_started=_started(os.getpid()) or 0.0,
    )
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(record))


def reap_orphans(folder: Path) -> list[int]:
    """Kill children whose parent is gone, as after `kill -9` of the gateway; returns their pids.

    Children of a living parent are another gateway's on the same home and are left alone.
    """
    reaped = []
    for path in folder.glob("*.pid"):
        try:
            record = msgspec.json.decode(path.read_bytes(), type=PidFile)
        except (OSError, msgspec.MsgspecError):
            path.unlink(missing_ok=True)
            continue
        if _alive(record.parent_pid, record.parent_started):
            continue
        if _alive(record.pid, record.started):
            _kill(record.pid)
            reaped.append(record.pid)
        path.unlink(missing_ok=True)
    return reaped


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, psutil.Error):
        os.kill(pid, signal.SIGKILL)
        psutil.Process(pid).wait(timeout=5)


def _alive(pid: int, started: float) -> bool:
    now = _started(pid)
    # The clock the kernel counts from can be adjusted by a little between two readings.
    return now is not None and abs(now - started) < 2.0


def _started(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.Error:
        return None


class Backoff:
    """Delays between restarts of something that keeps dying."""

    def __init__(self, first_s: float = 0.5, most_s: float = 60.0, calm_s: float = 60.0) -> None:
        self._first_s, self._most_s, self._calm_s = first_s, most_s, calm_s
        self.failures = 0
        self._began = time.monotonic()

    def started(self) -> None:
        """The thing runs again."""
        self._began = time.monotonic()

    def died(self) -> float:
        """Seconds to wait now: doubles with each death, starts afresh after a calm run."""
        if time.monotonic() - self._began >= self._calm_s:
            self.failures = 0
        self.failures += 1
        return float(min(self._most_s, self._first_s * 2 ** min(self.failures - 1, 20)))
