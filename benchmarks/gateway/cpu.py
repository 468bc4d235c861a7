"""CPU time and memory of a process tree, from /proc."""

from pathlib import Path

PROC = Path("/proc")


def tree(pid: int) -> list[int]:
    """The process and all its descendants that are alive."""
    found, todo = [], [pid]
    while todo:
        current = todo.pop()
        found.append(current)
        for task in _tasks(current):
            try:
                todo += map(int, (task / "children").read_text().split())
            except OSError:
                continue
    return found


def cpu_ns(pid: int) -> int:
    """Nanoseconds on a CPU of every thread in the tree (the scheduler's own count)."""
    total = 0
    for member in tree(pid):
        for task in _tasks(member):
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:
                continue
    return total


def rss_mb(pid: int) -> dict[int, float]:
    """Resident memory of each process of the tree, in MB (10^6 bytes)."""
    sizes = {}
    for member in tree(pid):
        try:
            for line in (PROC / str(member) / "status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    sizes[member] = int(line.split()[1]) * 1024 / 1e6
        except OSError:
            continue
    return sizes


def _tasks(pid: int) -> list[Path]:
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return []
