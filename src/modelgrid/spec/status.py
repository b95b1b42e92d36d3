"""What the control API shows: a read-only picture for people and programs."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelgrid.spec.reason import Reason


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica. Times are seconds since the epoch; ``phases`` are seconds by phase of its start."""

    id: str
    model: str
    state: str
    since: float
    why: str
    memory_bytes: int
    resident_bytes: int | None
    in_flight: int | None
    url: str | None
    pid: int | None
    step: str | None  # what a start is doing now: "environment: installing vllm (12 of 80)"
    phases: dict[str, float]
    devices: tuple[str, ...] = ()  # that it has a share of: gpu0, cpu
    engine_running: int | None = None  # requests that its engine says it computes; None: it doesn't say
    engine_waiting: int | None = None  # and that wait within it
    cache_usage: float | None = None  # the share of its KV cache that is in use, 0 to 1


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model. `state` is ready, starting, asleep, cold, failed or unavailable.

    A virtual one has the engine ``virtual``, the best state of the models `behind` it, and nothing of its own.
    """

    name: str
    engine: str
    source: str | None
    aliases: tuple[str, ...]
    state: str
    why: str
    memory_bytes: int | None
    waiting: int
    in_flight: int | None
    last_used: float
    min: int
    max: int
    wish: str | None
    retry_at: float | None
    operations: tuple[str, ...] = ()
    note: str | None = None  # e.g. that it is a stand-in
    behind: tuple[str, ...] = ()  # the models behind a virtual one, in order of preference; empty: it is none
    waiting_since: float | None = None  # when the first of those that wait came
    idle_s: float | None = None  # without a request for so long it is stopped
    load_s: float | None = None  # what a start took lately
    needs: str | None = None  # what one replica takes, where that is no number of bytes: "2 GPUs"


@dataclass(frozen=True, slots=True)
class Status:
    """The whole picture."""

    version: str
    now: float
    started: float
    config: str | None  # path; None: the embedded default
    config_error: str | None  # what is wrong with the file as it stands, when the running state is an older one
    memory_bytes: int  # of GPUs, and without any of main memory
    memory_source: str
    memory_planned_bytes: int
    table: int
    workers: int  # gateway workers that are connected
    address: str  # http://127.0.0.1:9000
    models: tuple[ModelStatus, ...]
    replicas: tuple[ReplicaStatus, ...]
    problem: str | None = None  # why the controller does not act (an unreadable store)
    main_bytes: int | None = None  # main memory, where the other figures are of GPUs
    main_planned_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """A change of state, and its why."""

    at: float
    model: str
    replica: str | None
    what: str  # start, ready, drain, stop, gone, failed, refuse, adopt, found, load, unload, sleep, asleep, wake
    why: str
    reason: Reason | None = None  # the facts behind `why`, where they were recorded


@dataclass(frozen=True, slots=True)
class Why:
    """What `modelgrid why` tells: a model as it is, and its last events, oldest first."""

    now: float
    model: ModelStatus
    replicas: tuple[ReplicaStatus, ...]
    events: tuple[Event, ...]
    behind: tuple[ModelStatus, ...] = ()  # the models behind a virtual one, in order of preference
    since: float = 0.0  # the events are those from then on
    has_more: bool = False  # there are older ones in that time, beyond the limit
    free_bytes: int | None = None  # memory that no replica is planned to take
    others: tuple[ReplicaStatus, ...] = ()  # replicas of other models that hold memory, where this one waits for some
    kept: tuple[str, ...] = ()  # of those the models that are kept loaded: they don't make room
    started: float | None = None  # when the controller was started


@dataclass(frozen=True, slots=True)
class History:
    """What `modelgrid why` tells without a model: the last events of all, oldest first."""

    now: float
    models: tuple[ModelStatus, ...]
    events: tuple[Event, ...]
    since: float = 0.0
    has_more: bool = False


@dataclass(frozen=True, slots=True)
class LogLines:
    """The last lines that a replica wrote, oldest first."""

    replica: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """A caller's key, as much of it as may be shown."""

    id: str
    name: str
    shown: str  # its first characters
    created: float
    revoked: float | None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    models: tuple[str, ...] | None = None  # None: all of them
    operations: tuple[str, ...] | None = None  # None: all of them
    scopes: tuple[str, ...] = ("caller",)
    group: str | None = None
    expires: float | None = None  # None: never
    former_until: float | None = None  # until when a secret from before a rotation still opens


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """Keys that share limits."""

    name: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    keys: tuple[str, ...] = ()  # names of those in use


@dataclass(frozen=True, slots=True)
class Deed:
    """What somebody with the right to did, or tried to: a line of the audit log."""

    at: float
    who: str  # "owner": whoever may read the store or open the socket; "anyone": no key was asked for; else a key's id
    name: str  # the key's, when it was used; else empty
    what: str  # key.create, model.load, …
    target: str
    outcome: str  # "ok", or the code of the error


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: the only time that its text can be had."""

    key: str = field(repr=False)
    id: str
    name: str
