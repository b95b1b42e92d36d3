"""How many replicas a model should have now."""

from __future__ import annotations

import math
from collections.abc import Sequence

from modelgrid.spec import Model, Replica, State, Wish


def floor(model: Model) -> int:
    """Replicas that are kept without any request: these are never evicted."""
    if model.wish is Wish.UNLOADED:
        return 0
    kept = model.spec.scaling.min
    return max(1, kept) if model.wish is Wish.LOADED else kept


def wanted(model: Model, replicas: Sequence[Replica]) -> int:
    """Replicas that the requests of this moment ask for, between `floor` and ``scaling.max``."""
    scaling = model.spec.scaling
    load = model.waiting + sum(replica.in_flight or 0 for replica in replicas)
    most = max(scaling.max, floor(model))
    return min(most, max(floor(model), math.ceil(load / scaling.target)))


def is_idle(model: Model, replica: Replica, now: float) -> bool:
    """Whether `replica` has been without a request for long enough to go. Unknown load is not idle."""
    if replica.state is not State.READY or model.waiting:
        return False
    if model.wish is Wish.UNLOADED:
        return True  # also while it is busy: what it has in flight may finish
    unused_s = now - max(replica.last_used, replica.ready_at or replica.since)
    return replica.in_flight == 0 and unused_s >= model.spec.scaling.idle_s
