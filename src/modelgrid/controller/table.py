"""The routing table that follows from the fleet. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from modelgrid.controller.slots import Slots
from modelgrid.engines import ENGINES
from modelgrid.spec import (
    AccessKey,
    Fleet,
    Model,
    ModelName,
    Refuse,
    Replica,
    ReplicaId,
    Route,
    RoutingTable,
    State,
    Target,
    Unavailable,
)

_NO_SLOTS = Slots()
_RETRY_STEP_S = 5.0  # retry times are rounded up to it, so that a clock's tick makes no new table


def routes(
    fleet: Fleet,
    targets: Mapping[ReplicaId, Target],
    refusals: Mapping[ModelName, Refuse],
    created: Mapping[ModelName, int],
    ended: Mapping[ModelName, str],
    slots: Slots = _NO_SLOTS,
) -> tuple[Route, ...]:
    """A route for each model. `targets` says how replicas are reached; only the READY are routed to."""
    found = []
    for model in fleet.models:
        name = model.spec.name
        own = [replica for replica in fleet.replicas if replica.model == name]
        refusal = refusals.get(name)
        ready = tuple(targets[r.id] for r in own if r.state is State.READY and r.id in targets)
        state, why = describe(model, own, refusal, ended.get(name))
        found.append(
            Route(
                model=name,
                slot=slots.of("model", name),
                aliases=model.spec.aliases,
                operations=ENGINES[model.spec.engine].operations(model.spec),
                targets=ready,
                unavailable=None if refusal is None or ready else _unavailable(refusal),
                queue=model.spec.limits.queue,
                wait_s=model.spec.limits.wait_s,
                created=created.get(name, 0),
                state=state,
                why=why,
            )
        )
    return tuple(found)


def describe(model: Model, own: Sequence[Replica], refusal: Refuse | None, ended: str | None) -> tuple[str, str]:
    """A model's state and its reason, for people. `ended` is why its last replica went."""
    for state, name in ((State.READY, "ready"), (State.STARTING, "starting")):
        for replica in own:
            if replica.state is state:
                return name, replica.why
    if refusal is not None:
        return "unavailable", refusal.why
    if model.failures.count:
        return "failed", model.failures.why
    if model.waiting:
        return "cold", "requests wait for it"
    return "cold", f"stopped: {ended}" if ended else "no request has asked for it"


def same(before: RoutingTable | None, routes: tuple[Route, ...], keys: tuple[AccessKey, ...]) -> bool:
    """Whether a new table would say nothing new."""
    return before is not None and before.routes == routes and before.keys == keys


def routed(table: Iterable[Route]) -> frozenset[str]:
    """The replicas that a table sends requests to."""
    return frozenset(target.replica for route in table for target in route.targets)


def _unavailable(refusal: Refuse) -> Unavailable:
    steps = -(-refusal.retry_after_s // _RETRY_STEP_S)
    return Unavailable(why=refusal.why, retry_after_s=max(1.0, steps * _RETRY_STEP_S))
