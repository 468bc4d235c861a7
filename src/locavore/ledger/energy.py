"""Energy meters of this machine: GPUs by NVML, processors by RAPL. Counters, so that a missed
reading loses nothing."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from locavore.ledger.database import Database
from locavore.ledger.sqlite import transaction

RAPL = Path("/sys/class/powercap")


class Interval(NamedTuple):
    """Energy used between two readings, of all meters together."""

    start_s: float
    end_s: float
    joules: float


Reader = Callable[[], dict[str, int]]


def read_meters(rapl: Path = RAPL) -> dict[str, int]:
    """Meter -> joules so far; empty where nothing can be measured."""
    return {**_read_rapl(rapl), **_read_nvml()}


def kinds(readings: dict[str, int]) -> str:
    """`nvml+rapl`: what measures here; empty: nothing does."""
    return "+".join(sorted({meter.partition(":")[0] for meter in readings}))


def _read_rapl(root: Path) -> dict[str, int]:
    """Whole packages only (`intel-rapl:0`): the domains below them are parts of them."""
    found = {}
    for zone in sorted(root.glob("intel-rapl:[0-9]*")):
        if zone.name.count(":") == 1:
            try:
                found[f"rapl:{zone.name}"] = int((zone / "energy_uj").read_text()) // 10**6
            except (OSError, ValueError):  # readable by root only on most systems
                continue
    return found


def _read_nvml() -> dict[str, int]:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - no driver, no library: there is no such meter
        return {}
    try:
        devices = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
        return dict(_energies(pynvml, devices))
    finally:
        pynvml.nvmlShutdown()


def _energies(nvml: Any, devices: list[Any]) -> Iterator[tuple[str, int]]:
    for device in devices:
        try:
            millijoules = nvml.nvmlDeviceGetTotalEnergyConsumption(device)
            yield f"nvml:{nvml.nvmlDeviceGetUUID(device)}", int(millijoules) // 1000
        except nvml.NVMLError:  # older than Volta: no counter
            continue


def record(db: Database, readings: dict[str, int], *, now_s: float) -> None:
    """Keep one reading of each meter."""
    if not readings:
        return
    rows = [(meter, int(now_s * 1000), joules) for meter, joules in readings.items()]
    with transaction(db):
        db.executemany("INSERT INTO energy VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)


def measured(db: Database, *, since_s: float, until_s: float) -> list[Interval]:
    """What was used between the readings of a window, in order of time.

    A counter that went backwards (driver reload, overflow) leaves a gap, not a negative use.
    """
    rows = db.execute(
        "SELECT meter, at_ms, joules FROM energy WHERE at_ms >= ? AND at_ms <= ?"
        " ORDER BY meter, at_ms",
        (int(since_s * 1000), int(until_s * 1000)),
    ).fetchall()
    moments = sorted({at_ms for _, at_ms, _ in rows})
    used: dict[int, float] = {}
    for (meter, begin, before), (same, end, after) in pairwise(rows):
        if meter == same and after >= before:
            # A meter that missed a reading is spread evenly over the ones that others had.
            for n in range(bisect_left(moments, begin), bisect_left(moments, end)):
                part = (moments[n + 1] - moments[n]) / (end - begin)
                used[n] = used.get(n, 0.0) + (after - before) * part
    return [
        Interval(moments[n] / 1000, moments[n + 1] / 1000, joules)
        for n, joules in sorted(used.items())
    ]
