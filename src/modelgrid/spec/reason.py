"""The facts behind a decision: what its `why` says, as data from which sentences are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Why something was decided. Which of them there are depends on what was decided."""

    # a start, or a wake
    REQUEST = "request"  # requests waited, and no replica ran
    LOAD = "load"  # those that ran had enough to do
    OBJECTIVE = "objective"  # answers came later than the model's objective allows
    KEPT = "kept"  # so many are kept always (scaling.min)
    # a start, or an end
    BY_HAND = "by hand"
    # an end, or a sleep
    ROOM = "room"  # another model needs the memory
    IDLE = "idle"
    SPARE = "spare"  # fewer are enough
    CHANGED = "changed"  # the model's configuration was edited
    REMOVED = "removed"  # the model is no longer configured
    SHRUNK = "shrunk"  # models may take less memory than before
    SHUTDOWN = "shutdown"  # modelgrid stops
    # a refusal
    TOO_LARGE = "too large"  # for the whole machine
    ALL_KEPT = "all kept"  # others that are kept loaded leave too little
    UNKNOWN_SIZE = "unknown size"
    FAILING = "failing"  # it failed again and again


@dataclass(frozen=True, slots=True)
class Because:
    """Why the planner does something, in a word."""

    cause: Cause
    other: str | None = None  # ROOM: the model that it is made for


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What is known about an event beyond its `why`. None: not known, or not of this kind of event."""

    cause: str | None = None  # a Cause; of another version of modelgrid perhaps one that isn't there
    waiting: int | None = None  # requests that waited; for `other` where room was made
    waited_s: float | None = None  # how long the first of them had
    other: str | None = None  # the model that room was made for
    machine: str | None = None
    devices: tuple[str, ...] = ()
    memory_bytes: int | None = None  # needed, or given back
    free_bytes: int | None = None  # of these devices before a start; of all for a refusal
    total_bytes: int | None = None  # what models may take
    kept_bytes: int | None = None  # what is kept loaded of it
    replicas: int | None = None  # of the model, before
    in_flight: int | None = None  # requests, on the replica that ends, or on all that ran before another was started
    target: int | None = None  # requests in flight that one replica should have at most
    limit_s: float | None = None  # the objective, or after how long without a request a replica ends
    idle_s: float | None = None  # how long it had no request
    then: str | None = None  # what comes after draining: "stop", "sleep"
    phases: Mapping[str, float] | None = None  # of a start: seconds
    failures: int | None = None  # in a row, with this one
    retry_at: float | None = None  # when the next try is made
    log: tuple[str, ...] = ()  # the last lines that the engine wrote
