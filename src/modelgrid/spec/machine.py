"""Machines and their devices: what replicas are placed on, and what one of them takes. Memory is in bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MAIN = "cpu"  # the device that is a machine's main memory
LOCAL = "local"  # the machine that modelgrid runs on


@dataclass(frozen=True, slots=True)
class Device:
    """Memory that replicas share: a GPU's, or the machine's own."""

    name: str  # "cpu", "gpu0"
    memory_bytes: int  # what models may take of it
    total_bytes: int  # all of it
    index: int | None = None  # of a GPU, as the driver counts; None: main memory
    uuid: str | None = None

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU's memory."""
        return self.index is not None


@dataclass(frozen=True, slots=True)
class Machine:
    """What replicas are placed on."""

    devices: tuple[Device, ...]
    name: str = LOCAL
    accelerator: str = "cpu"  # "cpu" or "cuda"
    source: str = "measured"  # where the devices' memory comes from, for people
    torch_wheel: str | None = None  # e.g. "torch==2.13.0", where the package index has a build for this machine
    hides_gpus: bool = False  # it has some, and models may use none

    @property
    def gpus(self) -> tuple[Device, ...]:
        """Its GPUs."""
        return tuple(device for device in self.devices if device.is_gpu)

    @property
    def main(self) -> Device | None:
        """Its main memory; None where nobody counts it."""
        return next((device for device in self.devices if not device.is_gpu), None)

    @property
    def memory_bytes(self) -> int:
        """What models may take of the memory that they mostly live in: of all GPUs, without any of main memory."""
        return sum(device.memory_bytes for device in self.gpus or self.devices)

    def device(self, name: str) -> Device:
        """The device of this name. Raises KeyError."""
        for device in self.devices:
            if device.name == name:
                return device
        raise KeyError(name)


def cpu_machine(memory_bytes: int, name: str = LOCAL) -> Machine:
    """A machine without GPUs whose models may take `memory_bytes` of main memory."""
    return Machine((Device(MAIN, memory_bytes, memory_bytes),), name)


@dataclass(frozen=True, slots=True)
class Share:
    """What one replica takes of one device."""

    device: str
    memory_bytes: int


def shares_of(memory_bytes: int) -> tuple[Share, ...]:
    """So much of main memory; nothing where it is nothing."""
    return (Share(MAIN, memory_bytes),) if memory_bytes else ()


def sum_of(shares: Iterable[Share]) -> int:
    """The bytes of all shares together."""
    return sum(share.memory_bytes for share in shares)


def most(shares: Iterable[Share], others: Iterable[Share]) -> tuple[Share, ...]:
    """Of each device the larger share of the two."""
    largest: dict[str, int] = {}
    for share in (*shares, *others):
        largest[share.device] = max(share.memory_bytes, largest.get(share.device, 0))
    return tuple(Share(device, memory_bytes) for device, memory_bytes in largest.items())


@dataclass(frozen=True, slots=True)
class Need:
    """What one replica takes of a machine.

    ``gpus``: None is one GPU where there is one, else main memory; 0 main memory; 0.5 that share of one GPU; 2 two
    GPUs, whole ones unless ``memory_bytes`` says how much of them together. ``main_bytes`` is main memory beside GPUs.
    """

    memory_bytes: int | None
    gpus: float | None = None
    main_bytes: int = 0
    spreads: bool = False  # gpus None: over as many GPUs of one machine as it takes

    @property
    def count(self) -> int:
        """How many GPUs it asks for, where it asks for a number."""
        return 1 if self.gpus is None else math.ceil(self.gpus)


@dataclass(frozen=True, slots=True)
class Asleep:
    """What a replica that sleeps still takes, and how long it takes to wake it."""

    share: float  # of its memory on each GPU; of main memory, where it has none
    main_bytes: int  # of main memory beside that: where its weights wait
    wake_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where one replica is, and what it may take there."""

    machine: Machine
    shares: tuple[Share, ...]

    @property
    def on_gpus(self) -> tuple[tuple[Device, Share], ...]:
        """Its shares of GPUs, each beside the GPU; without those of GPUs that are no longer there."""
        gpus = {gpu.name: gpu for gpu in self.machine.gpus}
        return tuple((gpus[share.device], share) for share in self.shares if share.device in gpus)

    @property
    def gpus(self) -> tuple[Device, ...]:
        """The GPUs that it has a share of."""
        return tuple(device for device, _ in self.on_gpus)

    @property
    def accelerator(self) -> str:
        """What it computes on: "cpu" where it has no share of a GPU."""
        return self.machine.accelerator if self.gpus else "cpu"

    @property
    def memory_bytes(self) -> int:
        """What it may take of what it mostly lives in: of its GPUs together, else of main memory."""
        return sum_of([share for _, share in self.on_gpus] or self.shares)
