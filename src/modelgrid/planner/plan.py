"""The plan: from a picture of everything to the next actions. Pure, and the same for every runtime."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from modelgrid.planner import backoff
from modelgrid.planner.evict import is_patient, victims
from modelgrid.planner.scale import floor, is_idle, wanted
from modelgrid.spec import (
    Action,
    Drain,
    Fleet,
    Model,
    ModelName,
    ModelSpec,
    Refuse,
    Replica,
    ReplicaId,
    Start,
    State,
    Stop,
    Unknown,
    Wish,
)
from modelgrid.spec.units import format_bytes, format_seconds

DRAIN_LIMIT_S = 300.0  # a request that takes longer on a draining replica is cut off
RETRY_AFTER_FULL_S = 30.0
LEAVING = frozenset({State.DRAINING, State.STOPPING, State.FAILED})


def plan(fleet: Fleet) -> list[Action]:
    """What to do now. Memory is planned so that all replicas that are not gone fit at every moment."""
    models = {model.spec.name: model for model in fleet.models}
    actions = [action for replica in fleet.replicas if (action := _end(replica, models.get(replica.model), fleet.now))]
    ending = {action.replica for action in actions if isinstance(action, Stop | Drain)}
    staying = [replica for replica in fleet.replicas if replica.id not in ending]
    actions += _shrink(fleet, staying)
    actions += _fit(fleet, models, actions)
    actions += _grow(fleet, models, actions)
    return actions


def wind_down(fleet: Fleet) -> list[Action]:
    """What ends everything: for a modelgrid that stops."""
    models = {model.spec.name: model for model in fleet.models}
    return [
        action
        for replica in fleet.replicas
        if (action := _end(replica, models.get(replica.model), fleet.now) or _leave(replica)) is not None
    ]


def _leave(replica: Replica) -> Action | None:
    is_leaving = replica.state in LEAVING
    return None if is_leaving else _let_go(replica, "modelgrid stops")


def _end(replica: Replica, model: Model | None, now: float) -> Action | None:
    """The next step of a replica that has to go, whatever else is planned."""
    match replica.state:
        case State.FAILED:
            return Stop(replica.id, True, replica.why)
        case State.STOPPING:
            return _stop_again(replica, model, now)
        case State.DRAINING:
            if replica.in_flight == 0:
                return Stop(replica.id, False, replica.why)
            if now - replica.since > DRAIN_LIMIT_S:
                return Stop(replica.id, False, f"{replica.why}; still busy after {format_seconds(DRAIN_LIMIT_S)}")
            return None
    if model is None:
        return _let_go(replica, "the model was removed from the configuration")
    if model.spec.revision != replica.revision:
        return _let_go(replica, "the model's configuration has changed")
    return None


def _stop_again(replica: Replica, model: Model | None, now: float) -> Action | None:
    """Ask once, wait for the grace time, then force, again and again until it is gone."""
    if replica.stops == 0:
        return Stop(replica.id, False, replica.why)
    if replica.has_exited:
        return Stop(replica.id, True, replica.why)
    grace_s = model.spec.stop_grace_s if model else 10.0
    overdue_s = now - replica.since - grace_s
    if overdue_s < 0:
        return None
    return Stop(replica.id, True, f"it was still there {format_seconds(grace_s)} after it was asked to stop")


def _let_go(replica: Replica, why: str) -> Action:
    return Drain(replica.id, why) if replica.state is State.READY else Stop(replica.id, False, why)


def _shrink(fleet: Fleet, replicas: Sequence[Replica]) -> list[Action]:
    """Replicas that are idle go, down to the floor; so does a start that nobody waits for after an unload."""
    actions: list[Action] = []
    for model in fleet.models:
        own = _own(model, replicas)
        spare = len(own) - floor(model)
        for replica in sorted(own, key=lambda replica: replica.last_used):
            if spare <= 0:
                break
            if is_idle(model, replica, fleet.now):
                idle_s = fleet.now - replica.last_used
                why = (
                    "it was unloaded by hand"
                    if model.wish is Wish.UNLOADED
                    else f"no request for {format_seconds(idle_s)}"
                )
                actions.append(Drain(replica.id, why))
                spare -= 1
            elif model.wish is Wish.UNLOADED and replica.state is State.STARTING and not model.waiting:
                actions.append(Stop(replica.id, False, "it was unloaded by hand"))
                spare -= 1
    return actions


def _fit(fleet: Fleet, models: dict[ModelName, Model], before: Sequence[Action]) -> list[Action]:
    """Less memory than is planned, as after an edit of machine.memory: who is missed least goes, also when it is busy
    or kept loaded."""
    leaving = {action.replica for action in before if isinstance(action, Drain | Stop)}
    staying = [r for r in fleet.replicas if r.id not in leaving and r.state not in LEAVING and r.memory_bytes]
    excess = sum(replica.memory_bytes for replica in staying) - fleet.machine.memory_bytes
    actions: list[Action] = []
    for replica in sorted(staying, key=lambda r: (floor(models[r.model]) > 0, r.in_flight != 0, r.last_used, r.id)):
        if excess <= 0:
            break
        actions.append(_let_go(replica, f"models may take {format_bytes(fleet.machine.memory_bytes)} now"))
        excess -= replica.memory_bytes
    return actions


@dataclass(slots=True)
class _Room:
    """Memory while starts are planned: `free` of what is there, `coming` from what is on its way out."""

    free_bytes: int
    coming_bytes: int
    next: int
    ids: frozenset[ReplicaId]
    leaving: set[ReplicaId]


def _grow(fleet: Fleet, models: dict[ModelName, Model], before: Sequence[Action]) -> list[Action]:
    """Starts, and the drains that make room for them, for who waits longest first."""
    taken = sum(replica.memory_bytes for replica in fleet.replicas)
    leaving = {action.replica for action in before if isinstance(action, Drain | Stop)}
    leaving |= {replica.id for replica in fleet.replicas if replica.state in LEAVING}
    staying = [replica for replica in fleet.replicas if replica.id not in leaving]
    coming = sum(replica.memory_bytes for replica in fleet.replicas if replica.id in leaving)
    ids = frozenset(replica.id for replica in fleet.replicas)
    room = _Room(fleet.machine.memory_bytes - taken, coming, fleet.next, ids, leaving)
    actions: list[Action] = []
    for model in sorted(fleet.models, key=_urgency):
        own = _own(model, staying)
        refusal = None if own else _refusal(model, fleet)
        if refusal is not None:
            actions.append(refusal)
            continue
        missing = wanted(model, own) - len(own)
        if (places := _places_left(model.spec, fleet)) is not None:
            missing = min(missing, places)
        if isinstance(model.memory_bytes, Unknown):
            continue  # what runs goes on; nobody knows whether another one fits
        if missing <= 0 or fleet.now < backoff.retry_at(model.failures) or model.runtime in fleet.blind:
            continue
        for index in range(missing):
            step = _start_one(model, fleet, models, room, is_first=not own and index == 0)
            actions += step
            if not any(isinstance(action, Start) for action in step):
                break
    return actions


def _places_left(spec: ModelSpec, fleet: Fleet) -> int | None:
    """How many more replicas can have a port or a server of their own; None: as many as there is room for. It is a
    replica's until that is gone."""
    own = [replica for replica in fleet.replicas if replica.model == spec.name]
    if spec.port is not None:
        return 0 if own else 1
    if spec.urls:  # replicas of an older revision speak to servers as that one named them
        return max(0, len(spec.urls) - sum(replica.revision == spec.revision for replica in own))
    return None


def _urgency(model: Model) -> tuple[bool, float, str]:
    waits = model.waiting_since is not None
    return (not waits, model.waiting_since or 0.0, model.spec.name)


def _refusal(model: Model, fleet: Fleet) -> Refuse | None:
    """Why nobody should wait for this model; None when waiting makes sense."""
    name = model.spec.name
    if isinstance(model.memory_bytes, Unknown):
        if model.memory_bytes.is_coming:
            return None
        return Refuse(name, f"cannot place {name}: {model.memory_bytes.why}", RETRY_AFTER_FULL_S)
    if model.memory_bytes > fleet.machine.memory_bytes:
        why = (
            f"cannot place {name}: it needs {format_bytes(model.memory_bytes)}, models may take "
            f"{format_bytes(fleet.machine.memory_bytes)} (try: a smaller model, or raise machine.memory)"
        )
        return Refuse(name, why, RETRY_AFTER_FULL_S)
    wait_s = backoff.retry_at(model.failures) - fleet.now
    if backoff.has_given_up(model.failures) and wait_s > 0:
        return Refuse(name, f"{name} failed {_times(model.failures.count)}: {model.failures.why}", wait_s)
    return None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times in a row"


def _start_one(
    model: Model, fleet: Fleet, models: dict[ModelName, Model], room: _Room, *, is_first: bool
) -> list[Action]:
    need = model.memory_bytes
    assert isinstance(need, int)
    if need <= room.free_bytes:
        room.free_bytes -= need
        id = _next_id(model, room)
        return [Start(id, model.spec.name, need, _why_start(model, is_first))]
    if not is_first:
        return []
    if need <= room.free_bytes + room.coming_bytes:
        _reserve(room, need)
        return []
    short = need - room.free_bytes - room.coming_bytes
    staying = [replica for replica in fleet.replicas if replica.id not in room.leaving]
    chosen = victims(model, short, staying, models, fleet.now)
    if chosen is None:
        refusals = _no_room(model, need, staying, models, fleet)
        if not refusals and _may_claim(model, staying, fleet.now):
            room.coming_bytes -= need
        return refusals
    for replica in chosen:
        room.leaving.add(replica.id)
        room.coming_bytes += replica.memory_bytes
    _reserve(room, need)
    return [_let_go(replica, f"its memory is needed for {model.spec.name}") for replica in chosen]


def _next_id(model: Model, room: _Room) -> ReplicaId:
    while True:  # a lost store counts from the start again, among replicas that were adopted
        id = ReplicaId(f"{_slug(model.spec.name)}-{room.next}")
        room.next += 1
        if id not in room.ids:
            return id


def _reserve(room: _Room, need: int) -> None:
    """Keep what comes free for who was first, so that smaller models can't starve a large one. Of what is free
    already only the rest is kept: others may have it at once."""
    from_coming = min(need, room.coming_bytes)
    room.coming_bytes -= from_coming
    room.free_bytes -= need - from_coming


def _may_claim(model: Model, staying: Sequence[Replica], now: float) -> bool:
    """Whether nobody after `model` may make room while it waits for several replicas to have had their turn: else
    small models that take turns would never leave it enough at one moment. What is free they may take. A start that
    has no process yet may be a download of an hour, and nobody is held up for that."""
    is_fetching = any(replica.state is State.STARTING and replica.spawned is None for replica in staying)
    return not is_patient(model, now) and not is_fetching


def _no_room(
    model: Model, need: int, staying: Sequence[Replica], models: dict[ModelName, Model], fleet: Fleet
) -> list[Action]:
    """Wait while others are busy; refuse when what stands in the way is kept for good."""
    kept = 0
    for name, other in models.items():
        if name == model.spec.name:
            continue
        mine = sorted((r.memory_bytes for r in staying if r.model == name), reverse=True)
        kept += sum(mine[: floor(other)])
    if kept + need <= fleet.machine.memory_bytes:
        return []
    why = (
        f"cannot place {model.spec.name}: it needs {format_bytes(need)}, and models that are kept loaded hold "
        f"{format_bytes(kept)} of {format_bytes(fleet.machine.memory_bytes)} "
        "(try: modelgrid model unload, or scaling.min: 0 for one of them)"
    )
    return [Refuse(model.spec.name, why, RETRY_AFTER_FULL_S)]


def _why_start(model: Model, is_first: bool) -> str:
    again = f", again after: {model.failures.why.splitlines()[0]}" if model.failures.count else ""
    if model.waiting:
        return ("requests waited for it" if is_first else "its replicas were busy and requests waited") + again
    if is_first or floor(model):
        return ("loaded by hand" if model.wish is Wish.LOADED else "kept loaded (scaling.min)") + again
    return "its replicas were busy" + again


def _own(model: Model, replicas: Sequence[Replica]) -> list[Replica]:
    return [replica for replica in replicas if replica.model == model.spec.name and replica.state not in LEAVING]


def _slug(name: str) -> str:
    """A model's name as part of an id: file names, process titles and container names take it."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "model"
