"""modelgrid's own way: its planner, lap by lap, as the controller calls it, with a gateway's queues in front.

The deciding is `observe`, `plan` and `apply` of `modelgrid.planner`; here is only what surrounds them: the facts of a
lap, its pace, and who is sent where.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from modelgrid.planner import Facts, apply, observe, pause_s, plan
from modelgrid.planner.pulse import Told, fold
from modelgrid.simulation.engine import Engine, Phase
from modelgrid.simulation.request import Call
from modelgrid.simulation.world import World
from modelgrid.spec import (
    Action,
    Drain,
    Failures,
    Fleet,
    Model,
    ModelName,
    Rate,
    Refuse,
    Replica,
    ReplicaId,
    Running,
    Seen,
    Sleep,
    Start,
    State,
    Stop,
    Wake,
)
from modelgrid.spec.pulse import Pulse

SHORTEST_LAP_S = 0.005  # what a lap takes: whatever happens in it is seen by the next one
LOAD_EVERY_S = 1.0  # gateways tell so often what came, and how soon it was answered

_PROCESS = "process"
_NO_FAILURES = Failures()
_NEVER = Rate()
_NO_PULSE = Pulse()
_ModelFacts = tuple[int, float | None, float, Failures, float | None, Rate, Pulse]


@dataclass(slots=True)
class _Queue:
    """Requests that wait for a replica of one model: by priority, then as they came."""

    heap: list[tuple[int, int, Call]] = field(default_factory=list)
    order: deque[Call] = field(default_factory=deque)  # as they came, with some that no longer wait
    count: int = 0

    def put(self, call: Call) -> None:
        heapq.heappush(self.heap, (-call.request.priority, call.number, call))
        self.order.append(call)
        self.count += 1

    def take(self) -> Call | None:
        while self.heap:
            call = heapq.heappop(self.heap)[2]
            if not call.is_over:
                self.count -= 1
                return call
        return None

    @property
    def since(self) -> float | None:
        """When the oldest came."""
        while self.order and (self.order[0].sent is not None or self.order[0].is_over):
            self.order.popleft()
        return self.order[0].request.at if self.order else None


@dataclass(slots=True)
class _News:
    """What became of a model's requests since the last lap."""

    arrived: int = 0
    ended: int = 0
    tokens: int = 0


class Planned:
    """A controller and a gateway in one, in virtual time."""

    name = "modelgrid"

    def __init__(self) -> None:
        self._replicas: tuple[Replica, ...] = ()
        self._failures: dict[ModelName, Failures] = {}
        self._next = 1
        self._queues: dict[ModelName, _Queue] = {}
        self._targets: dict[ModelName, list[Engine]] = {}
        self._refusals: dict[ModelName, str] = {}
        self._last_used: dict[ModelName, float] = {}
        self._load_s: dict[ModelName, float] = {}
        self._rates: dict[ModelName, Rate] = {}
        self._news: dict[ModelName, _News] = {}
        self._pulses: dict[ModelName, Pulse] = {}
        self._seen: dict[ReplicaId, Seen] = {}
        self._models: dict[ModelName, tuple[_ModelFacts, Model]] = {}  # as they last were: most don't change in a lap
        self._turning: dict[ReplicaId, Phase] = {}  # engines that are loading, falling asleep or waking
        self._is_woken = True
        self._last_lap = -SHORTEST_LAP_S
        self._told = -LOAD_EVERY_S
        self._due = 0.0

    # the gateway

    def arrived(self, world: World, call: Call) -> None:
        """To a ready replica at once; else it waits, and the controller is told of the first."""
        self._rates[call.model] = self._rates.get(call.model, _NEVER).counted(1, world.now)
        self._news_of(call.model).arrived += 1
        if call.model in self._refusals:
            world.refuse(call, self._refusals[call.model])
            return
        if targets := self._targets.get(call.model):
            world.send(call, min(targets, key=_outstanding))
            return
        queue = self._queues.setdefault(call.model, _Queue())
        self._is_woken |= queue.count == 0
        queue.put(call)

    def left(self, world: World, call: Call) -> None:
        """One fewer waits."""
        self._queues[call.model].count -= 1

    def finished(self, world: World, call: Call, engine: Engine) -> None:
        """Load is told at once where somebody drains."""
        self._last_used[call.model] = world.now
        if call.done is not None:
            news = self._news_of(call.model)
            news.ended += 1
            news.tokens += call.request.input + call.request.output
        self._is_woken |= any(replica.state is State.DRAINING for replica in self._replicas)

    def look(self, world: World) -> float | None:
        """A lap when something woke the controller, or when it is time."""
        if any(world.engines[id].phase is not phase for id, phase in self._turning.items()):
            self._is_woken = True  # a probe has seen it
        at = min(self._due, self._last_lap + SHORTEST_LAP_S) if self._is_woken else self._due
        if world.now < at:
            return at
        self._is_woken = False
        self._last_lap = world.now
        self._lap(world)
        self._due = world.now + self._pause_s(world.now)
        return self._last_lap + SHORTEST_LAP_S if self._is_woken else self._due

    # the controller

    def _lap(self, world: World) -> None:
        lap = observe(self._fleet(world), self._facts(world))
        self._replicas, self._failures = lap.replicas, lap.failures
        history = world.history
        history.events += [(world.now, event.model, event.what, event.why) for event in lap.events]
        for event in lap.events:
            if event.what == State.READY.value:
                self._measure(ReplicaId(event.replica or ""), world.now)
        if world.now >= self._told + LOAD_EVERY_S:
            self._told = world.now
            self._beat(world)
        fleet = self._fleet(world)
        actions = plan(fleet)
        self._replicas = apply(fleet, actions)
        self._refuse(world, actions)
        self._publish(world)
        self._act(world, actions)

    def _beat(self, world: World) -> None:
        """The pulses of models, as gateways would tell what they are made of."""
        ttft: dict[ModelName, list[float]] = {}
        for engine in world.engines.values():
            if engine.ttft:
                ttft.setdefault(engine.model, []).extend(engine.take_ttft())
        in_flight: dict[ModelName, int] = {}
        ready: dict[ModelName, int] = {}
        for replica in self._replicas:
            if replica.state is State.READY:
                ready[replica.model] = ready.get(replica.model, 0) + 1
                in_flight[replica.model] = in_flight.get(replica.model, 0) + world.engines[replica.id].in_flight
        for name, model in world.models.items():
            news, queue = self._news.pop(name, None) or _News(), self._queues.get(name)
            told = Told(
                arrived=news.arrived,
                ended=news.ended,
                tokens=news.tokens,
                ttft=tuple(ttft.get(name, ())),
                in_flight=in_flight.get(name, 0),
                waiting=queue.count if queue is not None else 0,
                ready=ready.get(name, 0),
                load_s=self._load_s.get(name),
            )
            self._pulses[name] = fold(self._pulses.get(name, _NO_PULSE), told, world.now, model.spec.scaling)

    def _news_of(self, name: ModelName) -> _News:
        return self._news.setdefault(name, _News())

    def _fleet(self, world: World) -> Fleet:
        return Fleet(
            now=world.now,
            machines=world.machines,
            models=tuple(self._model(world, name) for name in world.models),
            replicas=self._replicas,
            next=self._next,
        )

    def _model(self, world: World, name: ModelName) -> Model:
        model = world.models[name]
        queue = self._queues.get(name)
        known = self._models.get(name)
        waiting, since = (queue.count, queue.since) if queue is not None and queue.count else (0, None)
        facts = (
            waiting,
            since,
            self._last_used.get(name, 0.0),
            self._failures.get(name, _NO_FAILURES),
            self._load_s.get(name),
            self._rates.get(name, _NEVER),
            self._pulses.get(name, _NO_PULSE),
        )
        if known is not None and known[0] == facts:
            return known[1]
        made = Model(
            spec=model.spec,
            need=model.need,
            runtime=_PROCESS,
            waiting=waiting,
            waiting_since=since,
            last_used=facts[2],
            failures=facts[3],
            load_s=facts[4],
            rate=facts[5],
            pulse=facts[6],
            sleep=model.sleep,
        )
        self._models[name] = (facts, made)
        return made

    def _facts(self, world: World) -> Facts:
        engines = world.engines
        return Facts(
            now=world.now,
            seen={id: self._seen[id] for id in engines},
            served=frozenset(id for id, engine in engines.items() if engine.phase is Phase.READY),
            in_flight={id: engine.in_flight for id, engine in engines.items()},
            slept=frozenset(id for id, engine in engines.items() if engine.phase is Phase.ASLEEP),
            woken=frozenset(id for id, engine in engines.items() if engine.phase is Phase.READY),
        )

    def _measure(self, id: ReplicaId, now: float) -> None:
        replica = next(replica for replica in self._replicas if replica.id == id)
        if replica.ready_at == now:  # not one that woke
            self._load_s[replica.model] = now - replica.created

    def _publish(self, world: World) -> None:
        """The routing table: gateways act on it at once, and those who wait are sent."""
        self._targets = {}
        for replica in self._replicas:
            if replica.state is State.READY:
                self._targets.setdefault(replica.model, []).append(world.engines[replica.id])
        for name, targets in self._targets.items():
            queue = self._queues.get(name)
            while queue is not None and (call := queue.take()) is not None:
                world.send(call, min(targets, key=_outstanding))

    def _refuse(self, world: World, actions: Iterable[Action]) -> None:
        self._refusals = {action.model: action.why for action in actions if isinstance(action, Refuse)}
        for name, why in self._refusals.items():
            queue = self._queues.get(name)
            while queue is not None and (call := queue.take()) is not None:
                world.refuse(call, why)

    def _act(self, world: World, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Start(replica=id, model=name, machine=machine, shares=shares, why=why):
                    self._next = max(self._next, int(id.rsplit("-", 1)[1]) + 1)
                    world.start(id, name, machine, shares)
                    revision = world.models[name].spec.revision
                    self._seen[id] = Seen(id, name, revision, Running("", ""))
                    world.history.events.append((world.now, name, "start", why))
                case Drain(replica=id, why=why):
                    world.history.events.append((world.now, world.engines[id].model, "drain", why))
                case Sleep(replica=id):
                    world.sleep(id, next(replica.asleep_shares for replica in self._replicas if replica.id == id))
                case Wake(replica=id):
                    world.wake(id)
                case Stop(replica=id):
                    if id in world.engines:
                        world.stop(id)
        turning = (Phase.LOADING, Phase.FALLING_ASLEEP, Phase.WAKING)
        self._turning = {id: engine.phase for id, engine in world.engines.items() if engine.phase in turning}

    def _pause_s(self, now: float) -> float:
        return pause_s(self._replicas, now, is_wanted=any(queue.count for queue in self._queues.values()))


def _outstanding(engine: Engine) -> int:
    return engine.in_flight
