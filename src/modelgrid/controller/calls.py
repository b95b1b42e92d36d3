"""The calls of runtimes that are under way: a start may take minutes, and none may hold up a lap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from modelgrid.controller.launches import Launches
from modelgrid.controller.phases import Phases
from modelgrid.runtimes.runtime import Runtime, StartError
from modelgrid.runtimes.startable import check_startable
from modelgrid.spec import ModelSpec, Replica, ReplicaId
from modelgrid.weights import WeightsError

log = structlog.get_logger()


class Calls:
    """Starts and stops by replica. Every end of a call wakes the controller."""

    def __init__(
        self, runtimes: Mapping[str, Runtime], launches: Launches, wake: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        self._runtimes = runtimes
        self._launches = launches
        self._wake = wake
        self._clock = clock
        self._starts: dict[ReplicaId, asyncio.Task[None]] = {}
        self._stops: dict[ReplicaId, asyncio.Task[None]] = {}
        self.errors: dict[ReplicaId, str] = {}
        self.phases: dict[ReplicaId, Phases] = {}

    def starting(self) -> frozenset[ReplicaId]:
        """The replicas whose start call has not ended."""
        return frozenset(self._starts)

    def start(self, replica: Replica, spec: ModelSpec, waiting_since: float | None) -> None:
        """Begin to start `replica`; `errors` tells if that fails."""
        now = self._clock()
        phases = self.phases[replica.id] = Phases()
        phases.enter("queued", now if waiting_since is None else min(now, waiting_since))
        work = self._start(replica, spec, self._runtimes[replica.runtime], phases)
        self._starts[replica.id] = asyncio.create_task(work, name=f"start {replica.id}")

    def wakes(self, replica: ReplicaId, waiting_since: float | None) -> None:
        """Time the waking of `replica`, which is told elsewhere."""
        now = self._clock()
        phases = self.phases[replica] = Phases()
        phases.enter("queued", now if waiting_since is None else min(now, waiting_since))
        phases.enter("wake", now)

    def stop(self, replica: ReplicaId, runtime: str, *, force: bool) -> None:
        """Begin to stop `replica`, once its start call, if one is under way, has been cancelled."""
        if replica in self._stops:
            return
        task = asyncio.create_task(self._stop(replica, self._runtimes[runtime], force), name=f"stop {replica}")
        self._stops[replica] = task

    def forget(self, kept: frozenset[ReplicaId]) -> None:
        """Drop what is known of replicas that are gone."""
        for known in (self.errors, self.phases):
            for replica in [replica for replica in known if replica not in kept]:
                del known[replica]

    async def close(self) -> None:
        """Cancel what is under way; replicas stay as they are."""
        tasks = [*self._starts.values(), *self._stops.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _start(self, replica: Replica, spec: ModelSpec, runtime: Runtime, phases: Phases) -> None:
        def progress(phase: str, detail: str) -> None:
            phases.enter(phase, self._clock(), detail)

        try:
            progress("weights", "")
            check_startable(await asyncio.to_thread(self._launches.launch, spec, replica))  # before a long pull
            await self._launches.fetch(spec, lambda detail: progress("weights", detail))
            launch = await asyncio.to_thread(self._launches.launch, spec, replica)
            await runtime.start(replica.id, launch, progress)
            progress("load", "")
        except (StartError, WeightsError) as error:
            self.errors[replica.id] = str(error)
        except Exception as error:
            log.exception("start.broke", replica=replica.id, model=spec.name)
            self.errors[replica.id] = f"cannot start {replica.id}: {type(error).__name__}: {error}"
        finally:
            del self._starts[replica.id]
            self._wake()

    async def _stop(self, replica: ReplicaId, runtime: Runtime, force: bool) -> None:
        try:
            if (start := self._starts.get(replica)) is not None:
                start.cancel()
                await asyncio.gather(start, return_exceptions=True)
            await runtime.stop(replica, force=force)
        except Exception:
            log.exception("stop.broke", replica=replica)  # the next lap asks again
        finally:
            del self._stops[replica]
            self._wake()
