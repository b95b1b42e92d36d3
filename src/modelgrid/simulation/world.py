"""The world: virtual time, engines and callers. What is loaded and who is served where is a `Way`'s to say.

Discrete events: the next one is always the earliest. After each the way may look and act, so two runs with the same
trace and the same way are the same to the last digit.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from modelgrid.simulation.engine import Engine, Phase
from modelgrid.simulation.request import Call, Request
from modelgrid.simulation.speed import Speed
from modelgrid.spec import ModelName, ModelSpec, ReplicaId
from modelgrid.spec.machine import Asleep, Machine, Need, Share


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """A model of the simulation: what it needs, and how fast it is."""

    spec: ModelSpec
    need: Need
    speed: Mapping[str, Speed]  # by machine
    sleep: Asleep | None = None

    @property
    def name(self) -> ModelName:
        """Its name."""
        return self.spec.name


class Way(Protocol):
    """A way to decide what is loaded and who is served where. The world calls; a way acts through the world only."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def arrived(self, world: World, call: Call) -> None:
        """A request has come. It is the way's until it is sent, refused, or its caller leaves."""

    def left(self, world: World, call: Call) -> None:
        """The caller of a request that was not sent has gone away."""

    def finished(self, world: World, call: Call, engine: Engine) -> None:
        """`engine` has answered a request, or its caller has left."""

    def look(self, world: World) -> float | None:
        """Act if there is reason to. Called after every event; tells when to be called at the latest, None: at the
        next event."""


@dataclass(frozen=True, slots=True)
class Span:
    """An engine was in one phase for a time."""

    engine: ReplicaId
    model: ModelName
    machine: str
    shares: tuple[Share, ...]
    phase: Phase
    start: float
    end: float


class OverCommitted(Exception):
    """More memory was ordered than a device has: a defect of the way."""


class _Kind(IntEnum):
    """At one moment, what ends comes before what begins."""

    ENGINE = 0
    PHASE = 1
    LEAVE = 2
    ARRIVE = 3
    LOOK = 4


_NEXT = {Phase.LOADING: Phase.READY, Phase.FALLING_ASLEEP: Phase.ASLEEP, Phase.WAKING: Phase.READY}
_NEXT[Phase.ENDING] = Phase.GONE


@dataclass(slots=True)
class History:
    """What happened, for reports and pictures."""

    calls: list[Call] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    waiting: list[tuple[float, ModelName, int]] = field(default_factory=list)  # at each change, of one model
    starts: int = 0
    wakes: int = 0
    events: list[tuple[float, str, str, str]] = field(default_factory=list)  # when, model, what, why
    end: float = 0.0


class World:
    """Machines, engines and callers, moved along by events."""

    def __init__(self, machines: Sequence[Machine], models: Sequence[SimulatedModel], way: Way) -> None:
        self.now = 0.0
        self.machines = tuple(machines)
        self.models = {model.name: model for model in models}
        self.engines: dict[ReplicaId, Engine] = {}
        self.history = History()
        self._way = way
        self._events: list[tuple[float, int, int, object, int]] = []
        self._number = 0
        self._look_at: float | None = None
        self._looks = 0  # the version of the next look: an older one no longer counts
        self._waiting: dict[ModelName, int] = {}
        self._open = 0  # requests that are not over
        self._coming = 0
        self._free = {(m.name, d.name): d.memory_bytes for m in machines for d in m.devices}

    def run(self, requests: Sequence[Request], on_arrival: Callable[[int], None] | None = None) -> History:
        """Serve a trace to its end: until the last request is answered, or its caller has left. `on_arrival` is told
        how many have come."""
        for request in requests:
            self._push(request.at, _Kind.ARRIVE, request, 0)
        self._coming = len(requests)
        self._look()
        while self._events and (self._coming or self._open):
            self.now, kind, _, what, version = heapq.heappop(self._events)
            if self._happen(_Kind(kind), what, version):
                self._look()
            if on_arrival is not None and kind == _Kind.ARRIVE:
                on_arrival(len(self.history.calls))
        for engine in self.engines.values():
            self._close_span(engine)
        self.history.end = self.now
        return self.history

    # what ways do

    def start(self, id: ReplicaId, model: ModelName, machine: str, shares: tuple[Share, ...]) -> Engine:
        """Begin to load a model. Raises OverCommitted."""
        self._take(machine, shares)
        speed = self.models[model].speed[machine]
        engine = Engine(id, model, machine, shares, speed, self.now, since=self.now, last_used=self.now)
        self.engines[id] = engine
        self.history.starts += 1
        self._push(self.now + speed.load_s, _Kind.PHASE, engine, self._renew(engine))
        return engine

    def stop(self, id: ReplicaId) -> None:
        """End an engine; what it still has is lost to its callers. Twice is harmless."""
        engine = self.engines[id]
        if engine.phase is Phase.ENDING:
            return
        for call in engine.calls():
            self.refuse(call, "its replica was stopped")
        engine.queue.clear()
        engine.reading, engine.writing = None, []
        self._turn(engine, Phase.ENDING, engine.speed.stop_s)

    def sleep(self, id: ReplicaId, keeps: tuple[Share, ...]) -> None:
        """Let a ready engine without requests fall asleep: then it holds what it `keeps`."""
        engine = self.engines[id]
        if engine.phase is Phase.READY:
            engine.keeps = keeps
            self._turn(engine, Phase.FALLING_ASLEEP, engine.speed.sleep_s)

    def wake(self, id: ReplicaId) -> None:
        """Wake an engine that sleeps."""
        engine = self.engines[id]
        if engine.phase is Phase.ASLEEP:
            self._give(engine.machine, engine.keeps)
            self._take(engine.machine, engine.shares)
            self.history.wakes += 1
            self._turn(engine, Phase.WAKING, engine.speed.wake_s)

    def send(self, call: Call, engine: Engine) -> None:
        """Give a request to a ready engine."""
        assert engine.phase is Phase.READY, f"{engine.id} is {engine.phase}"
        call.sent = self.now
        call.replica = engine.id
        self._count_waiting(call.model, -1)
        engine.take(call, self.now)
        self._expect(engine)

    def refuse(self, call: Call, why: str) -> None:
        """Turn a request away."""
        if call.sent is None:
            self._count_waiting(call.model, -1)
        call.left = self.now
        call.refused = why
        self._open -= 1

    def free_bytes(self, machine: str, device: str) -> int:
        """Memory that nothing holds."""
        return self._free[machine, device]

    # events

    def _happen(self, kind: _Kind, what: object, version: int) -> bool:
        """Let one event happen; tells whether it still counted."""
        match what:
            case Request():
                self._arrive(what)
            case Call():
                return self._leave(what)
            case Engine() if what.version != version:
                return False
            case Engine() if kind is _Kind.PHASE:
                self._end_phase(what)
            case Engine():
                self._serve(what)
            case _ if version != self._looks:
                return False
            case _:
                self._look_at = None
        return True

    def _arrive(self, request: Request) -> None:
        call = Call(request, len(self.history.calls))
        self.history.calls.append(call)
        self._coming -= 1
        self._open += 1
        self._count_waiting(call.model, 1)
        self._way.arrived(self, call)
        if not call.is_over:
            self._push(self.now + request.patience_s, _Kind.LEAVE, call, 0)

    def _leave(self, call: Call) -> bool:
        if call.is_over:
            return False
        call.left = self.now
        self._open -= 1
        engine = self.engines.get(call.replica) if call.replica else None
        if engine is None:
            self._count_waiting(call.model, -1)
            self._way.left(self, call)
            return True
        engine.drop(call, self.now)
        self._expect(engine)
        self._way.finished(self, call, engine)
        return True

    def _serve(self, engine: Engine) -> None:
        for call in engine.advance(self.now):
            self._open -= 1
            self._way.finished(self, call, engine)
        self._expect(engine)

    def _end_phase(self, engine: Engine) -> None:
        phase = _NEXT[engine.phase]
        self._close_span(engine)
        if phase is Phase.GONE:
            self._give(engine.machine, engine.shares)
            del self.engines[engine.id]
        elif phase is Phase.ASLEEP:
            self._give(engine.machine, engine.shares)
            self._take(engine.machine, engine.keeps)
        engine.phase, engine.since = phase, self.now

    def _turn(self, engine: Engine, phase: Phase, duration_s: float) -> None:
        self._close_span(engine)
        if engine.phase is Phase.ASLEEP and phase is Phase.ENDING:
            engine.shares = engine.keeps  # all that there is to be given back
        engine.phase, engine.since = phase, self.now
        self._push(self.now + duration_s, _Kind.PHASE, engine, self._renew(engine))

    def _look(self) -> None:
        at = self._way.look(self)
        if at is not None and (self._look_at is None or at < self._look_at):
            self._look_at = max(at, self.now)
            self._looks += 1
            self._push(self._look_at, _Kind.LOOK, None, self._looks)

    def _expect(self, engine: Engine) -> None:
        """The next thing that this engine does."""
        version = self._renew(engine)
        if (at := engine.next_at()) is not None:
            self._push(max(at, self.now), _Kind.ENGINE, engine, version)

    def _renew(self, engine: Engine) -> int:
        engine.version += 1
        return engine.version

    def _push(self, at: float, kind: _Kind, what: object, version: int) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, int(kind), self._number, what, version))

    # counts

    def _count_waiting(self, model: ModelName, change: int) -> None:
        count = self._waiting.get(model, 0) + change
        self._waiting[model] = count
        self.history.waiting.append((self.now, model, count))

    def _close_span(self, engine: Engine) -> None:
        shares = engine.keeps if engine.phase is Phase.ASLEEP else engine.shares
        span = Span(engine.id, engine.model, engine.machine, shares, engine.phase, engine.since, self.now)
        self.history.spans.append(span)

    def _take(self, machine: str, shares: tuple[Share, ...]) -> None:
        for share in shares:
            self._free[machine, share.device] -= share.memory_bytes
            if self._free[machine, share.device] < 0:
                over = -self._free[machine, share.device]
                raise OverCommitted(f"{share.device} of {machine} has {over} bytes less than was ordered of it")

    def _give(self, machine: str, shares: tuple[Share, ...]) -> None:
        for share in shares:
            self._free[machine, share.device] += share.memory_bytes
