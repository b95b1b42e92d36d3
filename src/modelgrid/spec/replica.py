"""A replica: one running launch, and the legal moves of its life."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from modelgrid.spec.machine import LOCAL, Share, sum_of
from modelgrid.spec.model import ModelName, ReplicaId


class State(StrEnum):
    """Where a replica is in its life. A replica that is gone has no state: it is not there."""

    STARTING = "starting"
    READY = "ready"
    ASLEEP = "asleep"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"


# The one table of legal moves. STOPPING and FAILED end when the runtime's list() omits the replica:
# only then is its memory free. What is FAILED is stopped like the rest; the model backs off, not the replica.
MOVES: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.READY, State.STOPPING, State.FAILED}),
    State.READY: frozenset({State.DRAINING, State.FAILED}),
    State.ASLEEP: frozenset({State.READY, State.STOPPING, State.FAILED}),
    State.DRAINING: frozenset({State.ASLEEP, State.STOPPING, State.FAILED}),
    State.STOPPING: frozenset(),
    State.FAILED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica as the controller knows it. Times are seconds since the epoch."""

    id: ReplicaId
    model: ModelName
    revision: str
    state: State
    shares: tuple[Share, ...]  # what the plan counts for it until it is gone; where it sleeps, what it takes awake
    since: float  # of this state
    created: float
    why: str  # of this state
    runtime: str = "process"
    spawned: float | None = None  # when its process was first seen; its start's time limit counts from here
    ready_at: float | None = None  # the first time it was READY
    last_used: float = 0.0
    in_flight: int | None = None  # requests that gateways have on it; None: unknown, never idle
    stops: int = 0  # how often it was told to stop
    has_exited: bool = False  # its main process is gone; others of it may not be
    machine: str = LOCAL
    asleep_shares: tuple[Share, ...] = ()
    turning: Literal["asleep", "awake"] | None = None  # ASLEEP: told to sleep, or to wake, and not yet heard to have
    then: Literal["stop", "sleep"] = "stop"  # DRAINING: what comes after

    @property
    def counted(self) -> tuple[Share, ...]:
        """What it takes now. One that turns counts whole: it may have all of it already, or still."""
        return self.asleep_shares if self.state is State.ASLEEP and self.turning is None else self.shares

    @property
    def memory_bytes(self) -> int:
        """The bytes of what it takes now, over all devices."""
        return sum_of(self.counted)


class IllegalMove(Exception):
    """A move that `MOVES` does not have: a defect of the planner, never of the world."""
