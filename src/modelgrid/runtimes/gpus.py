"""The GPUs of a replica: how its processes are told, and how that is told of it later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from modelgrid.runtimes.census import Member

_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_ORDER: Final = "CUDA_DEVICE_ORDER"


def environ_of(gpus: Sequence[int] | None) -> dict[str, str]:
    """The variables that show a process these GPUs alone, as nvidia-smi counts them; None: nothing is said.

    CUDA's own order is by speed. An empty list hides all: that is CUDA's documented word for none, and vLLM reads it
    so; -1 it would take for the number of a GPU.
    """
    if gpus is None:
        return {}
    return {_VISIBLE: ",".join(map(str, gpus)), _ORDER: "PCI_BUS_ID"}


def words(gpus: Sequence[int] | None) -> str:
    """As a mark in an environment: ``0,1``; empty where it has none."""
    return "" if gpus is None else ",".join(map(str, gpus))


def devices(words: str) -> tuple[str, ...]:
    """What `words` wrote, by `Device.name`."""
    return tuple(f"gpu{word}" for word in words.split(",") if word.isdecimal())


def sum_by_device(members: Iterable[Member], held: Mapping[int, Mapping[str, int]]) -> dict[str, int]:
    """What a replica's processes hold, of what `held` says by process."""
    total: dict[str, int] = {}
    for member in members:
        for device, count in held.get(member.identity.pid, {}).items():
            total[device] = total.get(device, 0) + count
    return total
