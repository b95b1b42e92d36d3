"""What ends: a replica that has to go, is idle or one too many, or no longer fits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from modelgrid.planner.place import free_bytes
from modelgrid.planner.scale import floor, is_idle, needed, surplus
from modelgrid.spec import (
    Action,
    Device,
    Drain,
    Fleet,
    Model,
    ModelName,
    Replica,
    ReplicaId,
    Sleep,
    State,
    Stop,
    Wish,
)
from modelgrid.spec.reason import Because, Cause
from modelgrid.spec.units import format_bytes, format_seconds

DRAIN_LIMIT_S = 300.0  # a request that takes longer on a draining replica is cut off
LEAVING = frozenset({State.DRAINING, State.STOPPING, State.FAILED})


def leave(replica: Replica) -> Action | None:
    is_leaving = replica.state in LEAVING
    return None if is_leaving else let_go(replica, "modelgrid stops", Because(Cause.SHUTDOWN))


def end(replica: Replica, model: Model | None, now: float) -> Action | None:
    """The next step of a replica that has to go, whatever else is planned."""
    match replica.state:
        case State.FAILED:
            return Stop(replica.id, True, replica.why)
        case State.STOPPING:
            return _stop_again(replica, model, now)
        case State.DRAINING:
            if replica.in_flight == 0:
                return (Sleep if _may_sleep(replica, model) else stop)(replica.id, replica.why)
            if now - replica.since > DRAIN_LIMIT_S:
                return Stop(replica.id, False, f"{replica.why}; still busy after {format_seconds(DRAIN_LIMIT_S)}")
            return None
    if model is None:
        return let_go(replica, "the model was removed from the configuration", Because(Cause.REMOVED))
    if model.spec.revision != replica.revision:
        return let_go(replica, "the model's configuration has changed", Because(Cause.CHANGED))
    return None


def _may_sleep(replica: Replica, model: Model | None) -> bool:
    """Whether it was to sleep, and that still makes sense."""
    if replica.then != "sleep" or model is None or model.sleep is None:
        return False
    return model.spec.revision == replica.revision and model.wish is not Wish.UNLOADED


def stop(id: ReplicaId, why: str) -> Stop:
    return Stop(id, False, why)


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


def let_go(replica: Replica, why: str, because: Because) -> Action:
    if replica.state is State.READY:
        return Drain(replica.id, why, because=because)
    return Stop(replica.id, False, why, because)


def shrink(fleet: Fleet, replicas: Mapping[ModelName, Sequence[Replica]]) -> list[Action]:
    """Replicas that are idle go, down to the floor and to what the load takes: else they would be started again at
    once. After an unload also those that start or sleep, unless somebody waits for them."""
    actions: list[Action] = []
    for model in fleet.models:
        own = replicas.get(model.spec.name, ())
        spare = len(own) - floor(model)
        if spare <= 0:
            continue
        up = sum(replica.state is not State.ASLEEP for replica in own) - floor(model)
        for replica in sorted(own, key=lambda replica: replica.last_used):
            if spare <= 0:
                break
            if up <= 0 and replica.state is not State.ASLEEP:
                continue  # it is kept: another one that sleeps is no replacement
            if is_idle(model, replica, fleet.now) or _is_forgotten(model, replica, fleet.now):
                if replica.state is State.READY and _is_needed(model, own, actions):
                    continue
                idle_s = fleet.now - replica.last_used
                why = (
                    "it was unloaded by hand"
                    if model.wish is Wish.UNLOADED
                    else f"no request for {format_seconds(idle_s)}"
                )
                cause = Cause.BY_HAND if model.wish is Wish.UNLOADED else Cause.IDLE
                actions.append(let_go(replica, why, Because(cause)))
                spare, up = spare - 1, up - (replica.state is not State.ASLEEP)
            elif model.wish is Wish.UNLOADED and replica.state is not State.READY and not model.waiting:
                actions.append(Stop(replica.id, False, "it was unloaded by hand", Because(Cause.BY_HAND)))
                spare -= 1
        if len(own) > 1:
            actions += _thin(model, own, actions, fleet.now)
    return actions


def _is_needed(model: Model, own: Sequence[Replica], before: Sequence[Action]) -> bool:
    leaving = told_to_leave(before)
    up = [replica for replica in own if replica.state is not State.ASLEEP and replica.id not in leaving]
    return len(up) <= needed(model, up)


def _thin(model: Model, own: Sequence[Replica], before: Sequence[Action], now: float) -> list[Action]:
    """Those go that are more than the load has asked for lately, though none of them is idle."""
    leaving = told_to_leave(before)
    up = [replica for replica in own if replica.state is not State.ASLEEP and replica.id not in leaving]
    return [let_go(replica, why, Because(Cause.SPARE)) for replica, why in surplus(model, up, now)]


def _is_forgotten(model: Model, replica: Replica, now: float) -> bool:
    """Whether one that sleeps has not been needed for as long as an idle one stays."""
    is_asleep = replica.state is State.ASLEEP and replica.turning is None and not model.waiting
    return is_asleep and now - replica.last_used >= model.spec.scaling.idle_s


def fit_in(fleet: Fleet, models: dict[ModelName, Model], before: Sequence[Action]) -> list[Action]:
    """Less memory than is planned, as after an edit of machine.memory: who is missed least goes, also when it is busy
    or kept loaded."""
    leaving = told_to_leave(before)
    staying = [r for r in fleet.replicas if r.id not in leaving and r.state not in LEAVING and r.counted]
    actions = [_leave_device(replica, device) for replica, device in _on_lost_gpus(fleet, staying)]
    lost = told_to_leave(actions)
    staying = [replica for replica in staying if replica.id not in lost]
    over = {at: -free for at, free in free_bytes(fleet.machines, staying).items() if free < 0}
    if not over:
        return actions
    machines = {machine.name: machine for machine in fleet.machines}
    for replica in sorted(staying, key=lambda r: (floor(models[r.model]) > 0, _is_busy(r), r.last_used, r.id)):
        crowded = [share for share in replica.counted if over.get((replica.machine, share.device), 0) > 0]
        if not crowded:
            continue
        device = machines[replica.machine].device(crowded[0].device)
        why = f"models may take {format_bytes(device.memory_bytes)}{_of(device, fleet)} now"
        actions.append(let_go(replica, why, Because(Cause.SHRUNK)))
        for share in crowded:
            over[replica.machine, share.device] -= share.memory_bytes
    return actions


def _on_lost_gpus(fleet: Fleet, replicas: Iterable[Replica]) -> Iterator[tuple[Replica, str]]:
    """Those on a GPU that models may not use any more, as after an edit of machine.gpus. A machine that shows none at
    all may have a driver that doesn't answer: what runs there goes on."""
    devices = {machine.name: {device.name for device in machine.devices} for machine in fleet.machines if machine.gpus}
    for replica in replicas:
        for share in replica.shares:
            if share.device not in devices.get(replica.machine, (share.device,)):
                yield replica, share.device
                break


def _leave_device(replica: Replica, device: str) -> Action:
    return let_go(replica, f"models may not use {device} any more", Because(Cause.SHRUNK))


def _is_busy(replica: Replica) -> bool:
    return replica.state is not State.ASLEEP and replica.in_flight != 0


def _of(device: Device, fleet: Fleet) -> str:
    return f" of {device.name}" if len(fleet.machines) > 1 or len(fleet.machines[0].devices) > 1 else ""


def told_to_leave(actions: Iterable[Action]) -> set[ReplicaId]:
    return {action.replica for action in actions if isinstance(action, Drain | Stop | Sleep)}


def by_model(replicas: Iterable[Replica]) -> dict[ModelName, list[Replica]]:
    found: defaultdict[ModelName, list[Replica]] = defaultdict(list)
    for replica in replicas:
        if replica.state not in LEAVING:
            found[replica.model].append(replica)
    return dict(found)
