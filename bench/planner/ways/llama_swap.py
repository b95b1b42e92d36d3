"""llama-swap's scheduler of 2026: first come, and whoever asks for what is loaded goes straight.

What is modelled is internal/router/scheduler/fifo.go of August 2026. A request joins a load of its model that is under
way; goes straight if its model is ready and nobody swaps it out; starts a swap if nothing that would be evicted is busy
or part of another swap; else waits in a queue that is walked in order, and by the model's priority, whenever a swap
has ended or a model has become idle. So a model is never stopped while it is busy, and one that never is idle is never
stopped. Left out, to its advantage: the limit of ten requests at a time for each model, above which it refuses.
"""

from __future__ import annotations

from bench.planner.ways.placing import Place, engine_of, find_place, start

from modelgrid.simulation.engine import Engine, Phase
from modelgrid.simulation.request import Call
from modelgrid.simulation.world import World
from modelgrid.spec import ModelName


class LlamaSwap:
    """First come; what is loaded goes straight."""

    name = "llama-swap"

    def __init__(self) -> None:
        self._queue: list[Call] = []
        self._swaps: dict[ModelName, tuple[Place, list[Call]]] = {}
        self._number = 0
        self._is_due = False  # the queue is walked when a swap has ended, or a model has become idle

    def arrived(self, world: World, call: Call) -> None:
        """Served, joined to a swap, or queued behind those of the same priority."""
        if not self._decide(world, call):
            priority = _priority(world, call)
            behind = (index for index, other in enumerate(self._queue) if _priority(world, other) < priority)
            self._queue.insert(next(behind, len(self._queue)), call)

    def left(self, world: World, call: Call) -> None:
        """Out of where it waits. A swap goes on without it."""
        if call in self._queue:
            self._queue.remove(call)
        else:
            self._swaps[call.model][1].remove(call)

    def finished(self, world: World, call: Call, engine: Engine) -> None:
        """A model that has become idle may be swapped out."""
        self._is_due |= not engine.in_flight

    def look(self, world: World) -> float | None:
        """Go on with swaps; walk the queue where that may help."""
        for model, (place, calls) in list(self._swaps.items()):
            engine = engine_of(world, model)
            if engine is None:
                self._load(world, model, place)
            elif engine.phase is Phase.READY:
                del self._swaps[model]
                self._is_due = True
                for call in calls:
                    world.send(call, engine)
        if self._is_due:
            self._is_due = False
            self._queue = [call for call in self._queue if not self._decide(world, call)]
        return None

    def _decide(self, world: World, call: Call) -> bool:
        """Whether it needs no place in the queue."""
        if call.model in self._swaps:
            self._swaps[call.model][1].append(call)
            return True
        swapped = {id for place, _ in self._swaps.values() for id in place.evicted}
        engine = engine_of(world, call.model)
        if engine is not None and engine.id not in swapped:
            world.send(call, engine)
            return True
        if engine is not None:
            return False
        loading = [engine.id for engine in world.engines.values() if engine.phase is not Phase.READY]
        busy = [engine.id for engine in world.engines.values() if engine.in_flight]
        place = find_place(world, call.model, [*loading, *busy, *swapped])
        if place is None or self._is_promised(world, place):
            if find_place(world, call.model) is None:
                world.refuse(call, "it fits nowhere")
                return True
            return False
        self._swaps[call.model] = (place, [call])
        for id in place.evicted:
            world.stop(id)
        self._load(world, call.model, place)
        return True

    def _is_promised(self, world: World, place: Place) -> bool:
        """Whether another swap has been promised what is, or comes, free there."""
        devices = {(place.machine, share.device) for share in place.shares}
        return any(
            (other.machine, share.device) in devices and engine_of(world, model) is None
            for model, (other, _) in self._swaps.items()
            for share in other.shares
        )

    def _load(self, world: World, model: ModelName, place: Place) -> None:
        if all(world.free_bytes(place.machine, share.device) >= share.memory_bytes for share in place.shares):
            self._number += 1
            start(world, model, place, self._number)


def _priority(world: World, call: Call) -> int:
    return world.models[call.model].spec.priority
