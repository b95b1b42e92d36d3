"""The routing table that follows from the fleet. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from modelgrid.controller.slots import Slots
from modelgrid.engines import ENGINES
from modelgrid.spec import (
    AccessKey,
    Fleet,
    KeyGroup,
    Model,
    ModelName,
    ModelSpec,
    Refuse,
    Replica,
    ReplicaId,
    Route,
    RoutingTable,
    State,
    Target,
    Unavailable,
    VirtualSpec,
)
from modelgrid.spec.operations import OPERATIONS, operation_at

_NO_SLOTS = Slots()
_BEST_FIRST = ("ready", "starting", "asleep", "cold", "failed", "unavailable")
_RETRY_STEP_S = 5.0  # retry times are rounded up to it, so that a clock's tick makes no new table


def routes(
    fleet: Fleet,
    targets: Mapping[ReplicaId, Target],
    refusals: Mapping[ModelName, Refuse],
    created: Mapping[ModelName, int],
    ended: Mapping[ModelName, str],
    virtual: Sequence[VirtualSpec] = (),
    slots: Slots = _NO_SLOTS,
) -> tuple[Route, ...]:
    """A route for each model, then for each virtual one. `targets` says how replicas are reached; only the READY are
    routed to."""
    found = {}
    for model in fleet.models:
        name = model.spec.name
        own = [replica for replica in fleet.replicas if replica.model == name]
        refusal = refusals.get(name)
        ready = tuple(targets[r.id] for r in own if r.state is State.READY and r.id in targets)
        state, why = describe(model, own, refusal, ended.get(name))
        found[name] = Route(
            model=name,
            slot=slots.of("model", name),
            aliases=model.spec.aliases,
            operations=ENGINES[model.spec.engine].operations(model.spec),
            targets=ready,
            unavailable=None if refusal is None or ready else _unavailable(refusal),
            queue=model.spec.limits.queue,
            wait_s=model.spec.limits.wait_s,
            progress=model.spec.limits.progress,
            starts_s=None if model.load_s is None else round(model.load_s, 1),  # no table for less
            created=created.get(name, 0),
            state=state,
            why=why,
            endpoint=_own_path(model.spec),
            quota=model.spec.limits.quota,
            parameters=model.spec.parameters,
            routing=model.spec.routing,
        )
    return (*found.values(), *(_virtual(spec, found, slots, created) for spec in virtual))


def _virtual(
    spec: VirtualSpec, models: Mapping[ModelName, Route], slots: Slots, created: Mapping[ModelName, int]
) -> Route:
    choices = [models[name] for name in spec.models if name in models]
    state, why = describe_virtual([(route.model, route.state, route.why) for route in choices])
    first = choices[0] if choices else Route(model=spec.name)
    return Route(
        model=spec.name,
        slot=slots.of("model", spec.name),
        aliases=spec.aliases,
        operations=served_by_any(route.operations for route in choices),
        queue=first.queue,
        wait_s=first.wait_s,
        created=created.get(spec.name, 0),
        state=state,
        why=why,
        virtual=spec.virtual,
    )


def describe_virtual(choices: Sequence[tuple[str, str, str]]) -> tuple[str, str]:
    """The best state of the models behind a virtual one (name, state, why), and its reason."""
    if not choices:
        return "unavailable", "there is no model behind it"
    name, state, why = min(choices, key=lambda choice: _BEST_FIRST.index(choice[1]))
    return state, f"{name}: {why}" if why else f"{name} is {state}"


def served_by_any(operations: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """What at least one model serves: a request is sent to those that serve what it asks for."""
    found = {operation for of_one in operations for operation in of_one}
    return tuple(operation for operation in OPERATIONS if operation in found)


def _own_path(spec: ModelSpec) -> str | None:
    """The path that only this model has; one that is an operation's is nobody's own."""
    if spec.endpoint is None or operation_at(spec.endpoint) is not None:
        return None
    return spec.endpoint.rstrip("/") or None


def describe(model: Model, own: Sequence[Replica], refusal: Refuse | None, ended: str | None) -> tuple[str, str]:
    """A model's state and its reason, for people. `ended` is why its last replica went."""
    for name in ("ready", "starting", "asleep"):
        for replica in own:
            if _shown_as(replica) == name:
                return name, replica.why
    if refusal is not None:
        return "unavailable", refusal.why
    if model.failures.count:
        return "failed", model.failures.why
    if model.waiting:
        return "cold", "requests wait for it"
    return "cold", f"stopped: {ended}" if ended else "no request has asked for it"


def _shown_as(replica: Replica) -> str:
    """The state of a model with this replica. One that wakes is on its way to serve, as one that starts."""
    return "starting" if replica.state is State.ASLEEP and replica.turning == "awake" else replica.state.value


def same(
    before: RoutingTable | None,
    routes: tuple[Route, ...],
    keys: tuple[AccessKey, ...],
    groups: tuple[KeyGroup, ...] = (),
) -> bool:
    """Whether a new table would say nothing new."""
    return before is not None and (before.routes, before.keys, before.groups) == (routes, keys, groups)


def routed(table: Iterable[Route]) -> frozenset[str]:
    """The replicas that a table sends requests to."""
    return frozenset(target.replica for route in table for target in route.targets)


def _unavailable(refusal: Refuse) -> Unavailable:
    steps = -(-refusal.retry_after_s // _RETRY_STEP_S)
    return Unavailable(why=refusal.why, retry_after_s=max(1.0, steps * _RETRY_STEP_S))
