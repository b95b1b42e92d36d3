"""The facts behind actions and events: what was known at that moment, as data for those who ask why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from modelgrid.planner import backoff
from modelgrid.planner.evict import less
from modelgrid.planner.life import Lap
from modelgrid.planner.place import Room
from modelgrid.spec import (
    Action,
    Drain,
    Event,
    Failures,
    Fleet,
    Model,
    ModelName,
    Refuse,
    Replica,
    ReplicaId,
    Share,
    Sleep,
    Start,
    State,
    Stop,
    Unknown,
    Wake,
    sum_of,
)
from modelgrid.spec.reason import Because, Cause, Reason

_UP = frozenset({State.STARTING, State.READY})


class Reasons:
    """The reasons of actions that were planned on `fleet` and are not yet applied to it. Nothing is looked up before
    it is asked for: most laps do nothing that is new."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def of(self, action: Action) -> Reason:
        """Of one of them; ask in their order, as starts take from what is free."""
        return _reason(action, self._known)

    @cached_property
    def _known(self) -> _Known:
        return _Known(self._fleet)


def with_reasons(
    lap: Lap,
    before: Sequence[Replica],
    phases: Mapping[ReplicaId, Mapping[str, float]],
    logs: Mapping[ReplicaId, tuple[str, ...]],
) -> tuple[Event, ...]:
    """The events of `lap` with the facts behind them. `before` are the replicas as they were; `phases` of starts that
    are over, and `logs` of replicas that failed."""
    if not lap.events:
        return ()
    was = {replica.id: replica for replica in before}
    now = {replica.id: replica for replica in lap.replicas}
    return tuple(_with_reason(event, lap, was, now, phases, logs) for event in lap.events)


def _with_reason(
    event: Event,
    lap: Lap,
    was: Mapping[ReplicaId, Replica],
    now: Mapping[ReplicaId, Replica],
    phases: Mapping[ReplicaId, Mapping[str, float]],
    logs: Mapping[ReplicaId, tuple[str, ...]],
) -> Event:
    id, model = ReplicaId(event.replica or ""), ModelName(event.model)
    match event.what:
        case "ready":
            reason = Reason(phases=phases.get(id))
        case "gone" if id in was:
            reason = Reason(memory_bytes=was[id].memory_bytes or None)
        case "adopt" if now[id].state is State.STOPPING:
            reason = Reason(cause=Cause.CHANGED)
        case "failed":
            failures = lap.failures.get(model, Failures())
            retry_at = backoff.retry_at(failures) if failures.count else None
            reason = Reason(failures=failures.count or None, retry_at=retry_at, log=logs.get(id, ()))
        case _:
            return event
    return replace(event, reason=reason)


class _Known:
    def __init__(self, fleet: Fleet) -> None:
        self.now = fleet.now
        self.total_bytes = sum(machine.memory_bytes for machine in fleet.machines)
        self.models = {str(model.spec.name): model for model in fleet.models}
        self.replicas = {replica.id: replica for replica in fleet.replicas}
        self.up: defaultdict[ModelName, list[Replica]] = defaultdict(list)
        for replica in fleet.replicas:
            if replica.state in _UP:
                self.up[replica.model].append(replica)
        self._fleet = fleet

    def take(self, machine: str, shares: Sequence[Share]) -> int:
        """How much is free of the devices of `shares`, which are then taken."""
        free = sum(max(0, self._room.free.get((machine, share.device), 0)) for share in shares)
        self._room.take(machine, shares)
        return free

    @cached_property
    def _room(self) -> Room:
        return Room(self._fleet.machines, self._fleet.replicas)


def _reason(action: Action, known: _Known) -> Reason:
    match action:
        case Start(model=name, shares=shares, machine=machine):
            return _beginning(action.because, known.models[name], machine, shares, known)
        case Wake(replica=id):
            replica = known.replicas[id]
            shares = tuple(less(replica.shares, replica.asleep_shares))
            return _beginning(action.because, known.models[replica.model], replica.machine, shares, known)
        case Drain(replica=id, then=then):
            return _ending(action.because, known.replicas[id], then, known)
        case Sleep(replica=id):
            return _ending(None, known.replicas[id], "sleep", known)
        case Stop(replica=id):
            return _ending(action.because, known.replicas[id], None, known)
        case Refuse(model=name):
            return _refusal(action.because, known.models[name], known)


def _beginning(because: Because | None, model: Model, machine: str, shares: Sequence[Share], known: _Known) -> Reason:
    own = known.up[model.spec.name]
    in_flight = sum(replica.in_flight or 0 for replica in own)
    scaling = model.spec.scaling
    cause = because.cause if because else None
    if cause is Cause.LOAD and scaling.ttft_s is not None and in_flight + model.waiting <= scaling.target * len(own):
        cause = Cause.OBJECTIVE
    return Reason(
        cause=cause,
        waiting=model.waiting,
        waited_s=_waited_s(model, known),
        machine=machine,
        devices=tuple(share.device for share in shares),
        memory_bytes=sum_of(shares),
        free_bytes=known.take(machine, shares),
        replicas=len(own),
        in_flight=in_flight,
        target=scaling.target,
        limit_s=scaling.ttft_s if cause is Cause.OBJECTIVE else None,
        failures=model.failures.count or None,
    )


def _ending(because: Because | None, replica: Replica, then: str | None, known: _Known) -> Reason:
    model = known.models.get(replica.model)
    asking = known.models.get(because.other) if because and because.other else None
    cause = because.cause if because else None
    is_idle = replica.in_flight == 0 and replica.state is State.READY
    return Reason(
        cause=cause,
        other=because.other if because else None,
        waiting=asking.waiting if asking else None,
        waited_s=_waited_s(asking, known) if asking else None,
        machine=replica.machine,
        devices=tuple(share.device for share in replica.counted),
        memory_bytes=replica.memory_bytes,
        total_bytes=known.total_bytes if cause is Cause.SHRUNK else None,
        in_flight=replica.in_flight,
        idle_s=max(0.0, known.now - replica.last_used) if is_idle and replica.last_used else None,
        limit_s=model.spec.scaling.idle_s if model and cause is Cause.IDLE else None,
        then=then,
    )


def _refusal(because: Because | None, model: Model, known: _Known) -> Reason:
    failures = model.failures
    return Reason(
        cause=because.cause if because else None,
        waiting=model.waiting,
        memory_bytes=None if isinstance(model.need, Unknown) else model.need.memory_bytes,
        total_bytes=known.total_bytes,
        failures=failures.count or None,
        retry_at=backoff.retry_at(failures) if failures.count else None,
    )


def _waited_s(model: Model, known: _Known) -> float | None:
    return None if model.waiting_since is None else max(0.0, known.now - model.waiting_since)
