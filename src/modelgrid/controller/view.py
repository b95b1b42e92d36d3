"""The picture of a lap that the control API shows. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from modelgrid import __version__
from modelgrid.controller.phases import Phases
from modelgrid.controller.reading import Reading
from modelgrid.controller.table import describe, describe_virtual, served_by_any
from modelgrid.engines import ENGINES
from modelgrid.planner import retry_at
from modelgrid.planner.place import needs_text
from modelgrid.spec import (
    MAIN,
    Fleet,
    Model,
    ModelName,
    ModelStatus,
    Refuse,
    Replica,
    ReplicaId,
    ReplicaStatus,
    Running,
    Seen,
    Share,
    State,
    Status,
    Unknown,
    VirtualSpec,
    sum_of,
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of a status is not of the fleet."""

    started: float
    config: str | None
    config_error: str | None
    table: int
    workers: int
    address: str
    problem: str | None


def picture(
    fleet: Fleet,
    refusals: Mapping[ModelName, Refuse],
    seen: Mapping[ReplicaId, Seen],
    phases: Mapping[ReplicaId, Phases],
    ended: Mapping[ModelName, str],
    around: Surroundings,
    virtual: Sequence[VirtualSpec] = (),
    loads: Mapping[ReplicaId, Reading] = MappingProxyType({}),
) -> Status:
    """Everything, as people and programs see it."""
    models = {
        model.spec.name: _model(model, fleet, refusals.get(model.spec.name), ended.get(model.spec.name))
        for model in fleet.models
    }
    on_gpus = {machine.name for machine in fleet.machines if machine.gpus}
    main_planned_bytes = sum(sum_of(_mains(replica)) for replica in fleet.replicas if replica.machine in on_gpus)
    mains = [machine.main.memory_bytes for machine in fleet.machines if machine.name in on_gpus and machine.main]
    return Status(
        version=__version__,
        now=fleet.now,
        started=around.started,
        config=around.config,
        config_error=around.config_error,
        memory_bytes=sum(machine.memory_bytes for machine in fleet.machines),
        memory_source=", ".join(machine.source for machine in fleet.machines),
        memory_planned_bytes=sum(replica.memory_bytes for replica in fleet.replicas) - main_planned_bytes,
        table=around.table,
        workers=around.workers,
        address=around.address,
        models=(*models.values(), *(_virtual(spec, models) for spec in virtual)),
        replicas=tuple(
            _replica(replica, seen.get(replica.id), phases.get(replica.id), loads.get(replica.id), fleet.now)
            for replica in fleet.replicas
        ),
        problem=around.problem,
        main_bytes=sum(mains) if mains else None,
        main_planned_bytes=main_planned_bytes,
    )


def _mains(replica: Replica) -> Iterator[Share]:
    return (share for share in replica.counted if share.device == MAIN)


def _model(model: Model, fleet: Fleet, refusal: Refuse | None, ended: str | None) -> ModelStatus:
    spec = model.spec
    own = [replica for replica in fleet.replicas if replica.model == spec.name]
    state, why = describe(model, own, refusal, ended)
    is_known = all(replica.in_flight is not None for replica in own if replica.state is State.READY)
    need = None if isinstance(model.need, Unknown) else model.need
    return ModelStatus(
        name=spec.name,
        engine=spec.engine,
        source=spec.source or spec.url or ", ".join(spec.urls) or None,
        aliases=spec.aliases,
        state=state,
        why=why,
        memory_bytes=need.memory_bytes if need else None,
        waiting=model.waiting,
        in_flight=sum(replica.in_flight or 0 for replica in own) if is_known else None,
        last_used=model.last_used,
        min=spec.scaling.min,
        max=spec.scaling.max,
        wish=model.wish.value if model.wish else None,
        retry_at=retry_at(model.failures) if model.failures.count and not _serves(own) else None,
        operations=ENGINES[spec.engine].operations(spec),
        note="a stand-in made on the spot: it speaks nonsense" if spec.source == "stand-in" else None,
        waiting_since=model.waiting_since,
        idle_s=spec.scaling.idle_s,
        load_s=model.load_s,
        needs=needs_text(need, fleet.machines) if need and need.memory_bytes is None else None,
    )


def _virtual(spec: VirtualSpec, models: Mapping[ModelName, ModelStatus]) -> ModelStatus:
    """What is counted is counted at the models behind it."""
    behind = [models[name] for name in spec.models if name in models]
    state, why = describe_virtual([(model.name, model.state, model.why) for model in behind])
    return ModelStatus(
        name=spec.name,
        engine="virtual",
        source=None,
        aliases=spec.aliases,
        state=state,
        why=why,
        memory_bytes=None,
        waiting=0,
        in_flight=None,
        last_used=0.0,
        min=0,
        max=0,
        wish=None,
        retry_at=None,
        operations=served_by_any(model.operations for model in behind),
        behind=tuple(spec.models),
    )


def _replica(
    replica: Replica, seen: Seen | None, phases: Phases | None, load: Reading | None, now: float
) -> ReplicaStatus:
    running = seen.state if seen is not None and isinstance(seen.state, Running) else None
    return ReplicaStatus(
        id=replica.id,
        model=replica.model,
        state=replica.state.value,
        since=replica.since,
        why=replica.why,
        memory_bytes=replica.memory_bytes,
        resident_bytes=_resident_bytes(replica, running) if running else None,
        in_flight=replica.in_flight,
        url=running.url if running else None,
        pid=running.pid if running else None,
        step=_step(replica, phases),
        phases=phases.seconds(now) if phases else {},
        devices=tuple(share.device for share in replica.counted),
        engine_running=load.running if load else None,
        engine_waiting=load.waiting if load else None,
        cache_usage=load.cache if load else None,
    )


def _resident_bytes(replica: Replica, running: Running) -> int | None:
    """What it holds of the devices that it has a share of; None where that isn't known of each."""
    if not replica.shares:
        return running.memory_bytes
    held = {MAIN: running.memory_bytes, **running.gpu_bytes}
    counts = [held.get(share.device) for share in replica.shares]
    return None if None in counts else sum(count or 0 for count in counts)


def _step(replica: Replica, phases: Phases | None) -> str | None:
    if replica.turning is not None:
        return "waking" if replica.turning == "awake" else "falling asleep"
    return (phases.detail or None) if phases and replica.state is State.STARTING else None


def _serves(own: Sequence[Replica]) -> bool:
    return any(replica.state is State.READY for replica in own)
