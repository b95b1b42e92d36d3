"""What there is for models. NVIDIA's binding speaks to a small library of ours, by the real calling convention."""

from __future__ import annotations

from pathlib import Path

import pynvml  # type: ignore[import-untyped]  # carries no types
import pytest

from modelgrid.config import MachineConfig
from modelgrid.hardware import Gpu, GpuMeter, measure_machine, visible_gpus
from modelgrid.spec import (
    MAIN,
    Device,
    Machine,
)
from unit.hardware.nvml import DRIVER_NOT_LOADED, NOT_SUPPORTED, UNKNOWN_BYTES, Driver

GIB = 2**30
SMALL = Gpu("NVIDIA L4", "GPU-aaaa-1", 24 * GIB, 0)
LARGE = Gpu("NVIDIA H200", "GPU-bbbb-2", 140 * GIB, 1)
MAIN_MEMORY = Device(MAIN, int(GIB * 0.8), GIB)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    driver.install(monkeypatch)
    return driver


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system whose cgroup may take 10 GiB."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{1 * GIB}\n")
    return tmp_path


def test_every_gpu_is_a_device_of_which_models_may_take_all_but_a_reserve(driver: Driver, root: Path) -> None:
    driver.gpus = (SMALL, LARGE)
    assert measure_machine(MachineConfig(), "torch==2.13.0", environ={}, root=root) == Machine(
        (
            MAIN_MEMORY,
            Device("gpu0", int(24 * GIB * 0.95), 24 * GIB, 0, SMALL.uuid),
            Device("gpu1", int(140 * GIB * 0.95), 140 * GIB, 1, LARGE.uuid),
        ),
        accelerator="cuda",
        source="NVIDIA L4, NVIDIA H200",
        torch_wheel="torch==2.13.0",
    )
    assert driver.shutdowns == 1


def test_gpus_of_one_kind_are_named_once(driver: Driver, root: Path) -> None:
    driver.gpus = (LARGE, LARGE, SMALL)
    assert measure_machine(MachineConfig(), None, environ={}, root=root).source == "2 x NVIDIA H200, NVIDIA L4"


def test_without_a_gpu_most_of_main_memory_is(driver: Driver, root: Path) -> None:
    assert measure_machine(MachineConfig(), None, environ={}, root=root) == Machine(
        (MAIN_MEMORY,), source="80 % of 1.0 GiB of memory (the limit of this cgroup)"
    )


@pytest.mark.parametrize("gpus", [(), (SMALL, LARGE)])
def test_configured_memory_is_of_each_gpu_where_there_is_one(driver: Driver, root: Path, gpus: tuple[Gpu, ...]) -> None:
    driver.gpus = gpus
    machine = measure_machine(MachineConfig(5), None, environ={}, root=root)
    expected = [int(GIB * 0.8), 5, 5] if gpus else [5]
    assert ([device.memory_bytes for device in machine.devices], machine.source) == (expected, "machine.memory")


def test_no_gpu_is_planned_to_hold_more_than_it_has(driver: Driver, root: Path) -> None:
    driver.gpus = (SMALL, LARGE)
    machine = measure_machine(MachineConfig(100 * GIB), None, environ={}, root=root)
    assert [gpu.memory_bytes for gpu in machine.gpus] == [24 * GIB, 100 * GIB]


@pytest.mark.parametrize("gpus", [(), (LARGE,)])
def test_main_memory_can_be_configured_with_gpus_and_without(driver: Driver, root: Path, gpus: tuple[Gpu, ...]) -> None:
    driver.gpus = gpus
    machine = measure_machine(MachineConfig(main_memory_bytes=7), None, environ={}, root=root)
    assert machine.devices[0] == Device(MAIN, 7, GIB)
    assert machine.source == ("NVIDIA H200" if gpus else "machine.main_memory")


@pytest.mark.parametrize(("allowed", "expected"), [((1,), ["gpu1"]), ((1, 0), ["gpu0", "gpu1"]), ((), []), ((7,), [])])
def test_models_get_the_gpus_that_the_configuration_names(
    driver: Driver, root: Path, allowed: tuple[int, ...], expected: list[str]
) -> None:
    driver.gpus = (SMALL, LARGE)
    machine = measure_machine(MachineConfig(gpus=allowed), None, environ={}, root=root)
    assert [gpu.name for gpu in machine.gpus] == expected
    assert machine.accelerator == ("cuda" if expected else "cpu")
    assert machine.hides_gpus == (not expected)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, (SMALL, LARGE)),
        ("0", (SMALL,)),
        ("1", (LARGE,)),
        ("1,0", (SMALL, LARGE)),
        (" 0 , 1 ", (SMALL, LARGE)),
        ("GPU-aaaa", (SMALL,)),
        ("GPU-bbbb-2,GPU-aaaa-1", (SMALL, LARGE)),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", (SMALL,)),
        ("none", ()),
        ("7", ()),
    ],
)
def test_only_visible_gpus_count(driver: Driver, visible: str | None, expected: tuple[Gpu, ...]) -> None:
    driver.gpus = (SMALL, LARGE)
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert visible_gpus(environ) == expected


def test_a_driver_that_is_not_loaded_is_no_gpu(driver: Driver) -> None:
    driver.gpus, driver.init = (SMALL,), DRIVER_NOT_LOADED
    assert visible_gpus({}) == ()
    assert driver.shutdowns == 0


def test_a_gpu_that_cannot_say_its_memory_is_no_gpu(driver: Driver) -> None:
    driver.gpus, driver.memory = (SMALL,), NOT_SUPPORTED
    assert visible_gpus({}) == ()
    assert driver.shutdowns == 1


def test_a_library_of_another_age_is_no_gpu(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.gpus = (SMALL,)
    library = driver.library()
    del library.nvmlDeviceGetCount_v2
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    assert visible_gpus({}) == ()


def test_what_processes_hold_is_told_by_process_and_device(driver: Driver) -> None:
    driver.gpus = (SMALL, LARGE)
    driver.processes = {0: [(10, 3 * GIB)], 1: [(10, 2 * GIB), (11, GIB), (12, UNKNOWN_BYTES)]}
    assert GpuMeter().held_bytes() == {10: {"gpu0": 3 * GIB, "gpu1": 2 * GIB}, 11: {"gpu1": GIB}}


def test_the_driver_is_opened_once_and_asked_every_two_seconds(driver: Driver) -> None:
    driver.gpus, driver.processes = (SMALL,), {0: [(10, 1)]}
    now = 100.0
    meter = GpuMeter(lambda: now)
    seen = [meter.held_bytes()]
    driver.processes = {0: [(10, 2)]}
    now = 101.9
    seen.append(meter.held_bytes())
    now = 102.0
    seen.append(meter.held_bytes())
    assert seen == [{10: {"gpu0": 1}}, {10: {"gpu0": 1}}, {10: {"gpu0": 2}}]
    assert (driver.inits, driver.shutdowns) == (1, 0)
    meter.close()
    meter.close()
    assert driver.shutdowns == 1


def test_nothing_is_known_where_the_driver_does_not_tell(driver: Driver) -> None:
    driver.gpus, driver.lists = (SMALL,), NOT_SUPPORTED
    assert GpuMeter().held_bytes() == {}
    driver.init = DRIVER_NOT_LOADED
    assert GpuMeter().held_bytes() == {}
