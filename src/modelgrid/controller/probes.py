"""One probe task for each replica that runs: until it has served, then for as long as it is READY."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping

import httpx
import structlog

from modelgrid.controller.phases import Phases
from modelgrid.controller.probe import FoundAsleep, WrongKey, until_served, watch
from modelgrid.controller.reading import Reading
from modelgrid.spec import Launch, ReplicaId, Running

log = structlog.get_logger()


class Probes:
    """What is known from probing: `served` passed their first request, `sick` have failed for too long.

    `unready` says what each of the others was last waited for; `loads` what engines said that they are at work on.
    """

    def __init__(self, wake: Callable[[], None], clock: Callable[[], float]) -> None:
        self._wake = wake
        self._clock = clock
        self._client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        self._tasks: dict[ReplicaId, asyncio.Task[None]] = {}
        self._nudges: dict[ReplicaId, asyncio.Event] = {}
        self.served: set[ReplicaId] = set()
        self.sick: dict[ReplicaId, str] = {}
        self.unready: dict[ReplicaId, str] = {}
        self.loads: dict[ReplicaId, Reading] = {}

    def probe(
        self, replica: ReplicaId, running: Running, launch: Launch, limit_s: float, phases: Phases | None
    ) -> None:
        """Probe `replica` from now on, unless it is being probed already. It is sick after failing for `limit_s`."""
        if replica not in self._tasks:
            self._begin(replica, self._probe(replica, running, launch, limit_s, phases))

    def watch(self, replica: ReplicaId, running: Running, launch: Launch, limit_s: float) -> None:
        """Probe `replica`, which is known to have served, unless it is being probed already: one that an earlier
        controller made READY may have stopped to answer since."""
        if replica not in self._tasks:
            self._begin(replica, self._watch(replica, running, launch, limit_s))

    def nudge(self, replica: ReplicaId) -> None:
        """Something was odd with `replica`: look now."""
        if (event := self._nudges.get(replica)) is not None:
            event.set()

    def keep(self, replicas: frozenset[ReplicaId]) -> None:
        """Stop to probe all others, and forget them."""
        for replica in [replica for replica in self._tasks if replica not in replicas]:
            self._tasks.pop(replica).cancel()
            self._nudges.pop(replica)
            self.served.discard(replica)
            self.sick.pop(replica, None)
            self.unready.pop(replica, None)
            self.loads.pop(replica, None)

    async def close(self) -> None:
        """End all probes."""
        tasks = list(self._tasks.values())
        self.keep(frozenset())
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    def _begin(self, replica: ReplicaId, work: Coroutine[None, None, None]) -> None:
        self._nudges[replica] = asyncio.Event()
        self._tasks[replica] = asyncio.create_task(self._guard(replica, work), name=f"probe {replica}")

    async def _guard(self, replica: ReplicaId, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except (WrongKey, FoundAsleep) as error:
            self.sick[replica] = str(error)
            self._wake()
        except Exception:
            log.exception("probe.broke", replica=replica)
            self.sick[replica] = "its probe broke (see modelgrid's log)"
            self._wake()

    async def _probe(
        self, replica: ReplicaId, running: Running, launch: Launch, limit_s: float, phases: Phases | None
    ) -> None:
        def unready(why: str) -> None:
            self.unready[replica] = why

        served = await until_served(self._client, running, launch, unready)
        self.unready.pop(replica, None)
        if phases is not None:
            now = self._clock()
            phases.enter("first_request", now - served.first_request_s)
            phases.end(now)
        self.served.add(replica)
        self._wake()
        await self._watch(replica, running, launch, limit_s)

    async def _watch(self, replica: ReplicaId, running: Running, launch: Launch, limit_s: float) -> None:
        nudged = self._nudges[replica]

        def told(why: str | None) -> None:
            self._told(replica, why)

        def loaded(load: Reading | None) -> None:
            if load is None:
                self.loads.pop(replica, None)
            else:
                self.loads[replica] = load

        await watch(self._client, running, launch, limit_s, nudged, told, loaded)

    def _told(self, replica: ReplicaId, why: str | None) -> None:
        if why is None:
            self.sick.pop(replica, None)
        elif replica not in self.sick:
            self.sick[replica] = why
            self._wake()


def phases_in_ms(phases: Phases, now: float) -> Mapping[str, int]:
    """For the log: ``queued_ms``, ``spawn_ms`` and so on."""
    return {f"{phase}_ms": round(seconds * 1000) for phase, seconds in phases.seconds(now).items()}
