"""What this worker has in flight, by replica, and which replicas it suspects of being gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from modelgrid.gateway.choose import choose
from modelgrid.gateway.options import SUSPECT_S
from modelgrid.gateway.routes import Routes
from modelgrid.spec import Load, Target


class Replicas:
    """Counts a request from the choice of its replica until its answer has ended.

    `changed` is called when a replica's count comes to or from none, `cleared` when one is no longer suspected.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None], cleared: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._changed = changed
        self._cleared = cleared
        self._in_flight: dict[str, int] = {}
        self._finished: Counter[str] = Counter()
        self._suspects: dict[str, tuple[int, asyncio.TimerHandle]] = {}
        self._turn = 0

    def choose(self, targets: Sequence[Target]) -> Target | None:
        """The best of `targets`, or None where none is to be trusted."""
        self._turn += 1
        return choose(targets, self._in_flight, self._suspects, self._turn)

    def acquire(self, replica: str) -> None:
        """A request goes to `replica`."""
        count = self._in_flight.get(replica, 0)
        self._in_flight[replica] = count + 1
        if count == 0:
            self._changed()

    def release(self, replica: str) -> None:
        """One that was acquired has ended."""
        count = self._in_flight[replica] - 1
        if count:
            self._in_flight[replica] = count
        else:
            del self._in_flight[replica]
            self._changed()

    def finish(self, model: str) -> None:
        """A request for `model` was served."""
        self._finished[model] += 1

    def suspect(self, replica: str, number: int) -> None:
        """`replica` failed under table `number`: leave it alone for a while."""
        if previous := self._suspects.pop(replica, None):
            previous[1].cancel()
        timer = self._loop.call_later(SUSPECT_S, self._clear, replica)
        self._suspects[replica] = (number, timer)

    def take(self, routes: Routes) -> None:
        """A table that was made after a failure, and still has the replica, is believed."""
        for replica, (number, timer) in list(self._suspects.items()):
            if number != routes.number:
                timer.cancel()
                del self._suspects[replica]

    def load(self, number: int) -> Load:
        """What is in flight under table `number`; counts what finished since the last call."""
        load = Load(table=number, in_flight=dict(self._in_flight), requests=dict(self._finished))
        self._finished.clear()
        return load

    def close(self) -> None:
        """Let go of the loop."""
        for _, timer in self._suspects.values():
            timer.cancel()
        self._suspects.clear()

    def _clear(self, replica: str) -> None:
        del self._suspects[replica]
        self._cleared()
