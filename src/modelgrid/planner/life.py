"""The life of replicas: what was seen is folded into what is known, by the moves of `MOVES` only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelgrid.planner import backoff
from modelgrid.planner.evict import asleep_shares
from modelgrid.planner.place import At, free_bytes, on_each, shares_on
from modelgrid.spec import (
    MAIN,
    MOVES,
    Action,
    Device,
    Drain,
    Event,
    Exited,
    Failures,
    Fleet,
    IllegalMove,
    Model,
    ModelName,
    Need,
    Refuse,
    Replica,
    ReplicaId,
    Running,
    Seen,
    Share,
    Sleep,
    Start,
    State,
    Stop,
    Unknown,
    Wake,
    most,
    shares_of,
)
from modelgrid.spec.units import format_bytes, format_seconds

_ALIVE = frozenset({State.STARTING, State.READY, State.ASLEEP})


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out since the last lap. Ids are replicas'.

    `starting` has to be read before `seen`: a start that ends in between is then in both, never in neither. So has
    `slept`: what one holds that has just slept was measured asleep, then.
    """

    now: float
    seen: Mapping[ReplicaId, Seen] = field(default_factory=dict)
    blind: frozenset[str] = frozenset()  # runtimes that could not say what is there: their replicas stay as they are
    starting: frozenset[ReplicaId] = frozenset()  # calls of Runtime.start that are under way
    inherited: frozenset[ReplicaId] = frozenset()  # ordered by an earlier controller, whose calls died with it
    start_errors: Mapping[ReplicaId, str] = field(default_factory=dict)  # such calls that ended in an error
    served: frozenset[ReplicaId] = frozenset()  # passed the health check and the first request
    sick: Mapping[ReplicaId, str] = field(default_factory=dict)  # have failed the health check for too long
    unready: Mapping[ReplicaId, str] = field(default_factory=dict)  # what a start is still waited for
    slept: frozenset[ReplicaId] = frozenset()  # their engine said that it sleeps, after it was told to
    woken: frozenset[ReplicaId] = frozenset()  # passed the health check and a request, after they were told to wake
    turn_errors: Mapping[ReplicaId, str] = field(default_factory=dict)  # why one could not be put to sleep, or woken
    in_flight: Mapping[ReplicaId, int] = field(default_factory=dict)  # absent: unknown
    seen_on: Mapping[ReplicaId, str] = field(default_factory=dict)  # which runtime showed it; absent: its model's


@dataclass(frozen=True, slots=True)
class Lap:
    """The replicas and failures after a lap, and what happened in it."""

    replicas: tuple[Replica, ...]
    failures: dict[ModelName, Failures]
    events: tuple[Event, ...]


def observe(fleet: Fleet, facts: Facts) -> Lap:
    """Fold `facts` into the replicas of `fleet`. What is seen and not known is adopted, or told to stop."""
    models = {model.spec.name: model for model in fleet.models}
    kept: list[Replica] = []
    events: list[Event] = []
    failures = {name: _not_ahead(model.failures, facts.now) for name, model in models.items()}
    for before in fleet.replicas:
        after = _fold(_no_younger(before, facts.now), models.get(before.model), facts)
        if after is None:
            events.append(Event(facts.now, before.model, before.id, "gone", before.why))
            continue
        kept.append(after)
        if before.turning == "asleep" and after.state is State.ASLEEP and after.turning is None:
            events.append(Event(facts.now, after.model, after.id, "asleep", after.why))
        if after.state is before.state:
            continue
        events.append(Event(facts.now, after.model, after.id, after.state.value, after.why))
        if after.state is State.FAILED and after.model in failures:
            failures[after.model] = backoff.failed(
                failures[after.model], facts.now, after.why, hopeless=_timed_out(before, models, facts)
            )
    known = {replica.id for replica in fleet.replicas}
    for seen in facts.seen.values():
        if seen.replica not in known:
            stranger = _adopt(seen, models.get(seen.model), fleet, facts)
            kept.append(stranger)
            events.append(Event(facts.now, stranger.model, stranger.id, "adopt", stranger.why))
    kept = _fail_overeaters(_credit_use(kept, models), fleet, events, failures, facts.now)
    for replica in kept:
        is_stable = replica.state is State.READY and facts.now - replica.since >= backoff.STABLE_S
        # One that was ready all along says nothing of another that fails beside it, again and again.
        if is_stable and replica.model in failures and replica.since > failures[replica.model].last:
            failures[replica.model] = Failures()
    return Lap(tuple(kept), failures, tuple(events))


def apply(fleet: Fleet, actions: Iterable[Action]) -> tuple[Replica, ...]:
    """The replicas once `actions` have been ordered."""
    models = {model.spec.name: model for model in fleet.models}
    replicas = {replica.id: replica for replica in fleet.replicas}
    for action in actions:
        match action:
            case Start(replica=id, model=name, shares=shares, why=why, machine=machine):
                model = models[name]
                starting = Replica(
                    id, name, model.spec.revision, State.STARTING, shares, fleet.now, fleet.now, why, model.runtime
                )
                replicas[id] = replace(starting, machine=machine)
            case Drain(replica=id, why=why, then=then):
                draining = move(replicas[id], State.DRAINING, why, fleet.now)
                kept = asleep_shares(models[draining.model], draining) if then == "sleep" else ()
                replicas[id] = replace(draining, then=then, asleep_shares=kept)
            case Sleep(replica=id, why=why):
                drained = replicas[id]
                kept = drained.asleep_shares or asleep_shares(models[drained.model], drained)
                asleep = move(drained, State.ASLEEP, why, fleet.now)
                replicas[id] = replace(asleep, asleep_shares=kept, turning="asleep")
            case Wake(replica=id, why=why):
                replicas[id] = replace(replicas[id], turning="awake", why=why, since=fleet.now)
            case Stop(replica=id, why=why):
                told = replicas[id]
                if told.state not in (State.STOPPING, State.FAILED):
                    told = move(told, State.STOPPING, why, fleet.now)
                replicas[id] = replace(told, stops=told.stops + 1)
            case Refuse():
                pass
    return tuple(replicas.values())


def move(replica: Replica, state: State, why: str, now: float) -> Replica:
    """`replica` in `state`. Raises IllegalMove where `MOVES` has no such move."""
    if state not in MOVES[replica.state]:
        raise IllegalMove(f"{replica.id} cannot go from {replica.state} to {state}: {why}")
    if replica.state is State.DRAINING and state is not State.ASLEEP:
        replica = replace(replica, asleep_shares=())  # it was to sleep, and never did
    return replace(replica, state=state, why=why, since=now)


def _fold(replica: Replica, model: Model | None, facts: Facts) -> Replica | None:
    if replica.runtime in facts.blind:
        return replace(replica, in_flight=facts.in_flight.get(replica.id))
    seen = facts.seen.get(replica.id)
    if replica.state in (State.STOPPING, State.FAILED):
        is_gone = seen is None and replica.id not in facts.starting and replica.stops > 0
        has_exited = seen is not None and isinstance(seen.state, Exited)
        return None if is_gone else replace(replica, has_exited=has_exited)
    if replica.state is State.DRAINING:
        if seen is None or isinstance(seen.state, Exited):
            return move(replica, State.STOPPING, f"{replica.why}; it has ended by itself", facts.now)
        return _with_use(replica, facts)
    if seen is None and replica.state is State.STARTING and replica.id in facts.inherited:
        # Nothing speaks against the model: another start follows at once.
        return move(replica, State.STOPPING, "its start was lost with the controller that ordered it", facts.now)
    if (why := _death(replica, model, seen, facts)) is not None:
        return move(replica, State.FAILED, why, facts.now)
    if seen is None:
        return replica
    alive = _with_use(replica, facts)
    if alive.state is State.STARTING and alive.id in facts.served:
        ready = move(alive, State.READY, f"started: {alive.why}", facts.now)
        loaded_s = facts.now - (alive.spawned or alive.created)  # what was pulled before it is there the next time
        return replace(ready, ready_at=facts.now, last_used=facts.now, took_s=loaded_s)
    if alive.state is State.ASLEEP:
        return _turned(alive, facts)
    return alive


def _no_younger(replica: Replica, now: float) -> Replica:
    """A clock that was put back must not make a limit last for hours: what was later than now was now."""
    if max(replica.since, replica.spawned or 0.0, replica.last_used) <= now:  # the others are not later than these
        return replica
    return replace(
        replica,
        since=min(replica.since, now),
        created=min(replica.created, now),
        spawned=None if replica.spawned is None else min(replica.spawned, now),
        ready_at=None if replica.ready_at is None else min(replica.ready_at, now),
        last_used=min(replica.last_used, now),
    )


def _not_ahead(failures: Failures, now: float) -> Failures:
    return failures if failures.last <= now else replace(failures, last=now)


def _turned(replica: Replica, facts: Facts) -> Replica:
    """Further on its way to sleep, or awake. One that can't be put to sleep is stopped, as its memory has to be had."""
    if replica.turning == "asleep":
        if replica.id in facts.turn_errors:
            why = f"it could not be put to sleep: {facts.turn_errors[replica.id]}"
            return move(replica, State.STOPPING, why, facts.now)
        return replace(replica, turning=None, since=facts.now) if replica.id in facts.slept else replica
    if replica.turning == "awake" and replica.id in facts.woken:
        ready = move(replica, State.READY, f"woken: {replica.why}", facts.now)
        awake = replace(ready, turning=None, asleep_shares=(), took_s=facts.now - replica.since)
        return replace(awake, ready_at=facts.now, last_used=facts.now)
    return replica


def _death(replica: Replica, model: Model | None, seen: Seen | None, facts: Facts) -> str | None:
    """Why a starting or ready replica has failed; None while it has not."""
    if replica.id in facts.start_errors:
        return facts.start_errors[replica.id]
    if seen is None:
        if replica.state is State.STARTING and replica.id in facts.starting:
            return None
        return "it is gone, and nobody saw it end"
    if isinstance(seen.state, Exited):
        return seen.state.why
    if replica.id in facts.sick:
        return facts.sick[replica.id]
    if replica.turning == "awake" and (why := _why_not_woken(replica, model, facts)) is not None:
        return why
    if replica.id not in facts.served and _is_late(replica, model, facts.now):
        limit = model.spec.start_timeout_s if model else 0.0
        waited_for = f": {unready}" if (unready := facts.unready.get(replica.id)) else ""
        return f"not ready after {format_seconds(limit)} (start_timeout){waited_for}"
    return None


def _why_not_woken(replica: Replica, model: Model | None, facts: Facts) -> str | None:
    if replica.id in facts.turn_errors:
        return f"it could not be woken: {facts.turn_errors[replica.id]}"
    limit_s = model.spec.start_timeout_s if model else 0.0
    if replica.id in facts.woken or facts.now - replica.since <= limit_s:
        return None
    waited_for = f": {unready}" if (unready := facts.unready.get(replica.id)) else ""
    return f"not awake after {format_seconds(limit_s)} (start_timeout){waited_for}"


def _is_late(replica: Replica, model: Model | None, now: float) -> bool:
    if replica.state is not State.STARTING or replica.spawned is None or model is None:
        return False
    return now - replica.spawned > model.spec.start_timeout_s


def _timed_out(before: Replica, models: Mapping[ModelName, Model], facts: Facts) -> bool:
    seen = facts.seen.get(before.id)
    return seen is not None and isinstance(seen.state, Running) and _is_late(before, models[before.model], facts.now)


def _with_use(replica: Replica, facts: Facts) -> Replica:
    in_flight = facts.in_flight.get(replica.id)
    if not in_flight and in_flight == replica.in_flight and replica.spawned is not None:
        return replica  # most are like this in most laps, and a copy is what takes time
    return replace(
        replica,
        in_flight=in_flight,
        last_used=facts.now if in_flight else replica.last_used,
        spawned=replica.spawned if replica.spawned is not None else facts.now,
    )


def _credit_use(replicas: list[Replica], models: Mapping[ModelName, Model]) -> list[Replica]:
    """A request may come and go between two laps, with nothing in flight at either: gateways tell of it by model
    only. It counts for the replica that was used last, so that one more than needed still becomes idle."""
    newest: dict[ModelName, int] = {}
    for index, replica in enumerate(replicas):
        before = newest.get(replica.model)
        if replica.state is State.READY and (before is None or replica.last_used > replicas[before].last_used):
            newest[replica.model] = index
    credited = list(replicas)
    for name, index in newest.items():
        if name in models and models[name].last_used > replicas[index].last_used:
            credited[index] = replace(replicas[index], last_used=models[name].last_used)
    return credited


def _adopt(seen: Seen, model: Model | None, fleet: Fleet, facts: Facts) -> Replica:
    fits = model is not None and isinstance(seen.state, Running) and model.spec.revision == seen.revision
    stranger = Replica(
        id=seen.replica,
        model=seen.model,
        revision=seen.revision,
        state=State.STARTING if fits else State.STOPPING,
        shares=_shares_of_stranger(seen, model, fleet),
        since=facts.now,
        created=facts.now,
        why="it ran already" if fits else "it was left behind, and no model asks for it as it is",
        runtime=facts.seen_on.get(seen.replica, model.runtime if model else "process"),
        spawned=facts.now,
        machine=seen.machine,
    )
    if model is None or model.sleep is None:
        return stranger
    return replace(stranger, shares=most(stranger.shares, asleep_shares(model, stranger)))  # it may be asleep


def _shares_of_stranger(seen: Seen, model: Model | None, fleet: Fleet) -> tuple[Share, ...]:
    """What its model needs, and no less than it holds, on the devices that its runtime says it is on."""
    held = seen.state.memory_bytes or 0 if isinstance(seen.state, Running) else 0
    machine = next((machine for machine in fleet.machines if machine.name == seen.machine), None)
    gpus = [device for device in machine.gpus if device.name in seen.devices] if machine else []
    need = model.need if model is not None and not isinstance(model.need, Unknown) else None
    if machine is None or need is None:
        return _unplanned(seen, gpus, is_leaving=model is None) if gpus else shares_of(held)
    if gpus:
        return shares_on(need, machine, {gpu.name: on_each(need, len(gpus), gpu) for gpu in gpus})
    return shares_of(max(need.memory_bytes or 0, held))


def _unplanned(seen: Seen, gpus: Sequence[Device], *, is_leaving: bool) -> tuple[Share, ...]:
    """What it holds of its GPUs, where nobody knows what it was to take. Where that can't be had either, one that goes
    counts with all of them until it is gone; one that stays must not push its neighbours out for a guess."""
    held = seen.state.gpu_bytes if isinstance(seen.state, Running) else {}
    return tuple(Share(gpu.name, held.get(gpu.name, gpu.memory_bytes if is_leaving else 0)) for gpu in gpus)


def _fail_overeaters(
    replicas: list[Replica], fleet: Fleet, events: list[Event], failures: dict[ModelName, Failures], now: float
) -> list[Replica]:
    """Who holds more of a device than was planned for it counts with what it holds; if all there no longer fit, the
    worst one goes."""
    models = {model.spec.name: model for model in fleet.models}
    grown = [
        _grown(replica, models.get(replica.model), fleet.held[replica.id]) if replica.id in fleet.held else replica
        for replica in replicas
    ]
    # Those who leave are not counted: once they have gone it may fit, and one overeater takes no neighbour along.
    free = free_bytes(fleet.machines, (replica for replica in grown if replica.state in _ALIVE))
    if all(bytes >= 0 for bytes in free.values()):
        return grown
    devices = {(machine.name, device.name): device for machine in fleet.machines for device in machine.devices}
    worst: dict[At, tuple[int, int]] = {}
    for index, replica in enumerate(grown):
        model = models.get(replica.model)
        if replica.state not in _ALIVE or model is None or isinstance(model.need, Unknown):
            continue
        for share in replica.counted:
            at = (replica.machine, share.device)
            if free.get(at, 0) < 0:
                excess = share.memory_bytes - _planned_now(model, model.need, replica, devices[at])
                if excess > 0:
                    worst[at] = max(worst.get(at, (0, 0)), (excess, index))
    for at, (excess, index) in worst.items():
        replica, device = grown[index], devices[at]
        if replica.state is State.FAILED:
            continue
        held = next(share.memory_bytes for share in replica.counted if share.device == device.name)
        why = (
            f"it holds {format_bytes(held)}, {format_bytes(held - excess)} were planned, and all models together "
            f"no longer fit in {format_bytes(device.memory_bytes)} (try: raise needs.memory of {replica.model})"
        )
        grown[index] = move(replica, State.FAILED, why, now)
        events.append(Event(now, replica.model, replica.id, "failed", why))
        failures[replica.model] = backoff.failed(failures[replica.model], now, why, hopeless=False)
    return grown


def _planned_now(model: Model, need: Need, replica: Replica, device: Device) -> int:
    if replica.turning is None and replica.asleep_shares and model.sleep is not None:
        return sum(share.memory_bytes for share in asleep_shares(model, replica) if share.device == device.name)
    return planned(need, replica, device)


def planned(need: Need, replica: Replica, device: Device) -> int:
    """What `replica` was planned to take of `device`."""
    on_gpus = sum(share.device != MAIN for share in replica.shares)
    if on_gpus and not device.is_gpu:
        return need.main_bytes
    return on_each(need, on_gpus, device)


def _grown(replica: Replica, model: Model | None, held: Mapping[str, int]) -> Replica:
    if replica.state is State.ASLEEP and replica.turning is None:
        return _grown_asleep(replica, model, held)
    shares = tuple(Share(s.device, max(s.memory_bytes, held.get(s.device, 0))) for s in replica.shares)
    return replica if shares == replica.shares else replace(replica, shares=shares)


def _grown_asleep(replica: Replica, model: Model | None, held: Mapping[str, int]) -> Replica:
    """What it was measured to hold may be of the moment before it slept, so that isn't kept beyond the next look."""
    if model is None or model.sleep is None:
        return replica
    kept = asleep_shares(model, replica)
    shares = tuple(Share(share.device, max(share.memory_bytes, held.get(share.device, 0))) for share in kept)
    return replica if shares == replica.asleep_shares else replace(replica, asleep_shares=shares)
