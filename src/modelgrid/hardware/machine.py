"""The machine that replicas are placed on: what was configured, else what is there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from modelgrid.hardware.memory import main_memory
from modelgrid.hardware.nvidia import largest_gpu
from modelgrid.spec import MAIN, Device, Machine
from modelgrid.spec.units import format_bytes

# The rest is for the system, for modelgrid and for what engines take beyond what was planned.
_SHARE_OF_MAIN_MEMORY = 0.8
_SHARE_OF_GPU_MEMORY = 0.95
_ROOT = Path("/")


class Configured(Protocol):
    """What the configuration says of the machine (`modelgrid.config.MachineConfig`)."""

    @property
    def memory_bytes(self) -> int | None:
        """What models may take; None: measured."""
        ...


def measure_machine(
    config: Configured, torch_wheel: str | None, *, environ: Mapping[str, str] = os.environ, root: Path = _ROOT
) -> Machine:
    """What there is for models: the configured memory, else the largest GPU's, else most of main memory.

    Takes some milliseconds, with a GPU up to a second; never fails for want of a GPU.
    """
    gpu = largest_gpu(environ)
    memory = main_memory(root=root)
    measured = int(memory.total_bytes * _SHARE_OF_MAIN_MEMORY)
    of_what = f"{format_bytes(memory.total_bytes)} of memory"
    limit = " (the limit of this cgroup)" if memory.is_limited else ""
    source = f"{_SHARE_OF_MAIN_MEMORY:.0%} of {of_what}{limit}".replace("%", " %")
    if gpu is None:
        main = Device(MAIN, config.memory_bytes or measured, memory.total_bytes)
        source = source if config.memory_bytes is None else "machine.memory"
        return Machine((main,), source=source, torch_wheel=torch_wheel)
    most = config.memory_bytes or int(gpu.memory_bytes * _SHARE_OF_GPU_MEMORY)
    return Machine(
        (Device(MAIN, measured, memory.total_bytes), Device("gpu0", most, gpu.memory_bytes, 0, gpu.uuid)),
        accelerator="cuda",
        source=gpu.name if config.memory_bytes is None else "machine.memory",
        torch_wheel=torch_wheel,
    )
