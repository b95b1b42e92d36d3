"""Who makes room: the replicas that are missed least, and no more of them than needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelgrid.planner.scale import floor
from modelgrid.spec import Model, ModelName, Replica, State

PATIENCE_S = 5.0  # a request waits so long before a replica that is busy is drained for it


def victims(
    asking: Model,
    short_bytes: int,
    replicas: Sequence[Replica],
    models: Mapping[ModelName, Model],
    now: float,
) -> list[Replica] | None:
    """Those of `replicas` whose memory makes up for `short_bytes`; None where there are not enough. What is on its way
    out is not among them, and none is of `asking` itself.

    Idle ones go first, the longest unused before the others. Busy ones go only for a request that waits, and only
    once they have been ready for as long as their own start took: so two models that push each other out spend at
    least half of the time serving.
    """
    chosen: list[Replica] = []
    room = 0
    for replica in _candidates(asking, replicas, models, now):
        if room >= short_bytes:
            break
        chosen.append(replica)
        room += replica.memory_bytes
    if room < short_bytes:
        return None
    for replica in reversed(tuple(chosen)):  # who is missed most is spared first
        if room - replica.memory_bytes >= short_bytes:
            chosen.remove(replica)
            room -= replica.memory_bytes
    return chosen


def is_patient(asking: Model, now: float) -> bool:
    """Whether nobody has waited long enough for `asking` that others should be disturbed."""
    return asking.waiting_since is None or now - asking.waiting_since < PATIENCE_S


def _candidates(
    asking: Model, replicas: Sequence[Replica], models: Mapping[ModelName, Model], now: float
) -> list[Replica]:
    spare = {name: _count(name, replicas) - floor(model) for name, model in models.items()}
    patient = is_patient(asking, now)
    idle: list[Replica] = []
    busy: list[Replica] = []
    for replica in sorted(replicas, key=lambda replica: (replica.last_used, replica.created, replica.id)):
        model = models.get(replica.model)
        if model is None or spare[replica.model] <= 0 or replica.memory_bytes == 0:
            continue
        if _is_unused(model, replica):
            idle.append(replica)
        elif not patient and _has_had_its_turn(replica, now):
            busy.append(replica)
        else:
            continue
        spare[replica.model] -= 1
    return idle + busy


def _count(name: ModelName, replicas: Sequence[Replica]) -> int:
    return sum(1 for replica in replicas if replica.model == name)


def _is_unused(model: Model, replica: Replica) -> bool:
    if model.waiting:
        return False
    return replica.state in (State.STARTING, State.ASLEEP) or replica.in_flight == 0


def _has_had_its_turn(replica: Replica, now: float) -> bool:
    if replica.state is not State.READY or replica.ready_at is None:
        return False
    return now - replica.ready_at >= max(PATIENCE_S, replica.ready_at - replica.created)
