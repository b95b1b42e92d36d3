"""The four messages between controller and gateway: the whole coupling.

`RoutingTable` goes one way; `Demand`, `Load` and `Outcome` the other. On the wire they are JSON objects, one a
line, told apart by ``"type"``. A worker says `Hello` first.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A ready replica, as the gateway reaches it."""

    replica: str
    url: str  # OpenAI base URL: http://127.0.0.1:40213/v1 or https://host/v1; no trailing slash
    model: str  # the name that the engine knows the model by
    key: str | None = None  # bearer token for the engine

    def __repr__(self) -> str:
        return f"Target(replica={self.replica!r}, url={self.url!r}, model={self.model!r})"


class Unavailable(msgspec.Struct, frozen=True, kw_only=True):
    """Why requests for a model are turned away instead of waiting."""

    why: str
    retry_after_s: float


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One model: where it is ready, and what its callers may use."""

    model: str
    aliases: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()  # of modelgrid.spec.operations: what its engine serves
    targets: tuple[Target, ...] = ()  # empty: cold; requests wait
    unavailable: Unavailable | None = None
    queue: int = 1024
    wait_s: float = 600.0
    created: int = 0  # seconds since the epoch, for /v1/models
    state: str = "cold"  # ready, starting, cold, unavailable: for people
    why: str = ""


class AccessKey(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's key: its name, and the SHA-256 of the key in hex."""

    id: str
    name: str
    sha256: str


class RoutingTable(msgspec.Struct, frozen=True, kw_only=True, tag="table"):
    """A numbered, immutable snapshot. A higher number replaces a lower one."""

    number: int
    routes: tuple[Route, ...] = ()
    keys: tuple[AccessKey, ...] = ()  # empty: no key is asked for


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """A worker's first line."""

    worker: str
    pid: int


class Demand(msgspec.Struct, frozen=True, kw_only=True, tag="demand"):
    """Requests wait for a replica of `model`. Repeated once a second while they do; ``waiting=0`` ends it."""

    model: str
    waiting: int
    oldest_s: float  # how long the oldest has waited


class Load(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """What a worker has in flight, by replica. Sent on every table, on a change to or from none, and each second.

    A replica that is not named has nothing in flight in this worker, under table `table`.
    """

    table: int
    in_flight: dict[str, int]
    requests: dict[str, int] = {}  # finished since the last Load, by model


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
