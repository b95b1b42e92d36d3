"""One visit to a world: trouble, then calm, and what must have come to an end by then."""

from __future__ import annotations

import random

from modelgrid.spec import ModelName, ModelSpec, Need, Scaling, State, cpu_machine
from sim.faults import Faults
from sim.world import World

TROUBLE_TICKS = 300
CALM_TICKS = 1600
LOOK_EVERY_TICKS = 10


def visit(world: World) -> str | None:
    """What went wrong; None when nothing did."""
    for _ in range(TROUBLE_TICKS):
        world.tick()
        if world.violations:
            return world.violations[0]
    world.calm_down()
    for tick in range(1, CALM_TICKS + 1):
        world.tick()
        if world.violations:
            return world.violations[0]
        if tick % LOOK_EVERY_TICKS == 0 and unfinished(world) is None:
            return None
    return unfinished(world)


def unfinished(world: World) -> str | None:
    """What should have come to an end in a calm world, and did not."""
    waiting = {name: len(queue) for name, queue in world.callers.waiting.items() if queue}
    if waiting:
        return f"requests still wait: {waiting}; {_told(world)}"
    if any(world.callers.running.values()):
        return f"requests still run: {world.callers.running}; {_told(world)}"
    if any(
        replica.state not in (State.READY, State.STARTING, State.ASLEEP) or replica.turning
        for replica in world.replicas
    ):
        return f"replicas linger: {_told(world)}"
    for name, spec in world.specs.items():
        ready = sum(r.state is State.READY and r.revision == spec.revision for r in world.replicas if r.model == name)
        if ready < spec.scaling.min:
            return f"{name} has {ready} of {spec.scaling.min} replicas: {world.failures.get(name)}"
    if lost := set(world.grid.processes) - {replica.id for replica in world.replicas}:
        return f"nobody knows of {lost}"
    if not world.callers.answered and not world.callers.refused:
        return "nobody got an answer"
    return None


def longest_wait_beside_small_ones_s(seed: int) -> float:
    """How long requests for a large model wait, where four small ones take turns in two places."""
    large = ModelName("large")
    needs = {large: Need(10)} | {ModelName(f"small{n}"): Need(5) for n in range(4)}
    specs = {name: ModelSpec(name, "custom", scaling=Scaling(idle_s=30.0, target=4)) for name in needs}
    machines = [cpu_machine(10)]
    world = World(random.Random(seed), Faults(), machines, specs, needs, arrivals=0.1, request_s=1.0, is_calm=True)
    for _ in range(1500):
        world.tick()
    assert world.violations == []
    still = (world.grid.time - came for came in world.callers.waiting[large])
    return max(world.callers.longest_s.get(large, 0.0), *still, 0.0)


def _told(world: World) -> list[tuple[str, str, str | None, str]]:
    return [(replica.id, replica.state.value, replica.turning, replica.why) for replica in world.replicas]
