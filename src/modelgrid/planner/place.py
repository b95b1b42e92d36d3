"""Where replicas fit: what is free on every device, and the best of the places that are free.

Best fit: a replica goes where it leaves the least free. So small models fill up what is begun, and whole GPUs stay
whole for the models that need them.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelgrid.spec import MAIN, Device, Machine, Need, Replica, Share
from modelgrid.spec.units import format_bytes

At = tuple[str, str]  # a machine's name, a device's name


@dataclass(frozen=True, slots=True)
class Spot:
    """A place for one replica."""

    machine: str
    shares: tuple[Share, ...]


def gpus_for(need: Need, machines: Collection[Machine]) -> int:
    """How many GPUs one replica is spread over: what it asks for, else the fewest on which it fits when they are
    empty, as a power of two. 0: it lives in main memory."""
    if need.gpus is not None:
        return need.count
    if not any(device.is_gpu for machine in machines for device in machine.devices):
        return 0
    if not need.spreads or need.memory_bytes is None:
        return 1
    most = max(len(machine.gpus) for machine in machines)
    count = 1
    while count <= most:
        if any(is_possible(need, count, machine) for machine in machines):
            return count
        count *= 2
    return 1


def on_each(need: Need, count: int, device: Device) -> int:
    """What one replica on `count` GPUs (0: in main memory) takes of `device`, which is one of them."""
    if need.memory_bytes is not None:
        return math.ceil(need.memory_bytes / max(1, count))
    share = 1.0 if need.gpus is None or need.gpus >= 1 else need.gpus
    return int(device.memory_bytes * share)


def is_possible(need: Need, count: int, machine: Machine) -> bool:
    """Whether one replica fits on `machine` when nothing else is there."""
    if count == 0:
        main = machine.main
        return main is not None and on_each(need, 0, main) <= main.memory_bytes
    if need.main_bytes and machine.main is not None and need.main_bytes > machine.main.memory_bytes:
        return False
    return sum(on_each(need, count, gpu) <= gpu.memory_bytes for gpu in machine.gpus) >= count


def needs_text(need: Need, machines: Sequence[Machine]) -> str:
    """What one replica needs, for people."""
    count = gpus_for(need, machines)
    if need.memory_bytes is None:
        share = "" if need.gpus is None or need.gpus >= 1 else f"{need.gpus:g} of "
        return f"{share}{_gpus(count)}"
    memory = format_bytes(need.memory_bytes)
    return memory if count <= 1 else f"{memory} over {_gpus(count)}"


def why_impossible(need: Need, machines: Sequence[Machine]) -> str | None:
    """Why one replica fits on none of the machines, even when nothing else is there; None where it does."""
    count = gpus_for(need, machines)
    if any(is_possible(need, count, machine) for machine in machines):
        return None
    needs = needs_text(need, machines)
    if count == 0:
        most = max((machine.main.memory_bytes for machine in machines if machine.main is not None), default=0)
        return f"it needs {needs}, models may take {format_bytes(most)} (try: a smaller model, or raise machine.memory)"
    gpus = max((len(machine.gpus) for machine in machines), default=0)
    if gpus < count:
        return f"it needs {_gpus(count)}, the largest machine has {gpus} (try: needs.gpus: {max(gpus, 0)})"
    largest = max(gpu.memory_bytes for machine in machines for gpu in machine.gpus)
    main = f" and {format_bytes(need.main_bytes)} of main memory" if need.main_bytes else ""
    return (
        f"it needs {needs}{main}, models may take {format_bytes(largest)} of the largest GPU "
        "(try: a smaller model, needs.gpus for several GPUs, or raise machine.memory)"
    )


def _gpus(count: int) -> str:
    return "one GPU" if count == 1 else f"{count} GPUs"


def free_bytes(machines: Iterable[Machine], replicas: Iterable[Replica]) -> dict[At, int]:
    """What `replicas` leave free on each device; less than nothing where they hold too much."""
    free = {(machine.name, device.name): device.memory_bytes for machine in machines for device in machine.devices}
    for replica in replicas:
        for share in replica.counted:
            at = (replica.machine, share.device)
            if at in free:  # a machine that is gone has nothing to give
                free[at] -= share.memory_bytes
    return free


class Room:
    """What is free on the devices of all machines. It changes while a plan is made."""

    def __init__(self, machines: Sequence[Machine], replicas: Iterable[Replica]) -> None:
        self.machines = {machine.name: machine for machine in machines}
        self.devices: dict[At, Device] = {
            (machine.name, device.name): device for machine in machines for device in machine.devices
        }
        self.free = free_bytes(machines, replicas)
        self._gpus = sorted((self.free[at], at) for at, device in self.devices.items() if device.is_gpu)
        self._mains = sorted((self.free[at], at) for at, device in self.devices.items() if not device.is_gpu)
        self._counts: dict[Need, int] = {}

    def count(self, need: Need) -> int:
        """`gpus_for`, on these machines."""
        if need not in self._counts:
            self._counts[need] = gpus_for(need, self.machines.values())
        return self._counts[need]

    def take(self, machine: str, shares: Iterable[Share]) -> None:
        """These are not free any more."""
        for share in shares:
            self._change((machine, share.device), -share.memory_bytes)

    def give(self, machine: str, shares: Iterable[Share]) -> None:
        """These are free again."""
        for share in shares:
            self._change((machine, share.device), share.memory_bytes)

    def cap(self, at: At, most: int) -> None:
        """No more than `most` is free there."""
        if self.free.get(at, most) > most:
            self._change(at, most - self.free[at])

    def holds(self, machine: str, shares: Iterable[Share]) -> bool:
        """Whether these are free now."""
        return all(self.free.get((machine, share.device), -1) >= share.memory_bytes for share in shares)

    def has_main(self, need: Need, count: int, machine: str) -> bool:
        """Whether main memory is free for what takes some beside `count` GPUs."""
        if not count or not need.main_bytes:
            return True
        return self.free.get((machine, MAIN), need.main_bytes) >= need.main_bytes

    def best(self, need: Need) -> Spot | None:
        """The free place that leaves the least behind; None where there is none."""
        count = self.count(need)
        if count > 1:
            return self._several(need, count)
        if need.memory_bytes == 0 and need.gpus is None:
            return next((Spot(name, ()) for name in self.machines), None)
        if need.memory_bytes is None:
            return self._share_of_one(need, count)
        order = self._gpus if count else self._mains
        for index in range(bisect_left(order, (need.memory_bytes, ("", ""))), len(order)):
            machine, device = order[index][1]
            if self.has_main(need, count, machine):
                return self._spot(need, machine, {device: need.memory_bytes})
        return None

    def _share_of_one(self, need: Need, count: int) -> Spot | None:
        for free, at in self._gpus if count else self._mains:
            takes = on_each(need, count, self.devices[at])
            if takes <= free and self.has_main(need, count, at[0]):
                return self._spot(need, at[0], {at[1]: takes})
        return None

    def _several(self, need: Need, count: int) -> Spot | None:
        best: tuple[int, str, dict[str, int]] | None = None
        for machine in self.machines.values():
            if len(machine.gpus) < count or not self.has_main(need, count, machine.name):
                continue
            fitting = sorted(
                (self.free[machine.name, gpu.name] - takes, gpu.name, takes)
                for gpu in machine.gpus
                if (takes := on_each(need, count, gpu)) <= self.free[machine.name, gpu.name]
            )[:count]
            left = sum(rest for rest, _, _ in fitting)
            if len(fitting) == count and (best is None or left < best[0]):
                best = (left, machine.name, {name: takes for _, name, takes in fitting})
        return None if best is None else self._spot(need, best[1], best[2])

    def _spot(self, need: Need, machine: str, takes: Mapping[str, int]) -> Spot:
        return Spot(machine, shares_on(need, self.machines[machine], takes))

    def _change(self, at: At, by: int) -> None:
        if at not in self.free:
            return
        order = self._gpus if self.devices[at].is_gpu else self._mains
        del order[bisect_left(order, (self.free[at], at))]
        self.free[at] += by
        insort(order, (self.free[at], at))


def shares_on(need: Need, machine: Machine, takes: Mapping[str, int]) -> tuple[Share, ...]:
    """The shares of a replica that takes these bytes by device, and main memory beside its GPUs."""
    names = sorted(takes, key=lambda name: machine.device(name).index or 0)
    shares = [Share(name, takes[name]) for name in names if takes[name]]
    if need.main_bytes and machine.main is not None and MAIN not in takes:
        shares.append(Share(MAIN, need.main_bytes))
    return tuple(shares)
