"""The seam of engines: how one kind of model server is launched and spoken to. Pure: spec in, `Launch` out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from modelgrid.spec import Asleep, Launch, Machine, ModelSpec, Need, Place, ReplicaId
from modelgrid.spec.weights import Estimate, Weights


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a specification: the field (as the configuration names it), and what to do."""

    field: str
    message: str


class Engine(Protocol):
    """One kind of model server.

    Every method is pure and may be called as often as wanted.
    """

    @property
    def name(self) -> str:
        """As ``engine:`` names it."""
        ...

    @property
    def runtime(self) -> str:
        """Which runtime runs its launches: "process" or "remote"."""
        ...

    @property
    def summary(self) -> str:
        """A line for people."""
        ...

    def operations(self, model: ModelSpec) -> tuple[str, ...]:
        """What it serves, of `modelgrid.spec.operations`: what the model lists, where it lists anything."""
        ...

    def problems(self, model: ModelSpec) -> list[Problem]:
        """All that is wrong with `model` for this engine; empty when nothing is."""
        ...

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        """What one replica takes at its peak of what it computes on ("cpu" or "cuda"), by what is known of its weights.
        Used where nobody said and nobody has measured it."""
        ...

    def sleep(self, model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
        """What one replica on `machine` keeps asleep, estimated; None where it can't or may not sleep. `weights_bytes`
        None: they aren't known. What `launch` answers says how it is told."""
        ...

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        """What to run. `weights` is the local path of the source's files (None without a source), `key` a
        secret of this replica, which the engine is to ask of its callers where it can."""
        ...
