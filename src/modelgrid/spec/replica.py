"""A replica: one running launch, and the legal moves of its life."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from modelgrid.spec.machine import LOCAL, Share, most, sum_of
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
    asleep_shares: tuple[Share, ...] = ()  # what it takes asleep, from when that is planned until it is READY again
    turning: Literal["asleep", "awake"] | None = None  # ASLEEP: told to sleep, or to wake, and not yet heard to have
    then: Literal["stop", "sleep"] = "stop"  # DRAINING: what comes after
    took_s: float | None = None  # what its last start, or waking, took

    @property
    def counted(self) -> tuple[Share, ...]:
        """What it takes now. One that turns, or will, counts whole: of each device it may have either already."""
        if not self.asleep_shares:
            return self.shares
        if self.state is not State.DRAINING and self.turning is None:
            return self.asleep_shares
        return most(self.shares, self.asleep_shares)

    @property
    def is_falling_asleep(self) -> bool:
        """Whether it will sleep, when it has finished what it has in flight and its engine has done what it is told."""
        if self.state is State.DRAINING:
            return self.then == "sleep"
        return self.state is State.ASLEEP and self.turning == "asleep"

    @property
    def is_at_rest(self) -> bool:
        """Whether it will stay as it is until somebody wants something else."""
        return self.state is State.READY or (self.state is State.ASLEEP and self.turning is None)

    @property
    def soon(self) -> Replica:
        """As it will be then; others as they are."""
        return replace(self, state=State.ASLEEP, turning=None) if self.is_falling_asleep else self

    @property
    def memory_bytes(self) -> int:
        """The bytes of what it takes now, over all devices."""
        return sum_of(self.counted)


class IllegalMove(Exception):
    """A move that `MOVES` does not have: a defect of the planner, never of the world."""
