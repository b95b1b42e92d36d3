"""What there is for models. NVIDIA's binding speaks to a small library of ours, by the real calling convention."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml  # type: ignore[import-untyped]  # carries no types
import pytest

from modelgrid.config import MachineConfig
from modelgrid.hardware import Gpu, largest_gpu, measure_machine
from modelgrid.spec import (
    MAIN,
    Device,
    Machine,
)

GIB = 2**30
SMALL = Gpu("NVIDIA L4", "GPU-aaaa-1", 24 * GIB)
LARGE = Gpu("NVIDIA H200", "GPU-bbbb-2", 140 * GIB)
NOT_SUPPORTED = 3
DRIVER_NOT_LOADED = 9


@dataclass
class Driver:
    """What the library answers with: NVML's return codes, 0 for success."""

    gpus: Sequence[Gpu] = ()
    init: int = 0
    memory: int = 0
    shutdowns: int = 0

    def library(self) -> Any:
        """The functions that are asked for, with the types of nvml.h."""

        def count(out: int) -> int:
            ctypes.c_uint.from_address(out).value = len(self.gpus)
            return 0

        def handle(index: int, out: int) -> int:
            ctypes.c_void_p.from_address(out).value = index + 1
            return 0

        def text(of: str) -> Any:
            def fill(device: int, buffer: Any, length: int) -> int:
                value = str(getattr(self.gpus[device - 1], of)).encode() + b"\0"
                assert len(value) <= length
                ctypes.memmove(buffer, value, len(value))
                return 0

            return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)(fill)

        def memory(device: int, out: int) -> int:
            ctypes.c_ulonglong.from_address(out).value = self.gpus[device - 1].memory_bytes
            return self.memory

        def shut_down() -> int:
            self.shutdowns += 1
            return 0

        number, address = ctypes.c_int, ctypes.c_void_p
        return SimpleNamespace(
            nvmlInitWithFlags=ctypes.CFUNCTYPE(number, ctypes.c_uint)(lambda _flags: self.init),
            nvmlShutdown=ctypes.CFUNCTYPE(number)(shut_down),
            nvmlErrorString=ctypes.CFUNCTYPE(address, number)(lambda _code: None),
            nvmlDeviceGetCount_v2=ctypes.CFUNCTYPE(number, address)(count),
            nvmlDeviceGetHandleByIndex_v2=ctypes.CFUNCTYPE(number, ctypes.c_uint, address)(handle),
            nvmlDeviceGetName=text("name"),
            nvmlDeviceGetUUID=text("uuid"),
            nvmlDeviceGetMemoryInfo=ctypes.CFUNCTYPE(number, address, address)(memory),
        )


MAIN_MEMORY = Device(MAIN, int(GIB * 0.8), GIB)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """The driver's library for this test, also on a machine that has a real one."""
    driver = Driver()
    monkeypatch.setattr(pynvml, "nvmlLib", driver.library())
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return driver


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system whose cgroup may take 10 GiB."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{1 * GIB}\n")
    return tmp_path


def test_the_largest_gpu_is_what_models_may_take_but_for_a_reserve(driver: Driver, root: Path) -> None:
    driver.gpus = (SMALL, LARGE)
    assert measure_machine(MachineConfig(), "torch==2.13.0", environ={}, root=root) == Machine(
        (MAIN_MEMORY, Device("gpu0", int(140 * GIB * 0.95), 140 * GIB, 0, LARGE.uuid)),
        accelerator="cuda",
        source="NVIDIA H200",
        torch_wheel="torch==2.13.0",
    )
    assert driver.shutdowns == 1


def test_without_a_gpu_most_of_main_memory_is(driver: Driver, root: Path) -> None:
    assert measure_machine(MachineConfig(), None, environ={}, root=root) == Machine(
        (MAIN_MEMORY,), source="80 % of 1.0 GiB of memory (the limit of this cgroup)"
    )


@pytest.mark.parametrize("gpus", [(), (SMALL,)])
def test_configured_memory_is_of_the_gpu_where_there_is_one(driver: Driver, root: Path, gpus: tuple[Gpu, ...]) -> None:
    driver.gpus = gpus
    machine = measure_machine(MachineConfig(5), None, environ={}, root=root)
    assert (machine.memory_bytes, machine.source) == (5, "machine.memory")
    assert [device.memory_bytes for device in machine.devices if not device.is_gpu] == [int(GIB * 0.8) if gpus else 5]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, LARGE),
        ("0", SMALL),
        ("1,0", LARGE),
        (" 0 , 1 ", LARGE),
        ("GPU-aaaa", SMALL),
        ("", None),
        ("-1", None),
        ("0,-1,1", SMALL),
        ("none", None),
        ("7", None),
    ],
)
def test_only_visible_gpus_count(driver: Driver, visible: str | None, expected: Gpu | None) -> None:
    driver.gpus = (SMALL, LARGE)
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert largest_gpu(environ) == expected


def test_a_driver_that_is_not_loaded_is_no_gpu(driver: Driver) -> None:
    driver.gpus, driver.init = (LARGE,), DRIVER_NOT_LOADED
    assert largest_gpu({}) is None
    assert driver.shutdowns == 0


def test_a_gpu_that_cannot_say_its_memory_is_no_gpu(driver: Driver) -> None:
    driver.gpus, driver.memory = (LARGE,), NOT_SUPPORTED
    assert largest_gpu({}) is None
    assert driver.shutdowns == 1


def test_a_library_of_another_age_is_no_gpu(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.gpus = (LARGE,)
    library = driver.library()
    del library.nvmlDeviceGetCount_v2
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    assert largest_gpu({}) is None
