"""First-come swapping: one queue over all requests, and its head decides.

What is modelled: the head's model is loaded if it is not; for that the least recently used ones go, once they have
answered what they have. Who comes behind the head waits, whatever it is for, until the head has been sent; requests
for the model that is loaded go straight while nothing waits. So llama-swap was until June 2026 (a request held the
lock of its group while it swapped, and all others waited for that), and so are most hand-written swapping proxies.
Callers who leave are taken out of the queue; a load that was begun for one of them goes on.
"""

from __future__ import annotations

from collections import deque

from bench.planner.ways.placing import Place, engine_of, find_place, start

from modelgrid.simulation.engine import Engine, Phase
from modelgrid.simulation.request import Call
from modelgrid.simulation.world import World


class FirstCome:
    """One queue; its head decides."""

    name = "first-come"

    def __init__(self) -> None:
        self._queue: deque[Call] = deque()
        self._place: Place | None = None  # what is being made room for, for the head
        self._number = 0

    def arrived(self, world: World, call: Call) -> None:
        """To the end of the queue."""
        self._queue.append(call)

    def left(self, world: World, call: Call) -> None:
        """Out of the queue."""
        if self._queue[0] is call:
            self._place = None
        self._queue.remove(call)

    def finished(self, world: World, call: Call, engine: Engine) -> None:
        """Looked at anew after every event."""

    def look(self, world: World) -> float | None:
        """Send the head, and the next one, as long as their models are ready; else swap for the head."""
        while self._queue and self._serve(world, self._queue[0]):
            self._queue.popleft()
            self._place = None
        return None

    def _serve(self, world: World, call: Call) -> bool:
        engine = engine_of(world, call.model)
        if engine is not None:
            if engine.phase is Phase.READY:
                world.send(call, engine)
            return engine.phase is Phase.READY
        if self._place is None:
            self._place = find_place(world, call.model)
            if self._place is None:
                world.refuse(call, "it fits nowhere")
                return True
        evicted = [world.engines[id] for id in self._place.evicted if id in world.engines]
        for victim in evicted:
            if victim.phase is Phase.READY and not victim.in_flight:
                world.stop(victim.id)
        if all(world.free_bytes(self._place.machine, s.device) >= s.memory_bytes for s in self._place.shares):
            self._number += 1
            start(world, call.model, self._place, self._number)
        return False
