"""What this worker has in flight, by replica, and which replicas it leaves alone for now."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from modelgrid.gateway.breaker import Breaker, State, is_engine_error, may_eject
from modelgrid.gateway.ledger import SLOT_WORDS, Ledger
from modelgrid.gateway.standing import Standing
from modelgrid.spec import Load, RoutingTable, Target

_log = structlog.get_logger()


class Replicas:
    """Counts a request from the choice of its replica until its answer has ended, here and in the ledger.

    A request that `begin`s ends once, by `end`; between the two it tells `judge` of its answer's head, or `lose`. They
    take the era that `begin` gave, so that only what is known of a replica *since* it was last left alone counts.
    `changed` is called when a replica's count comes to or from none; `cleared`, from the loop, when one that was left
    alone takes requests again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[], None],
        cleared: Callable[[], None],
        ledger: Ledger | None = None,
    ) -> None:
        self._loop = loop
        self._changed = changed
        self._cleared = cleared
        self._ledger = ledger or Ledger.alone()
        self._own = self._ledger.own
        self._standings: dict[str, Standing] = {}
        self._number = -1  # of the table in force
        self._timers: dict[Standing, asyncio.TimerHandle] = {}
        self._finished: Counter[str] = Counter()
        self._turn = 0

    def follow(self, table: RoutingTable) -> dict[str, tuple[Standing, ...]]:
        """Take a table; answers the replicas of each model in it, in the table's order.

        A table that was made after a loss, and still has the replica, is believed.
        """
        self._number = table.number
        for standing in self._standings.values():
            standing.is_listed = False
        by_model = {route.model: tuple(map(self._list, route.targets)) for route in table.routes}
        for standings in by_model.values():
            for standing in standings:
                standing.peers = standings
        for standing in [one for one in self._standings.values() if not one.is_listed and not one.in_flight]:
            self._forget(standing)
        return by_model

    def begin(self, standing: Standing) -> int:
        """A request goes to a replica; answers the era in which it does."""
        self._turn = standing.turn = self._turn + 1
        count = standing.in_flight
        standing.in_flight = count + 1
        if standing.slot:
            self._own[standing.slot * SLOT_WORDS] += 1  # as `Ledger.begin` does, which is a call
        if not count:
            self._changed()
        breaker = standing.breaker
        if breaker.is_watched:
            breaker.begin()
        return breaker.era

    def end(self, standing: Standing, era: int) -> None:
        """One that began has ended, however it did."""
        count = standing.in_flight - 1
        standing.in_flight = count
        if standing.slot:
            self._own[standing.slot * SLOT_WORDS] -= 1
        if not count:
            self._changed()
            if not standing.is_listed:
                self._forget(standing)
        if standing.breaker.is_watched:
            with self._turning(standing) as breaker:
                breaker.end(era)

    def judge(self, standing: Standing, era: int, status: int, says_when: bool = False) -> None:
        """An answer's head came; `says_when`: with a Retry-After. Nothing needs to be told of a status below 500 while
        the replica's breaker isn't watched."""
        now = self._loop.time()
        with self._turning(standing) as breaker:
            if not is_engine_error(status, says_when):
                breaker.succeed(era, now)
            elif breaker.err(era, now) and may_eject(breaker, _others(standing), now):
                breaker.eject()

    def time_out(self, standing: Standing, era: int) -> None:
        """A replica didn't answer, or not go on, in time: one of its errors."""
        self.judge(standing, era, 504)

    def lose(self, standing: Standing, era: int) -> None:
        """A replica refused the connection, or broke it."""
        with self._turning(standing) as breaker:
            breaker.lose(era)
        standing.lost_under = self._number

    def finish(self, model: str) -> None:
        """A request for `model` was served."""
        self._finished[model] += 1

    def load(self, number: int) -> Load:
        """What is in flight under table `number`; counts what finished since the last call."""
        in_flight = {name: standing.in_flight for name, standing in self._standings.items() if standing.in_flight}
        load = Load(table=number, in_flight=in_flight, requests=dict(self._finished))
        self._finished.clear()
        return load

    def close(self) -> None:
        """Let go of the loop."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _list(self, target: Target) -> Standing:
        standing = self._standings.get(target.replica)
        if standing is None:
            standing = self._standings[target.replica] = Standing(target.replica, target.slot)
        elif standing.slot != target.slot:
            self._move(standing, target.slot)
        standing.is_listed = True
        if standing.lost_under != self._number:
            standing.breaker.believe()
        return standing

    def _move(self, standing: Standing, slot: int) -> None:
        for _ in range(standing.in_flight):
            self._ledger.end(standing.slot)
            self._ledger.begin(slot)
        standing.slot = slot

    def _forget(self, standing: Standing) -> None:
        if self._standings.get(standing.replica) is standing:
            del self._standings[standing.replica]
        timer = self._timers.pop(standing, None)
        if timer is not None:
            timer.cancel()

    @contextmanager
    def _turning(self, standing: Standing) -> Iterator[Breaker]:
        """Around what a request tells: do what the breaker's new state asks for."""
        breaker = standing.breaker
        era, was_out = breaker.era, breaker.is_out
        yield breaker
        if breaker.state is State.OPEN:
            if breaker.era != era:
                self._pause(standing)
        elif was_out and not breaker.is_out:
            _log.info("replica is back", replica=standing.replica, state=breaker.state)
            self._loop.call_soon(self._cleared)

    def _pause(self, standing: Standing) -> None:
        breaker = standing.breaker
        timer = self._timers.get(standing)
        if timer is not None:
            timer.cancel()
        _log.warning("replica left alone", replica=standing.replica, cause=breaker.cause, pause_s=breaker.pause_s)
        self._timers[standing] = self._loop.call_later(breaker.pause_s, self._half_open, standing, breaker.era)

    def _half_open(self, standing: Standing, era: int) -> None:
        self._timers.pop(standing, None)
        standing.breaker.half_open(era)
        if not standing.breaker.is_out:
            self._cleared()


def _others(standing: Standing) -> list[Breaker]:
    return [peer.breaker for peer in standing.peers if peer is not standing]
