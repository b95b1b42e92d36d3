"""Connections to engines that are being made: whoever asked first gets the first one that stands."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Protocol

from modelgrid.gateway.exchange import Loss
from modelgrid.gateway.upstream import Origin, Pool, Upstream


class Asker(Protocol):
    """Who needs a connection."""

    def connected(self, result: Upstream | Loss) -> None:
        """It stands, or can't be made. Comes once, also to who needs it no more: then it is to be put back."""
        ...


class Dialing:
    """One worker's. Connections of one origin are alike, and don't come to stand in the order in which they were
    begun; requests that were sent by priority shall arrive so."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Pool) -> None:
        self._loop = loop
        self._pool = pool
        self._askers: dict[Origin, deque[Asker]] = {}
        self.tasks: set[asyncio.Task[Upstream | Loss]] = set()  # the loop itself keeps none

    def dial(self, origin: Origin, asker: Asker) -> None:
        """Make a connection."""
        self._askers.setdefault(origin, deque()).append(asker)
        task = self._loop.create_task(self._pool.connect(origin))
        self.tasks.add(task)
        task.add_done_callback(partial(self._made, origin))

    def close(self) -> None:
        """Make no more."""
        for task in self.tasks:
            task.cancel()

    def _made(self, origin: Origin, task: asyncio.Task[Upstream | Loss]) -> None:
        self.tasks.discard(task)
        if task.cancelled():
            return
        askers = self._askers[origin]
        asker = askers.popleft()
        if not askers:
            del self._askers[origin]
        asker.connected(task.result())
