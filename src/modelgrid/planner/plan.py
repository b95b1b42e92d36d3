"""The plan: from a picture of everything to the next actions. Pure, and the same for every runtime."""

from __future__ import annotations

from modelgrid.planner.end import by_model, end, fit_in, leave, shrink, stop
from modelgrid.planner.grow import grow
from modelgrid.spec import (
    Action,
    Drain,
    Fleet,
    Sleep,
    Stop,
)


def plan(fleet: Fleet) -> list[Action]:
    """What to do now. Memory is planned so that all replicas that are not gone fit on every device at every moment."""
    models = {model.spec.name: model for model in fleet.models}
    actions = [action for replica in fleet.replicas if (action := end(replica, models.get(replica.model), fleet.now))]
    ending = {action.replica for action in actions if isinstance(action, Stop | Drain)}
    own = by_model(replica for replica in fleet.replicas if replica.id not in ending)
    actions += shrink(fleet, own)
    actions += fit_in(fleet, models, actions)
    actions += grow(fleet, models, actions)
    return actions


def wind_down(fleet: Fleet) -> list[Action]:
    """What ends everything: for a modelgrid that stops."""
    models = {model.spec.name: model for model in fleet.models}
    ends = (end(replica, models.get(replica.model), fleet.now) or leave(replica) for replica in fleet.replicas)
    return [stop(end.replica, end.why) if isinstance(end, Sleep) else end for end in ends if end is not None]
