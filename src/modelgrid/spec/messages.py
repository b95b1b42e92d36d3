"""The four messages between controller and gateway: the whole coupling.

`RoutingTable` goes one way; `Demand`, `Load` and `Outcome` the other. On the wire they are JSON objects, one a
line, told apart by ``"type"``. A worker says `Hello` first.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import msgspec

from modelgrid.spec.usage import Used

FIRST_BYTES: Final = 64  # times to a first byte, of one model, that a Load tells: the newest
SLOTS: Final = 16_383  # numbers from 1 under which workers count together: for keys, models and replicas, all in one


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A ready replica, as the gateway reaches it."""

    replica: str
    url: str  # OpenAI base URL: http://127.0.0.1:40213/v1 or https://host/v1; no trailing slash
    model: str  # the name that the engine knows the model by
    key: str | None = None  # bearer token for the engine
    slot: int = 0  # where workers count together what it has in flight; 0: each worker for itself

    def __repr__(self) -> str:
        return f"Target(replica={self.replica!r}, url={self.url!r}, model={self.model!r})"


class Unavailable(msgspec.Struct, frozen=True, kw_only=True):
    """Why requests for a model are turned away instead of waiting."""

    why: str
    retry_after_s: float


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What a key's or a model's callers may use, over all workers; None: as much as they like."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None  # requests in flight


def quota_of(requests_per_minute: int | None, tokens_per_minute: int | None, concurrency: int | None) -> Quota | None:
    """The quota with these limits; None where there is none among them."""
    quota = Quota(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrency=concurrency)
    return None if quota == Quota() else quota


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a model does to the top-level fields of a JSON request, in this order. Values are JSON, as text."""

    strip: tuple[str, ...] = ()  # taken out
    default: dict[str, str] = {}  # put in where the caller sends none
    set: dict[str, str] = {}  # put in, whatever the caller sends
    cap: dict[str, float] = {}  # a larger number becomes this one; a field that isn't there stays so


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """How a model's replicas are chosen among."""

    policy: Literal["least_outstanding", "session", "prefix"] = "least_outstanding"
    session: tuple[str, ...] = ()  # session: where its id is looked for: "header:x-session-id", "body:user"
    slack: float = 1.5  # a replica of one's own may have this many times the mean in flight, then another takes over


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the models behind a virtual one."""

    model: str
    weight: float = 1.0
    parameters: Parameters | None = None


class Virtual(msgspec.Struct, frozen=True, kw_only=True):
    """One name over several models."""

    choices: tuple[Choice, ...]  # in order of preference
    choose: Literal["first", "weight"] = "first"  # first: that is warm and has room
    spill_over: int | None = None  # requests waiting or in flight, for each ready replica, that make a model full
    fall_back: bool = True  # to the next one when a model fails before its answer has begun


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One model: where it is ready, and what its callers may use."""

    model: str
    slot: int = 0  # where workers count together who waits for it, and what its quota has left
    aliases: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()  # of modelgrid.spec.operations: what its engine serves
    targets: tuple[Target, ...] = ()  # empty: cold; requests wait
    unavailable: Unavailable | None = None
    queue: int = 1024
    wait_s: float = 600.0
    progress: bool = False  # callers of streams who wait get signs of it, where they don't say otherwise
    starts_s: float | None = None  # what a start of it took when it was last measured
    created: int = 0  # seconds since the epoch, for /v1/models
    state: str = "cold"  # ready, starting, asleep, cold, unavailable: for people
    why: str = ""
    endpoint: str | None = None  # a path of its own, which is the model's name as well: /v1/mine/generate
    quota: Quota | None = None
    parameters: Parameters | None = None
    routing: Routing = Routing()
    virtual: Virtual | None = None  # then there are no targets: those of its choices serve


BY: Final = b"x-modelgrid-by"  # how a gateway tells the control API who asks; it lets no such header of callers through
ANYONE: Final = "anyone"  # who asks where no key is asked for; else it is a key's id, or without that header …
OWNER: Final = "owner"  # … who may open the socket


class Scope(StrEnum):
    """What a key is for. A key may have several."""

    CALLER = "caller"  # the models
    METRICS = "metrics"  # GET /metrics
    ADMIN = "admin"  # the control API, and GET /metrics


class Former(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that a key had before it was rotated, and until when it still opens."""

    sha256: str
    until: float  # seconds since the epoch


class AccessKey(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's key: its name, and the SHA-256 of the key in hex."""

    id: str
    name: str
    sha256: str
    slot: int = 0  # where workers count together what it uses
    quota: Quota | None = None
    models: tuple[str, ...] | None = None  # None: all of them
    operations: tuple[str, ...] | None = None  # of modelgrid.spec.operations; None: all of them
    scopes: tuple[Scope, ...] = (Scope.CALLER,)
    group: str | None = None  # of `RoutingTable.groups`
    expires: float | None = None  # seconds since the epoch; workers see to it themselves
    former: tuple[Former, ...] = ()


class KeyGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that share a quota, beside what each has for itself."""

    name: str
    slot: int = 0  # where workers count together what its keys use
    quota: Quota | None = None


class RoutingTable(msgspec.Struct, frozen=True, kw_only=True, tag="table"):
    """A numbered, immutable snapshot. A higher number replaces a lower one."""

    number: int
    routes: tuple[Route, ...] = ()
    keys: tuple[AccessKey, ...] = ()  # empty: no key is asked for
    groups: tuple[KeyGroup, ...] = ()
    last_slot: int = 0  # the one that was handed out last: the next controller goes on from there


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """A worker's first line."""

    worker: str
    pid: int
    incarnation: str = ""  # of this process alone: what it has used is counted since it began


class Demand(msgspec.Struct, frozen=True, kw_only=True, tag="demand"):
    """Requests wait for a replica of `model`. Repeated once a second while they do; ``waiting=0`` ends it."""

    model: str
    waiting: int
    oldest_s: float  # how long the oldest has waited


class Series(msgspec.Struct, frozen=True, array_like=True):
    """One series of a metric, counted since the worker began; a gauge as it is."""

    metric: str  # its name, of modelgrid.spec.metrics
    labels: tuple[str, ...]  # their values, in the metric's order
    values: tuple[float, ...]  # one; a histogram's sum, its buckets each for itself, and what is above the last


class Load(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """What a worker has in flight, by replica. Sent on every table, on a change to or from none, and each second.

    A replica that is not named has nothing in flight in this worker, under table `table`.
    """

    table: int
    in_flight: dict[str, int]
    requests: dict[str, int] = {}  # finished since the last Load, by model
    meters: tuple[Series, ...] = ()  # what has changed since the last Load; everything on a new link
    # Since the last Load, by model (the one that a virtual model's request went to). Seconds count from the request's
    # arrival, so waiting for a replica is in them.
    arrived: dict[str, int] = {}  # requests that came, whether they wait, were served or turned away from a full queue
    ttft: dict[str, tuple[float, ...]] = {}  # times to a stream's first byte, and to whole answers of what has no
    # tokens to stream: embeddings, pictures; the newest FIRST_BYTES of them
    tokens: dict[str, tuple[int, int]] = {}  # input and output, of requests that ended; estimated where nobody told
    used: tuple[Used, ...] = ()  # what has changed since the last Load; everything on a new link


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag="outcome"):
    """A replica did not do what was asked of it. Success is not reported: `Load` counts it."""

    replica: str
    outcome: Literal["refused", "broke", "timed_out"]  # no connection; lost before the end; no answer in time
    why: str


Message = RoutingTable | Hello | Demand | Load | Outcome
FromWorker = Hello | Demand | Load | Outcome


def encode(message: Message) -> bytes:
    """One line, with its newline."""
    return msgspec.json.encode(message) + b"\n"


_from_worker: msgspec.json.Decoder[FromWorker] = msgspec.json.Decoder(FromWorker)
_table: msgspec.json.Decoder[RoutingTable] = msgspec.json.Decoder(RoutingTable)


def decode_from_worker(line: bytes) -> FromWorker:
    """A worker's line. Raises msgspec.DecodeError."""
    return _from_worker.decode(line)


def decode_table(line: bytes) -> RoutingTable:
    """A controller's line, or the content of a table file. Raises msgspec.DecodeError."""
    return _table.decode(line)
