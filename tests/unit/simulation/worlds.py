"""Small worlds, and a way that is told what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modelgrid.simulation.engine import Engine, Phase
from modelgrid.simulation.request import Call, Request
from modelgrid.simulation.speed import Speed
from modelgrid.simulation.world import SimulatedModel, World
from modelgrid.spec import ModelName, ModelSpec, ReplicaId, Scaling
from modelgrid.spec.machine import LOCAL, Asleep, Device, Machine, Need, Share

GB = 10**9
SPEED = Speed(load_s=10.0, prefill_tokens_s=1000.0, step_s=0.1, step_more_s=0.1, most_running=4, stop_s=1.0)


def gpu_machine(*gigabytes: int, name: str = LOCAL) -> Machine:
    return Machine(tuple(Device(f"gpu{n}", size * GB, size * GB, n) for n, size in enumerate(gigabytes)), name, "cuda")


def model(
    name: str,
    gigabytes: int = 20,
    *,
    speed: Speed = SPEED,
    scaling: Scaling | None = None,
    priority: int = 0,
    sleep: Asleep | None = None,
) -> SimulatedModel:
    level = None if sleep is None else 1
    spec = ModelSpec(ModelName(name), "custom", scaling=scaling or Scaling(), priority=priority, sleep=level)
    return SimulatedModel(spec, Need(gigabytes * GB), {LOCAL: speed}, sleep)


def request(
    at: float,
    name: str = "a",
    *,
    input: int = 1000,
    output: int = 11,
    priority: int = 0,
    deadline_s: float | None = None,
    patience_s: float = 600.0,
) -> Request:
    return Request(at, ModelName(name), input, output, priority, deadline_s, patience_s)


class Told:
    """Loads one model at the beginning, sends it everything; then does what it was told at times."""

    name = "told"

    def __init__(
        self,
        loads: Sequence[tuple[str, int]] = (("a", 20),),
        orders: dict[float, Callable[[World], object]] | None = None,
    ) -> None:
        self.loads = loads
        self.orders = dict(orders or {})
        self.waiting: list[Call] = []
        self.left_calls: list[Call] = []

    def arrived(self, world: World, call: Call) -> None:
        self.waiting.append(call)

    def left(self, world: World, call: Call) -> None:
        self.waiting.remove(call)
        self.left_calls.append(call)

    def finished(self, world: World, call: Call, engine: Engine) -> None:
        pass

    def look(self, world: World) -> float | None:
        for name, gigabytes in self.loads:
            world.start(ReplicaId(f"{name}-1"), ModelName(name), LOCAL, (Share("gpu0", gigabytes * GB),))
        self.loads = ()
        for at in sorted(self.orders):
            if at <= world.now:
                self.orders.pop(at)(world)
        for call in list(self.waiting):
            ready = [e for e in world.engines.values() if e.model == call.model and e.phase is Phase.READY]
            if ready:
                self.waiting.remove(call)
                world.send(call, ready[0])
        return min(self.orders, default=None)
