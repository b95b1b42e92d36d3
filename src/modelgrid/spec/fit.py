"""Where a model would go now, as people and programs see it: the answer of `modelgrid fit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modelgrid.spec.machine import Share
from modelgrid.spec.model import ModelName, ReplicaId
from modelgrid.spec.weights import Part

# fits: it is free now. soon: once what leaves already has gone. makes_room: others that nobody uses have to go first.
# waits: others that are busy have to go, after their turn. blocked: what is kept loaded stands in the way.
# impossible: it fits on no machine. unknown: nobody knows what it needs.
Verdict = Literal["fits", "soon", "makes_room", "waits", "blocked", "impossible", "unknown"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked about. `model` is a configured name, else a hub id or an absolute path; the rest wins over what
    is configured."""

    model: str
    engine: str | None = None
    args: tuple[str, ...] | None = None
    memory_bytes: int | None = None
    gpus: float | None = None


@dataclass(frozen=True, slots=True)
class User:
    """A replica that has a share of a device."""

    replica: ReplicaId
    model: ModelName
    state: str
    memory_bytes: int
    makes_room: bool = False


@dataclass(frozen=True, slots=True)
class Space:
    """One device."""

    machine: str
    device: str
    total_bytes: int  # all of it
    memory_bytes: int  # what models may take
    users: tuple[User, ...]
    takes_bytes: int = 0  # what this model would take

    @property
    def free_bytes(self) -> int:
        """What no replica has a share of; less than nothing where they hold more than they may."""
        return self.memory_bytes - sum(user.memory_bytes for user in self.users)


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way, which fits."""

    change: str  # "--max-model-len 8192"
    memory_bytes: int
    shares: tuple[Share, ...]
    fits_now: bool = True  # else it would if nothing else were there


@dataclass(frozen=True, slots=True)
class Fit:
    """The answer. `needs` is for people, as the rest of the planner's words are."""

    model: str
    engine: str
    verdict: Verdict
    why: str
    machine: str | None
    shares: tuple[Share, ...]  # what it would take where
    spaces: tuple[Space, ...]
    needs: str
    memory_bytes: int | None  # None: whole devices, or unknown
    main_bytes: int
    basis: str  # "configured", "measured", "estimated"; "": unknown
    parts: tuple[Part, ...]  # of the estimate
    peak_bytes: int | None  # that was measured
    margin: float  # on what was measured
    alternatives: tuple[Alternative, ...]
    running: tuple[ReplicaId, ...]  # replicas of this model that are there already

    @property
    def is_possible(self) -> bool:
        """Whether a request for it would be served in the end."""
        return self.verdict in ("fits", "soon", "makes_room", "waits")
