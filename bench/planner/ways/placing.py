"""Where a model goes that is loaded, and who makes room: the same for all ways of others.

Each model has one replica, on the machine and GPU with the most free memory where it fits. Who has to go is the least
recently used. That is more than the others have to offer where memory is to be shared (llama-swap's groups are written
by hand, and one of them holds one model at a time by default), so it is to their advantage.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelgrid.simulation.engine import Engine, Phase
from modelgrid.simulation.world import World
from modelgrid.spec import ModelName, ReplicaId
from modelgrid.spec.machine import Share


@dataclass(frozen=True, slots=True)
class Place:
    """Memory for one replica, and who has to go for it."""

    machine: str
    shares: tuple[Share, ...]
    evicted: tuple[ReplicaId, ...]


def find_place(world: World, model: ModelName, kept: Iterable[ReplicaId] = ()) -> Place | None:
    """The place that costs the fewest evictions, of those the one with the most free memory. None: not even without
    all others but `kept`, or it fits nowhere."""
    kept = frozenset(kept)
    places = [
        (len(evicted), -free, machine.name, device, evicted)
        for machine in world.machines
        for device in (gpu.name for gpu in machine.gpus or machine.devices)
        if (found := _room(world, model, machine.name, device, kept)) is not None
        for free, evicted in [found]
    ]
    if not places:
        return None
    _, _, machine_name, device, evicted = min(places)
    return Place(machine_name, (Share(device, _bytes(world, model)),), evicted)


def engine_of(world: World, model: ModelName) -> Engine | None:
    """The engine of a model that is not on its way out."""
    own = (engine for engine in world.engines.values() if engine.model == model and engine.phase is not Phase.ENDING)
    return next(own, None)


def start(world: World, model: ModelName, place: Place, number: int) -> Engine:
    """Load it there."""
    return world.start(ReplicaId(f"{model}-{number}"), model, place.machine, place.shares)


def _room(
    world: World, model: ModelName, machine: str, device: str, kept: frozenset[ReplicaId]
) -> tuple[int, tuple[ReplicaId, ...]] | None:
    """What is free there now, and who has to go, the least recently used first."""
    need = _bytes(world, model)
    free = world.free_bytes(machine, device)
    here = [e for e in world.engines.values() if e.machine == machine and any(s.device == device for s in e.shares)]
    room = free + sum(_held(engine, device) for engine in here if engine.phase is Phase.ENDING)
    evicted = []
    for engine in sorted(here, key=lambda engine: (engine.last_used, engine.id)):
        if room >= need:
            break
        if engine.phase is not Phase.ENDING and engine.id not in kept:
            room += _held(engine, device)
            evicted.append(engine.id)
    return (free, tuple(evicted)) if room >= need else None


def _held(engine: Engine, device: str) -> int:
    return sum(share.memory_bytes for share in engine.shares if share.device == device)


def _bytes(world: World, model: ModelName) -> int:
    need = world.models[model].need.memory_bytes
    assert need is not None
    return need
