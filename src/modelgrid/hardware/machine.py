"""The machine that replicas are placed on: what was configured, else what is there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from modelgrid.hardware.memory import MainMemory, main_memory
from modelgrid.hardware.nvidia import Gpu, visible_gpus
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
        """What models may take of each GPU, and without GPUs of main memory; None: measured."""
        ...

    @property
    def main_memory_bytes(self) -> int | None:
        """What models may take of main memory beside GPUs; None: measured."""
        ...

    @property
    def gpus(self) -> Sequence[int] | None:
        """Indices of the GPUs that models may use; None: all that are visible."""
        ...


def measure_machine(
    config: Configured, torch_wheel: str | None, *, environ: Mapping[str, str] = os.environ, root: Path = _ROOT
) -> Machine:
    """What there is for models: of each GPU, and of main memory.

    Takes some milliseconds, with a GPU up to a second; never fails for want of a GPU.
    """
    memory = main_memory(root=root)
    found = visible_gpus(environ)
    gpus = [gpu for gpu in found if config.gpus is None or gpu.index in config.gpus]
    if not gpus:
        most = config.memory_bytes or config.main_memory_bytes
        name = "machine.memory" if config.memory_bytes else "machine.main_memory"
        source = name if most else _of_main(memory)
        return Machine((_main(memory, most),), source=source, torch_wheel=torch_wheel, hides_gpus=bool(found))
    return Machine(
        (_main(memory, config.main_memory_bytes), *(_device(gpu, config.memory_bytes) for gpu in gpus)),
        accelerator="cuda",
        source=_names(gpus) if config.memory_bytes is None else "machine.memory",
        torch_wheel=torch_wheel,
    )


def _main(memory: MainMemory, most: int | None) -> Device:
    return Device(MAIN, most or int(memory.total_bytes * _SHARE_OF_MAIN_MEMORY), memory.total_bytes)


def _device(gpu: Gpu, most: int | None) -> Device:
    """More than a GPU has can't be planned, whatever was configured for all of them."""
    usable = int(gpu.memory_bytes * _SHARE_OF_GPU_MEMORY)
    return Device(gpu.device, min(most or usable, gpu.memory_bytes), gpu.memory_bytes, gpu.index, gpu.uuid)


def _of_main(memory: MainMemory) -> str:
    limit = " (the limit of this cgroup)" if memory.is_limited else ""
    share = f"{_SHARE_OF_MAIN_MEMORY:.0%}".replace("%", " %")
    return f"{share} of {format_bytes(memory.total_bytes)} of memory{limit}"


def _names(gpus: Sequence[Gpu]) -> str:
    """``2 x NVIDIA H200, NVIDIA L4``."""
    counts = Counter(gpu.name for gpu in gpus)
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counts.items())
