"""The fleet: all that the planner reads, and the actions that it answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from modelgrid.spec.model import ModelName, ModelSpec, ReplicaId
from modelgrid.spec.replica import Replica
from modelgrid.spec.unknown import Unknown


@dataclass(frozen=True, slots=True)
class Machine:
    """What replicas are placed on."""

    memory_bytes: int  # what models may take
    accelerator: str = "cpu"  # "cpu" or "cuda"
    source: str = "measured"  # where memory_bytes comes from, for people
    counts_resident: bool = True  # whether a process's resident memory counts against memory_bytes
    gpu_bytes: int | None = None  # all the memory of the GPU that models run on
    torch_wheel: str | None = None  # e.g. "torch==2.13.0", where the package index has a build for this machine


class Wish(StrEnum):
    """What somebody asked for by hand (`model load`, `model unload`)."""

    LOADED = "loaded"
    UNLOADED = "unloaded"


@dataclass(frozen=True, slots=True)
class Failures:
    """How a model's replicas failed since one last stayed up. Times are seconds since the epoch."""

    count: int = 0
    last: float = 0.0
    why: str = ""
    hopeless: bool = False  # waiting for another try would only repeat it (a start that timed out)


@dataclass(frozen=True, slots=True)
class Model:
    """A model, and what is known of the demand for it."""

    spec: ModelSpec
    memory_bytes: int | Unknown  # what one replica needs
    runtime: str = "process"  # which runtime runs its replicas
    waiting: int = 0  # requests that wait in gateways for a replica
    waiting_since: float | None = None  # when the oldest of them came
    last_used: float = 0.0
    failures: Failures = Failures()
    wish: Wish | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """A picture of everything at one moment. `next` numbers the next replica."""

    now: float
    machine: Machine
    models: tuple[Model, ...] = ()
    replicas: tuple[Replica, ...] = ()
    next: int = 1
    blind: frozenset[str] = frozenset()  # runtimes that can't say what is there: nothing is started on them
    resident: Mapping[ReplicaId, int] = field(
        default_factory=dict
    )  # bytes held now, where they count as machine memory


@dataclass(frozen=True, slots=True)
class Start:
    """Start a new replica of `model`."""

    replica: ReplicaId
    model: ModelName
    memory_bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Send nothing new to a replica; let it finish what it has."""

    replica: ReplicaId
    why: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End a replica. `force` when it had its grace and is still there."""

    replica: ReplicaId
    force: bool
    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Requests for `model` can't be served now: they are told why, and when to come again."""

    model: ModelName
    why: str
    retry_after_s: float


Action = Start | Drain | Stop | Refuse
