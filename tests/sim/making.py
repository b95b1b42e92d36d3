"""Makes worlds: models, machines and faults follow from a seed."""

from __future__ import annotations

import random

from modelgrid.spec import MAIN, Asleep, Device, Machine, ModelName, ModelSpec, Need, Scaling, cpu_machine
from sim.faults import Faults, harsh
from sim.world import World


def make_world(seed: int) -> World:
    """The world of `seed`."""
    dice = random.Random(seed)
    size = dice.choice([10, 16, 24])  # of each device that models mostly live in
    machines = _machines(dice, size)
    most_gpus = min(len(machine.gpus) for machine in machines)
    specs: dict[ModelName, ModelSpec] = {}
    needs: dict[ModelName, Need] = {}
    sleeps: dict[ModelName, Asleep] = {}
    kept = 0
    has_ranks = dice.random() < 0.3
    for index in range(dice.randint(2, 6)):
        name = ModelName(f"m{index}")
        memory = dice.randint(1, size)
        most = dice.choice([1, 1, 1, 2, 3])
        least = 1 if kept + memory <= size // 3 and dice.random() < 0.5 else 0
        kept += memory * least
        needs[name] = Need(memory)
        specs[name] = ModelSpec(
            name,
            "custom",
            priority=dice.choice([0, 0, 1, 5]) if has_ranks else 0,
            scaling=Scaling(min=least, max=most, idle_s=dice.choice([5.0, 30.0, 900.0]), target=4),
            start_timeout_s=20.0,
            stop_grace_s=3.0,
        )
    for name, spec in specs.items():
        if not spec.scaling.min:
            needs[name] = _need(dice, needs[name].memory_bytes or 0, size - kept, most_gpus)
            if most_gpus and dice.random() < 0.6 and needs[name].gpus is None and needs[name].memory_bytes:
                memory = needs[name].memory_bytes or 0
                sleeps[name] = Asleep(dice.choice([0.0, 0.1, 0.25]), max(1, memory // 2), wake_s=1.0)
    how = dice.choice([0.0, 0.3, 1.0, 3.0])
    faults = harsh(how) if how else Faults()
    return World(dice, faults, machines, specs, needs, sleeps=sleeps, is_calm=not how, is_moody=dice.random() < 0.5)


def _machines(dice: random.Random, size: int) -> list[Machine]:
    kind = dice.choice(["cpu", "cpu", "gpus", "gpus", "several"])
    if kind == "cpu":
        return [cpu_machine(size)]
    count = 1 if kind == "gpus" else dice.choice([2, 3])
    return [_gpu_machine(f"m{n}" if count > 1 else "local", dice.randint(1, 3), size) for n in range(count)]


def _gpu_machine(name: str, gpus: int, size: int) -> Machine:
    devices = tuple(Device(f"gpu{n}", size, size, n) for n in range(gpus))
    return Machine((*devices, Device(MAIN, 2 * size, 4 * size)), name, "cuda")


def _need(dice: random.Random, memory: int, most: int, gpus: int) -> Need:
    """One that fits beside what is kept, wherever that may be."""
    if dice.random() < 0.1:
        return Need(0)  # somebody else's machine
    fitting = min(memory, most)
    if not gpus:
        return Need(fitting)
    kind = dice.choice(["one", "one", "half", "two", "main", "beside"])
    match kind:
        case "half" if most > 1:
            return Need(fitting, gpus=0.5)
        case "two" if gpus > 1:
            return Need(min(2 * memory, 2 * most), gpus=2)
        case "main":
            return Need(fitting, gpus=0)
        case "beside":
            return Need(fitting, main_bytes=dice.randint(1, 4))
    return Need(fitting)
