"""NVIDIA GPUs, through NVML. A machine without one, or with a broken driver, has none: never a crash.

NVML counts GPUs by their place on the bus, as nvidia-smi does, and as CUDA does where CUDA_DEVICE_ORDER is PCI_BUS_ID.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_EVERY_S = 2.0  # between two looks at who holds what


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    name: str  # "NVIDIA H200"
    uuid: str
    memory_bytes: int
    index: int

    @property
    def device(self) -> str:
        """Its name among a machine's devices."""
        return f"gpu{self.index}"


def visible_gpus(environ: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` shows (all, where it isn't set), by index."""
    nvml = _open()
    if nvml is None:
        return ()
    try:
        return tuple(_gpus(nvml, environ.get("CUDA_VISIBLE_DEVICES")))
    except Exception:  # a library of another age, a GPU that fell off its bus: nothing that could be used
        return ()
    finally:
        with contextlib.suppress(nvml.NVMLError):  # it was asked what there is, and has answered
            nvml.nvmlShutdown()


class GpuMeter:
    """Who holds how much of which GPU. A look is remembered for two seconds. Not for use by two threads at once.

    In a container the driver may tell the pids of the host, or none at all: then nothing is known of anybody.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._nvml: Any = None
        self._is_broken = False
        self._until = 0.0
        self._known: Mapping[int, Mapping[str, int]] = {}

    def held_bytes(self) -> Mapping[int, Mapping[str, int]]:
        """Bytes by process and device: ``{4711: {"gpu0": 17179869184}}``. Takes milliseconds; empty where it can't be
        had."""
        if not self._is_broken and self._clock() >= self._until:
            self._known = self._look()
            self._until = self._clock() + _EVERY_S
        return self._known

    def close(self) -> None:
        """Let go of the driver. May be called again."""
        if self._nvml is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
        self._nvml = None

    def _look(self) -> Mapping[int, Mapping[str, int]]:
        if self._nvml is None:  # stays open: opening may take as long as a second
            self._nvml = _open()
        if self._nvml is None:
            self._is_broken = True  # a driver that comes later is seen by who starts anew, as its GPUs are
            return {}
        try:
            return _held(self._nvml)
        except Exception:
            self.close()
            return {}


def _open() -> Any:
    try:
        import pynvml as nvml  # type: ignore[import-untyped]  # carries no types

        nvml.nvmlInit()
    except Exception:  # a missing or mismatched driver library fails in many ways, and all mean: no GPU to use
        return None
    return nvml


def _gpus(nvml: Any, visible: str | None) -> Iterator[Gpu]:
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        if _is_visible(index, uuid, visible):
            # Each by itself: one that is broken takes no other along.
            with contextlib.suppress(nvml.NVMLError):
                total = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
                yield Gpu(_text(nvml.nvmlDeviceGetName(handle)), uuid, total, index)


def _held(nvml: Any) -> Mapping[int, Mapping[str, int]]:
    held: dict[int, dict[str, int]] = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        for process in _processes(nvml, nvml.nvmlDeviceGetHandleByIndex(index)):
            if process.usedGpuMemory is not None:
                held.setdefault(int(process.pid), {})[f"gpu{index}"] = int(process.usedGpuMemory)
    return held


def _processes(nvml: Any, handle: Any) -> Sequence[Any]:
    try:
        found: Sequence[Any] = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        return found
    except nvml.NVMLError:
        return ()


def _is_visible(index: int, uuid: str, visible: str | None) -> bool:
    """As CUDA reads its variable: indices or the beginnings of UUIDs, up to the first that is neither."""
    if visible is None:
        return True
    for word in (word.strip() for word in visible.split(",")):
        if word.isdecimal():
            if int(word) == index:
                return True
        elif not word.startswith(("GPU-", "MIG-")):
            return False
        elif uuid.startswith(word):
            return True
    return False


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
