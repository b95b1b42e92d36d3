"""A small NVML of ours: NVIDIA's binding speaks to it by the real calling convention."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml  # type: ignore[import-untyped]  # carries no types
import pytest

from modelgrid.hardware import Gpu

NOT_SUPPORTED = 3
INSUFFICIENT_SIZE = 7
UNKNOWN_BYTES = 2**64 - 1
DRIVER_NOT_LOADED = 9


@dataclass
class Driver:
    """What the library answers with: NVML's return codes, 0 for success."""

    gpus: Sequence[Gpu] = ()
    init: int = 0
    memory: int = 0
    lists: int = 0
    processes: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)  # pid and bytes, by GPU
    inits: int = 0
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

        def processes(device: int, count: int, out: int) -> int:
            held = self.processes.get(device - 1, ())
            room, ctypes.c_uint.from_address(count).value = ctypes.c_uint.from_address(count).value, len(held)
            if self.lists:
                return self.lists
            if room < len(held):
                return INSUFFICIENT_SIZE
            for place, (pid, used) in enumerate(held):
                found = pynvml.c_nvmlProcessInfo_t.from_address(out + place * ctypes.sizeof(pynvml.c_nvmlProcessInfo_t))
                found.pid, found.usedGpuMemory = pid, used
            return 0

        def initialise(_flags: int) -> int:
            self.inits += 1
            return self.init

        def shut_down() -> int:
            self.shutdowns += 1
            return 0

        number, address = ctypes.c_int, ctypes.c_void_p
        return SimpleNamespace(
            nvmlInitWithFlags=ctypes.CFUNCTYPE(number, ctypes.c_uint)(initialise),
            nvmlShutdown=ctypes.CFUNCTYPE(number)(shut_down),
            nvmlErrorString=ctypes.CFUNCTYPE(address, number)(lambda _code: None),
            nvmlDeviceGetCount_v2=ctypes.CFUNCTYPE(number, address)(count),
            nvmlDeviceGetHandleByIndex_v2=ctypes.CFUNCTYPE(number, ctypes.c_uint, address)(handle),
            nvmlDeviceGetName=text("name"),
            nvmlDeviceGetUUID=text("uuid"),
            nvmlDeviceGetComputeRunningProcesses_v3=ctypes.CFUNCTYPE(number, address, address, address)(processes),
            nvmlDeviceGetMemoryInfo=ctypes.CFUNCTYPE(number, address, address)(memory),
        )

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be the driver's library for this test, also on a machine that has a real one."""
        monkeypatch.setattr(pynvml, "nvmlLib", self.library())
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
