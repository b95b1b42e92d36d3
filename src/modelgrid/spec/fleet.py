"""The fleet: all that the planner reads, and the actions that it answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from modelgrid.spec.machine import LOCAL, Asleep, Machine, Need, Share
from modelgrid.spec.model import ModelName, ModelSpec, ReplicaId
from modelgrid.spec.pulse import Pulse
from modelgrid.spec.rate import Rate
from modelgrid.spec.reason import Because
from modelgrid.spec.replica import Replica
from modelgrid.spec.unknown import Unknown

_STILL = Pulse()
_NEVER = Rate()


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
    need: Need | Unknown  # what one replica takes
    runtime: str = "process"  # which runtime runs its replicas
    waiting: int = 0  # requests that wait in gateways for a replica
    waiting_since: float | None = None  # when the oldest of them came
    last_used: float = 0.0
    failures: Failures = Failures()
    wish: Wish | None = None
    rate: Rate = _NEVER  # of its requests
    load_s: float | None = None  # what a start takes, as the last ones did; None: nobody has seen one
    sleep: Asleep | None = None  # what it takes asleep; None: it can't sleep
    pulse: Pulse = _STILL


@dataclass(frozen=True, slots=True)
class Fleet:
    """A picture of everything at one moment. `next` numbers the next replica."""

    now: float
    machines: tuple[Machine, ...]
    models: tuple[Model, ...] = ()
    replicas: tuple[Replica, ...] = ()
    next: int = 1
    blind: frozenset[str] = frozenset()  # runtimes that can't say what is there: nothing is started on them
    held: Mapping[ReplicaId, Mapping[str, int]] = field(default_factory=dict)  # bytes measured now, by device


@dataclass(frozen=True, slots=True)
class Start:
    """Start a new replica of `model` on `machine`."""

    replica: ReplicaId
    model: ModelName
    shares: tuple[Share, ...]
    why: str
    machine: str = LOCAL
    because: Because | None = field(default=None, compare=False)  # `why` in a word


@dataclass(frozen=True, slots=True)
class Drain:
    """Send nothing new to a replica; let it finish what it has, and then end or sleep."""

    replica: ReplicaId
    why: str
    then: Literal["stop", "sleep"] = "stop"
    because: Because | None = field(default=None, compare=False)  # `why` in a word


@dataclass(frozen=True, slots=True)
class Sleep:
    """Tell a drained replica to give its GPU memory back, and to keep what makes it quick to wake."""

    replica: ReplicaId
    why: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Tell a replica that sleeps to take its memory again and serve."""

    replica: ReplicaId
    why: str
    because: Because | None = field(default=None, compare=False)  # `why` in a word


@dataclass(frozen=True, slots=True)
class Stop:
    """End a replica. `force` when it had its grace and is still there."""

    replica: ReplicaId
    force: bool
    why: str
    because: Because | None = field(default=None, compare=False)  # `why` in a word


@dataclass(frozen=True, slots=True)
class Refuse:
    """Requests for `model` can't be served now: they are told why, and when to come again."""

    model: ModelName
    why: str
    retry_after_s: float
    because: Because | None = field(default=None, compare=False)  # `why` in a word


Action = Start | Drain | Sleep | Wake | Stop | Refuse
