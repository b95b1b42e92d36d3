"""One task for each replica that turns: told to sleep, or to wake, until its engine has done it or could not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping

import httpx
import structlog

from modelgrid.controller.probe import FoundAsleep, WrongKey
from modelgrid.controller.turn import TurnError, put_to_sleep, wake
from modelgrid.spec import Launch, ReplicaId, Running

log = structlog.get_logger()


class Turns:
    """What is known of those that turn: `slept` and `woken` have done so, and `errors` says why others could not."""

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        self._tasks: dict[ReplicaId, tuple[str, asyncio.Task[None]]] = {}
        self.slept: set[ReplicaId] = set()
        self.woken: set[ReplicaId] = set()
        self.errors: dict[ReplicaId, str] = {}
        self.unready: dict[ReplicaId, str] = {}  # what a waking one is still waited for

    def put_to_sleep(self, replica: ReplicaId, running: Running, launch: Launch) -> None:
        """Tell `replica` to sleep, unless it is being told already."""
        self._begin(replica, "asleep", put_to_sleep(self._client, running, launch), self.slept)

    def wake(self, replica: ReplicaId, running: Running, launch: Launch) -> None:
        """Tell `replica` to wake, unless it is being told already, and wait until it serves."""

        def unready(why: str) -> None:
            self.unready[replica] = why

        self._begin(replica, "awake", wake(self._client, running, launch, unready), self.woken)

    def keep(self, turning: Mapping[ReplicaId, str]) -> None:
        """Let go of all that do not turn, or turn the other way now, and forget them."""
        for replica, (way, task) in list(self._tasks.items()):
            if turning.get(replica) != way:
                task.cancel()
                self._forget(replica)

    async def close(self) -> None:
        """End all tasks; engines go on with what they were told."""
        tasks = [task for _, task in self._tasks.values()]
        self.keep({})
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    def _begin(self, replica: ReplicaId, way: str, work: Coroutine[None, None, None], ended: set[ReplicaId]) -> None:
        if replica in self._tasks:
            work.close()
            return
        self._tasks[replica] = way, asyncio.create_task(self._guard(replica, work, ended), name=f"{way} {replica}")

    async def _guard(self, replica: ReplicaId, work: Coroutine[None, None, None], ended: set[ReplicaId]) -> None:
        try:
            await work
            ended.add(replica)
        except (TurnError, WrongKey, FoundAsleep) as error:
            self.errors[replica] = str(error)
        except Exception:
            log.exception("turn.broke", replica=replica)
            self.errors[replica] = "telling it broke (see modelgrid's log)"
        self._done()

    def _forget(self, replica: ReplicaId) -> None:
        del self._tasks[replica]
        self.slept.discard(replica)
        self.woken.discard(replica)
        self.errors.pop(replica, None)
        self.unready.pop(replica, None)
