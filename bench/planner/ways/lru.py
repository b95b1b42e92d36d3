"""LRU: requests for loaded models go straight, loads are taken in order, the least recently used idle one goes.

What is modelled is Ollama's scheduler (server/sched.go). Pending requests are taken in order. One whose model is ready
is sent; one whose model loads waits for it, and the next is looked at. One that needs a load which fits is loaded, and
the next is looked at. One that needs room unloads another: an idle one, the least recently used, else the least
recently used of all once it has answered what it has; until that has happened nothing behind it is taken, "even if for
a different model that's loaded". Left out, to its advantage: the wait for the driver to report memory as free, its
limit of requests at a time for each model, the reloads for another context length, and that models are unloaded after
five minutes without use. Callers who leave are taken out.
"""

from __future__ import annotations

from collections import deque

from bench.planner.ways.placing import Place, engine_of, find_place, start

from modelgrid.simulation.engine import Engine, Phase
from modelgrid.simulation.request import Call
from modelgrid.simulation.world import World
from modelgrid.spec import ModelName


class Lru:
    """The least recently used one goes."""

    name = "lru"

    def __init__(self) -> None:
        self._pending: deque[Call] = deque()
        self._loading: dict[ModelName, list[Call]] = {}  # who waits for a load that is under way
        self._place: Place | None = None  # what is being made room for, for the first of the pending
        self._number = 0

    def arrived(self, world: World, call: Call) -> None:
        """Pending."""
        self._pending.append(call)

    def left(self, world: World, call: Call) -> None:
        """Out of where it waits. A room that was being made for it alone is not needed any more."""
        if call in self._pending:
            if self._pending[0] is call:
                self._place = None
            self._pending.remove(call)
        else:
            self._loading[call.model].remove(call)

    def finished(self, world: World, call: Call, engine: Engine) -> None:
        """Looked at anew after every event."""

    def look(self, world: World) -> float | None:
        """Those whose load has ended are sent; then the pending ones, in order, until one has to wait for room."""
        for model in list(self._loading):
            engine = engine_of(world, model)
            if engine is not None and engine.phase is Phase.READY:
                for call in self._loading.pop(model):
                    world.send(call, engine)
        while self._pending and self._take(world, self._pending[0]):
            self._pending.popleft()
            self._place = None
        return None

    def _take(self, world: World, call: Call) -> bool:
        """Whether the next one may be looked at."""
        engine = engine_of(world, call.model)
        if engine is not None:
            if engine.phase is Phase.READY:
                world.send(call, engine)
            else:
                self._loading.setdefault(call.model, []).append(call)
            return True
        if self._place is None:
            self._place = self._room(world, call.model)
            if self._place is None:
                world.refuse(call, "it fits nowhere")
                return True
        for id in self._place.evicted:
            victim = world.engines.get(id)
            if victim is not None and victim.phase is Phase.READY and not victim.in_flight:
                world.stop(id)
        if any(world.free_bytes(self._place.machine, s.device) < s.memory_bytes for s in self._place.shares):
            return False
        self._number += 1
        start(world, call.model, self._place, self._number)
        self._loading.setdefault(call.model, []).append(call)
        return True

    def _room(self, world: World, model: ModelName) -> Place | None:
        """Idle ones first; busy ones where those are not enough."""
        busy = [engine.id for engine in world.engines.values() if engine.in_flight]
        loading = [engine.id for engine in world.engines.values() if engine.phase is Phase.LOADING]
        return (
            find_place(world, model, [*busy, *loading]) or find_place(world, model, loading) or find_place(world, model)
        )
