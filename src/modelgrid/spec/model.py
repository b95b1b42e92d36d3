"""A model: what a caller names in ``"model"``, declared once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

from modelgrid.spec.messages import Parameters, Quota, Routing, Virtual
from modelgrid.spec.usage import Price

ModelName = NewType("ModelName", str)
ReplicaId = NewType("ReplicaId", str)

_ROUTING = Routing()


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many replicas a model has, and when the last one goes.

    ``min`` are kept always; up to ``max`` are started when a replica would carry more than ``target``
    requests in flight; a replica that had no request for ``idle_s`` seconds is stopped, down to ``min``.
    """

    min: int = 0
    max: int = 1
    idle_s: float = 900.0
    target: int = 16
    ttft_s: float | None = None  # objective: the first token within so long; None: `target` alone decides
    attain: float = 0.95  # for this share of requests


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model's callers may use at most."""

    queue: int = 1024  # requests that wait for a replica, in each gateway worker
    wait_s: float = 600.0  # how long one of them waits before it is told so
    quota: Quota | None = None  # over all workers
    progress: bool = False  # callers of streams who wait get signs of it, where they don't say otherwise


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of the configuration, complete and checked.

    Which fields an engine needs is the engine's to say (`Engine.problems`). Paths are absolute.
    """

    name: ModelName
    engine: str
    source: str | None = None  # hub id, absolute local path, or one of modelgrid.spec.source
    aliases: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold secrets
    memory_bytes: int | None = None  # None: estimated from the weights
    gpus: float | None = None  # see `Need.gpus`
    main_bytes: int | None = None  # main memory beside its GPUs; None: the engine knows
    price: Price | None = None  # None: it costs nothing
    priority: int = 0  # a higher one gets memory first, and is made to give it up last
    sleep: int | None = None  # the level at which it may sleep, instead of being stopped, when room is needed
    scaling: Scaling = Scaling()
    limits: Limits = Limits()
    parameters: Parameters | None = None  # what it does to requests
    routing: Routing = _ROUTING
    operations: tuple[str, ...] = ()  # what it serves, of modelgrid.spec.operations; empty: the engine knows
    command: tuple[str, ...] = ()  # custom: argv, with the placeholders of `Launch.argv`
    script: str | None = None  # custom: a Python program, run in an environment of its own
    requirements: str | None = None  # custom: path of a requirements.txt; makes that environment
    cwd: str | None = None
    port: int | None = None  # custom: a fixed port; None lets the runtime choose
    health: str | None = None  # path; None: the engine's own
    endpoint: str | None = None  # custom: the path it serves, when it serves one only
    type: str | None = None  # text, image, audio, …: as the registry of the source says
    url: str | None = None  # remote: the OpenAI base URL
    urls: tuple[str, ...] = ()  # remote: several of them instead, one for each replica
    key: str | None = field(default=None, repr=False)  # remote: its API key; never shown
    served: str | None = None  # the name that the engine knows the model by, when not `name`
    start_timeout_s: float = 600.0
    health_timeout_s: float = 60.0  # how long its health check may fail before it is replaced
    stop_grace_s: float = 10.0
    trust_remote_code: bool = False

    # Changes when a running replica no longer is what the specification says: 12 hex digits. Every lap of the planner
    # compares it for every replica, so it is worked out once.
    revision: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        facts = {name: getattr(self, name) for name in _RUNS_AS}
        revision = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        object.__setattr__(self, "revision", revision)


@dataclass(frozen=True, slots=True)
class VirtualSpec:
    """One name over several models, declared once. To the planner there is no such model: demand is for its choices."""

    name: ModelName
    virtual: Virtual
    aliases: tuple[str, ...] = ()

    @property
    def models(self) -> tuple[ModelName, ...]:
        """The models behind it, in order of preference."""
        return tuple(ModelName(choice.model) for choice in self.virtual.choices)


_ELSEWHERE = frozenset(
    {
        "aliases",
        "scaling",
        "limits",
        "parameters",
        "routing",
        "operations",
        "start_timeout_s",
        "health_timeout_s",
        "stop_grace_s",
        "memory_bytes",
        "main_bytes",
        "price",
        "priority",
    }
)
_RUNS_AS = tuple(field.name for field in dataclasses.fields(ModelSpec) if field.init and field.name not in _ELSEWHERE)
