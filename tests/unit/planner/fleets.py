"""Short words for fleets: what the tests of the planner are written in."""

from __future__ import annotations

from collections.abc import Sequence

from modelgrid.spec import (
    MAIN,
    Exited,
    Failures,
    Fleet,
    Model,
    ModelName,
    ModelSpec,
    Need,
    Replica,
    ReplicaId,
    Running,
    Scaling,
    Seen,
    State,
    Unknown,
    Wish,
    cpu_machine,
    shares_of,
)

NOW = 10_000.0
MACHINE_BYTES = 10


def spec(
    name: str, *, min: int = 0, max: int = 1, idle_s: float = 900.0, target: int = 4, args: tuple[str, ...] = ()
) -> ModelSpec:
    scaling = Scaling(min=min, max=max, idle_s=idle_s, target=target)
    return ModelSpec(ModelName(name), "custom", args=args, scaling=scaling, start_timeout_s=60.0, stop_grace_s=5.0)


def model(
    name: str = "a",
    memory_bytes: int | Unknown = 4,
    *,
    waiting: int = 0,
    waited_s: float = 0.0,
    failures: Failures | None = None,
    wish: Wish | None = None,
    last_used: float = 0.0,
    runtime: str = "process",
    min: int = 0,
    max: int = 1,
    idle_s: float = 900.0,
    target: int = 4,
    args: tuple[str, ...] = (),
) -> Model:
    return Model(
        spec(name, min=min, max=max, idle_s=idle_s, target=target, args=args),
        memory_bytes if isinstance(memory_bytes, Unknown) else Need(memory_bytes),
        runtime=runtime,
        waiting=waiting,
        waiting_since=NOW - waited_s if waiting else None,
        last_used=last_used,
        failures=failures or Failures(),
        wish=wish,
    )


def replica(
    id: str = "a-1",
    state: State = State.READY,
    memory_bytes: int = 4,
    *,
    in_flight: int | None = 0,
    unused_s: float = 0.0,
    in_state_s: float = 100.0,
    load_s: float = 1.0,
    ready_s: float | None = None,
    args: tuple[str, ...] = (),
    stops: int = 0,
    has_exited: bool = False,
    is_spawned: bool = True,
    runtime: str = "process",
    why: str = "because",
) -> Replica:
    """A replica as it is at NOW. `load_s` is how long its start took, `ready_s` how long ago it was READY first."""
    name = id.rpartition("-")[0]
    has_served = state not in (State.STARTING, State.STOPPING)
    ready_at = NOW - (in_state_s if ready_s is None else ready_s) if has_served else None
    created = NOW - in_state_s if ready_at is None else ready_at - load_s
    return Replica(
        ReplicaId(id),
        ModelName(name),
        spec(name, args=args).revision,
        state,
        shares_of(memory_bytes),
        since=NOW - in_state_s,
        created=created,
        why=why,
        runtime=runtime,
        spawned=created if is_spawned else None,
        ready_at=ready_at,
        last_used=NOW - unused_s,
        in_flight=in_flight,
        stops=stops,
        has_exited=has_exited,
    )


def fleet(
    models: Sequence[Model] = (),
    replicas: Sequence[Replica] = (),
    *,
    memory_bytes: int = MACHINE_BYTES,
    next: int = 7,
    blind: frozenset[str] = frozenset(),
    resident: dict[ReplicaId, int] | None = None,
) -> Fleet:
    held = {id: {MAIN: bytes} for id, bytes in (resident or {}).items()}
    return Fleet(NOW, (cpu_machine(memory_bytes),), tuple(models), tuple(replicas), next, blind, held)


def running(id: str, *, args: tuple[str, ...] = (), memory_bytes: int | None = None) -> Seen:
    name = id.rpartition("-")[0]
    url = f"http://127.0.0.1/{id}"
    return Seen(ReplicaId(id), ModelName(name), spec(name, args=args).revision, Running(url, url, memory_bytes))


def exited(id: str, why: str = "exited with code 1", processes: int = 0) -> Seen:
    name = id.rpartition("-")[0]
    return Seen(ReplicaId(id), ModelName(name), spec(name).revision, Exited(why, processes))
