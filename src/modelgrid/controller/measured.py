"""What replicas really took, and how long they took to start: remembered for the next start.

What is learnt of a replica counts once it has gone. While it runs, its plan and what it holds beyond that are compared
(`modelgrid.planner.life`), and a need that follows what is held would hide the difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import median
from typing import Final

from modelgrid.controller.needs import Peak
from modelgrid.spec import MAIN, Machine, Model, ModelName, ModelSpec, Replica, ReplicaId, Running, Seen, State, sum_of
from modelgrid.store import RUNS_KEPT, Run

PEAKS_OF: Final = 3  # runs: the most that one of the last three held; a leak is forgotten after as many good ones
STARTS_OF: Final = 5  # runs, whose median is what a start takes
NEWS: Final = 1.05  # a peak is written down again when it has grown by so much


class Measured:
    """Learns in each lap; `news` is what has to be written down."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs: dict[ReplicaId, Run] = {run.replica: run for run in runs}
        self._of: defaultdict[str, set[ReplicaId]] = defaultdict(set)  # by model
        for run in self._runs.values():
            self._of[run.model].add(run.replica)
        self._written = dict(self._runs)
        self._alive: frozenset[ReplicaId] = frozenset()

    def peak(self, spec: ModelSpec, accelerator: str) -> Peak | None:
        """The most that the last runs of this model, as it is configured now, have held there; None: nobody knows."""
        ended = [
            run
            for run in self._newest(spec.name)
            if run.revision == spec.revision and run.accelerator == accelerator and run.replica not in self._alive
        ]
        known = [run for run in ended if run.memory_bytes is not None][:PEAKS_OF]
        if not known:
            return None
        return Peak(max(run.memory_bytes or 0 for run in known), max(run.main_bytes for run in known))

    def load_s(self, name: ModelName) -> float | None:
        """What a start takes; None: nobody has seen one."""
        known = [run.load_s for run in self._newest(name) if run.load_s is not None]
        return median(known[:STARTS_OF]) if known else None

    def learn(
        self,
        models: Mapping[ModelName, Model],
        replicas: Iterable[Replica],
        seen: Mapping[ReplicaId, Seen],
        machines: Mapping[str, Machine],
    ) -> None:
        """Look at what there is now."""
        present = tuple(replicas)
        self._alive = frozenset(replica.id for replica in present)
        for replica in present:
            model, machine = models.get(replica.model), machines.get(replica.machine)
            if model is not None and model.runtime != "remote" and machine is not None:
                self._learn(replica, seen.get(replica.id), machine)

    def news(self) -> list[Run]:
        """What was learnt and is not written down yet."""
        return [run for id, run in self._runs.items() if _is_news(run, self._written.get(id))]

    def written(self, runs: Iterable[Run]) -> None:
        """These are in the store, which keeps no more than `RUNS_KEPT`."""
        self._written |= {run.replica: run for run in runs}
        for old in sorted(self._runs.values(), key=lambda run: run.at)[:-RUNS_KEPT]:
            del self._runs[old.replica]
            self._of[old.model].discard(old.replica)
            self._written.pop(old.replica, None)

    def _newest(self, name: str) -> list[Run]:
        return sorted((self._runs[id] for id in self._of.get(name, ())), key=lambda run: -run.at)

    def _learn(self, replica: Replica, seen: Seen | None, machine: Machine) -> None:
        on_gpus = any(share.device != MAIN for share in replica.shares)
        before = self._runs.get(replica.id)
        run = before or Run(
            replica=replica.id,
            model=replica.model,
            revision=replica.revision,
            accelerator=machine.accelerator if on_gpus else "cpu",
            at=replica.created,
        )
        if run.load_s is None:
            run = replace(run, load_s=_load_s(replica))
        if seen is not None and isinstance(seen.state, Running) and _tells(replica, seen.state, on_gpus=on_gpus):
            run = _with_peak(run, seen.state, on_gpus=on_gpus)
        if before is not None or run.load_s is not None or run.memory_bytes is not None:
            self._runs[replica.id] = run
            self._of[run.model].add(run.replica)


def _load_s(replica: Replica) -> float | None:
    """From its process to its first answer, of a start that was seen from its beginning. What was pulled or installed
    before it is there the next time."""
    if replica.state is not State.READY or replica.ready_at is None or replica.spawned is None:
        return None
    return replica.ready_at - replica.spawned if replica.created < replica.spawned <= replica.ready_at else None


def _tells(replica: Replica, state: Running, *, on_gpus: bool) -> bool:
    """Whether what it holds says anything of the next run: it has served callers, or holds more than was planned."""
    if replica.state is State.ASLEEP or replica.turning is not None:
        return False
    has_served = replica.ready_at is not None and replica.last_used > replica.ready_at
    planned = [share for share in replica.shares if (share.device != MAIN) == on_gpus]
    return has_served or (_held_bytes(state, on_gpus=on_gpus) or 0) > sum_of(planned)


def _with_peak(run: Run, state: Running, *, on_gpus: bool) -> Run:
    held_bytes = _held_bytes(state, on_gpus=on_gpus)
    if held_bytes is None:
        return run
    main_bytes = (state.memory_bytes or 0) if on_gpus else 0
    return replace(run, memory_bytes=max(run.memory_bytes or 0, held_bytes), main_bytes=max(run.main_bytes, main_bytes))


def _held_bytes(state: Running, *, on_gpus: bool) -> int | None:
    return (sum(state.gpu_bytes.values()) or None) if on_gpus else state.memory_bytes


def _is_news(run: Run, written: Run | None) -> bool:
    if written is None or run.load_s != written.load_s:
        return True
    if run.memory_bytes is None:
        return False
    return run.memory_bytes > (written.memory_bytes or 0) * NEWS or run.main_bytes > written.main_bytes * NEWS
