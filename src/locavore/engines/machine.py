"""What this machine can compute with: cores, memory and accelerators, after cgroup limits."""

import contextlib
import os
import platform
from pathlib import Path

import msgspec
import psutil

GIB = 1 << 30
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_DRM = Path("/sys/class/drm")


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One accelerator. Memory figures are the driver's, at the moment of asking."""

    name: str
    memory_bytes: int
    free_bytes: int
    """What is left now, other processes' use taken off."""
    unified: bool = False
    """Shares the machine's memory (Apple, integrated)."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Limits that bind this process, not what the hardware has."""

    cpu: str
    system: str
    """`Linux x86_64`."""
    physical_cores: int
    """Distinct cores this process may run on."""
    logical_cpus: int
    cpu_quota: float | None
    """CPUs' worth of time the cgroup grants; None: unlimited."""
    memory_bytes: int
    available_bytes: int
    """What a new allocation may take before something is pushed out."""
    gpus: tuple[Gpu, ...] = ()

    def line(self) -> str:
        """One line for people."""
        quota = f", quota {self.cpu_quota:g} CPUs" if self.cpu_quota else ""
        cores = f"{self.physical_cores} cores ({self.logical_cpus} threads{quota})"
        free = f"{self.available_bytes / GIB:.1f} of {self.memory_bytes / GIB:.1f} GiB free"
        gpus = "; ".join(f"{gpu.name}, {gpu.memory_bytes / GIB:.0f} GiB" for gpu in self.gpus)
        return f"{self.cpu}, {cores}, {free}, {gpus or 'no GPU'}"


def describe() -> Machine:
    """Measure this machine: a few small files, and the NVIDIA driver where there is one."""
    memory = psutil.virtual_memory()
    limit, used = _cgroup_memory()
    total = min(memory.total, limit or memory.total)
    available = min(memory.available, total - used if limit else memory.available)
    return Machine(
        cpu=_cpu_name(),
        system=f"{platform.system()} {platform.machine()}",
        physical_cores=_physical_cores(),
        logical_cpus=len(_affinity()),
        cpu_quota=_cgroup_cpus(),
        memory_bytes=total,
        available_bytes=max(0, available),
        gpus=(*_nvidia(), *_amd(), *_apple(memory.total, memory.available)),
    )


def engine_threads(machine: Machine, *, load: float | None = None) -> int:
    """Compute threads for an engine: never more than the cores granted, one less when busy.

    Threads equal to cores can collapse on a busy host (each barrier waits for a thread that is
    not scheduled), so one core is left free when the run queue already holds half the cores.
    """
    granted = machine.physical_cores
    if machine.cpu_quota:
        granted = min(granted, int(machine.cpu_quota))
    granted = max(1, granted)
    busy = (os.getloadavg()[0] if load is None else load) > granted / 2
    return max(1, granted - 1) if busy else granted


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical_cores() -> int:
    """Hyper-threads of one core count once; they share the units a matrix product needs."""
    root = Path("/sys/devices/system/cpu")
    cores = set()
    for cpu in _affinity():
        topology = root / f"cpu{cpu}" / "topology"
        package, core = _text(topology / "physical_package_id"), _text(topology / "core_id")
        cores.add((package, core) if core else (None, str(cpu)))
    if root.is_dir():
        return max(1, len(cores))
    return psutil.cpu_count(logical=False) or 1


def _cpu_name() -> str:
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Hardware", "cpu model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _cgroups() -> list[Path]:
    """cgroup v2 folders from this process's own up to the root: every one of them binds."""
    for line in (_text(_OWN_CGROUP) or "").splitlines():
        if line.startswith("0::"):
            own = _CGROUP_ROOT / line[3:].lstrip("/")
            return [own, *[p for p in own.parents if p.is_relative_to(_CGROUP_ROOT)]]
    return []


def _cgroup_cpus() -> float | None:
    quotas = []
    for folder in _cgroups():
        fields = (_text(folder / "cpu.max") or "max").split()
        if len(fields) == 2 and fields[0] != "max":
            quotas.append(int(fields[0]) / int(fields[1]))
    return min(quotas, default=None)


def _cgroup_memory() -> tuple[int | None, int]:
    """(limit, used) of the tightest group that has a limit, in bytes."""
    tightest: tuple[int, int] | None = None
    for folder in _cgroups():
        limit, current = _text(folder / "memory.max"), _text(folder / "memory.current")
        if limit and limit != "max" and current and (not tightest or int(limit) < tightest[0]):
            tightest = int(limit), int(current) - _reclaimable(folder)
    return tightest or (None, 0)


def _reclaimable(folder: Path) -> int:
    """File pages a group holds but gives back under pressure."""
    for line in (_text(folder / "memory.stat") or "").splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0


def _nvidia() -> list[Gpu]:
    import pynvml

    # Without a driver this raises in well under a millisecond.
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            return [_nvidia_gpu(i) for i in range(pynvml.nvmlDeviceGetCount())]
        finally:
            pynvml.nvmlShutdown()
    return []


def _nvidia_gpu(index: int) -> Gpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    return Gpu(
        name=name.decode() if isinstance(name, bytes) else str(name),
        memory_bytes=int(memory.total),
        free_bytes=int(memory.free),
    )


def _amd() -> list[Gpu]:
    """What the amdgpu driver tells in sysfs; no ROCm library needed."""
    gpus = []
    for device in sorted(_DRM.glob("card*/device")):
        total = _text(device / "mem_info_vram_total")
        used = _text(device / "mem_info_vram_used")
        if total and used:
            name = _text(device / "product_name") or "AMD GPU"
            size = int(total)
            gpus.append(Gpu(name=name, memory_bytes=size, free_bytes=size - int(used)))
    return gpus


def _apple(total_bytes: int, available_bytes: int) -> list[Gpu]:
    if platform.system() != "Darwin" or platform.machine() != "arm64":
        return []
    return [
        Gpu(name="Apple GPU", memory_bytes=total_bytes, free_bytes=available_bytes, unified=True)
    ]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
