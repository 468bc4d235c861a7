"""What binds this process: affinity, control groups, memory, accelerators."""

import os
from pathlib import Path
from types import SimpleNamespace

import msgspec
import psutil
import pynvml
import pytest

from locavore.engines import fit, machine
from locavore.engines.machine import GIB


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A v2 hierarchy `/pod/app`; returns the root folder."""
    root = tmp_path / "cgroup"
    (root / "pod" / "app").mkdir(parents=True)
    own = tmp_path / "self"
    own.write_text("0::/pod/app\n")
    monkeypatch.setattr(machine, "_CGROUP_ROOT", root)
    monkeypatch.setattr(machine, "_OWN_CGROUP", own)
    return root


def test_the_tightest_group_of_the_path_binds(cgroup: Path) -> None:
    for folder, cpu, memory, used in (
        (cgroup / "pod" / "app", "max 100000", "max", "0"),
        (cgroup / "pod", "150000 100000", str(GIB), str(GIB // 2)),
    ):
        (folder / "cpu.max").write_text(cpu)
        (folder / "memory.max").write_text(memory)
        (folder / "memory.current").write_text(used)
    (cgroup / "pod" / "memory.stat").write_text(f"anon 1\ninactive_file {GIB // 4}\n")
    here = machine.describe()
    assert here.cpu_quota == 1.5
    assert here.memory_bytes == GIB
    # What is used, less the file pages that are given back, is off.
    assert here.available_bytes == min(GIB - GIB // 4, psutil.virtual_memory().available)
    assert "quota 1.5 CPUs" in here.line()


def test_no_limits_leave_the_machine_as_it_is(cgroup: Path) -> None:
    here = machine.describe()
    assert here.cpu_quota is None
    assert here.memory_bytes == psutil.virtual_memory().total


def test_cores_are_those_we_may_run_on() -> None:
    here = machine.describe()
    allowed = len(os.sched_getaffinity(0))
    assert here.logical_cpus == allowed
    assert 1 <= here.physical_cores <= allowed


def test_gpus_are_described_with_what_others_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C121: free memory is the driver's figure, other processes' use taken off."""
    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=24 * GIB, free=5 * GIB),
        "nvmlDeviceGetName": lambda _: b"NVIDIA A10",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    device = tmp_path / "card0" / "device"
    device.mkdir(parents=True)
    (device / "mem_info_vram_total").write_text(str(16 * GIB))
    (device / "mem_info_vram_used").write_text(str(GIB))
    monkeypatch.setattr(machine, "_DRM", tmp_path)
    here = machine.describe()
    assert [(gpu.name, gpu.free_bytes // GIB) for gpu in here.gpus] == [
        ("NVIDIA A10", 5),
        ("AMD GPU", 15),
    ]
    assert "NVIDIA A10, 24 GiB; AMD GPU, 16 GiB" in here.line()
    alone = msgspec.structs.replace(here, available_bytes=0)
    assert fit.room_bytes(alone) == int(20 * GIB * fit.MARGIN)


def test_without_a_driver_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    monkeypatch.setattr(machine, "_DRM", tmp_path)
    here = machine.describe()
    assert here.gpus == ()
    assert here.line().endswith("no GPU")
