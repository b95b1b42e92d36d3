"""What all requests of a worker share: the table in force, the counts, the lines, the pool, and the link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from time import monotonic

import msgspec
import structlog

from modelgrid.gateway import answers
from modelgrid.gateway.access import Caller
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.choose import pick
from modelgrid.gateway.dialing import Dialing
from modelgrid.gateway.exchange import Loss
from modelgrid.gateway.ledger import open_ledger
from modelgrid.gateway.legacy import write_legacy
from modelgrid.gateway.link import Link, read_table
from modelgrid.gateway.meters import Meters
from modelgrid.gateway.options import LOAD_DELAY_S, GatewayOptions
from modelgrid.gateway.replicas import Replicas
from modelgrid.gateway.routes import Lane, Routes
from modelgrid.gateway.standing import Standing
from modelgrid.gateway.upstream import Pool
from modelgrid.gateway.waiting import Place, Waiter, Waiting
from modelgrid.spec import Outcome, RoutingTable
from modelgrid.spec.usage import Legacy

_log = structlog.get_logger()

_WOKEN = object()  # all of them


class Switchboard:
    """One worker's state. Everything here happens in one thread, between two turns of its loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: GatewayOptions, switched: Callable[[Routes], None]
    ) -> None:
        self.loop = loop
        self.options = options
        self.routes: Routes | None = None
        self.link = Link(options.link_socket, options.worker, self.take_table, self._greet)
        self._switched = switched
        self.pool = Pool(loop, options)
        self.ledger = open_ledger(options.ledger, options.row)
        self.meters = Meters(options.worker)
        self.replicas = Replicas(loop, self._load_changed, self._wake, self.ledger)
        self.connections = 0
        self.is_logged = options.log_requests != "off"  # so a request keeps a record of what became of it
        self._waiting = Waiting(self.link.send)
        self._flexible: dict[
            Waiter, float
        ] = {}  # who wait for one of the models behind a virtual one, with their ranks
        self.dialing = Dialing(loop, self.pool)
        self._wakes: Iterator[None] = iter(())  # those that are left to be woken
        self._load_timer: asyncio.TimerHandle | None = None

    def read_table_file(self) -> None:
        """Begin with the last table, where the controller is away."""
        table = read_table(self.options.table_file)
        if table is not None:
            self._switch(table)

    def find(self, name: str) -> Lane | None:
        """The model of that name in the table in force."""
        return None if self.routes is None else self.routes.by_name.get(name)

    def unknown_model(self, name: str, caller: Caller | None) -> Answer:
        """Why there is none."""
        return answers.unknown_model(name, self.routes.allowed(caller) if self.routes else ())

    # The lines.

    def count_waiting(self, lane: Lane) -> int:
        """How many wait for a model, in all workers."""
        return max(self.ledger.waiting(lane.slot), self._waiting.count(lane.model))

    def last_behind(self, lane: Lane, rank: float) -> Waiter | None:
        """The last of this worker's requests for a model, if one of `rank` is ahead of it."""
        last = self._waiting.last(lane.model)
        return last.waiter if last is not None and rank < last.order[0] else None

    def join_line(self, lane: Lane, waiter: Waiter, rank: float, waited_s: float, *, is_flexible: bool) -> Place:
        """Wait for a replica of a model, after `waited_s` in lines before; who is flexible may be served by another
        model."""
        self.ledger.wait(lane.slot)
        if is_flexible:
            self._flexible[waiter] = rank
        return self._waiting.join(lane.model, waiter, rank, monotonic() - waited_s)

    def leave_line(self, lane: Lane, place: Place, waited_s: float) -> None:
        """Wait no longer, after `waited_s` in this line."""
        self._flexible.pop(place.waiter, None)
        self.ledger.wait_over(lane.slot)
        self._waiting.leave(place)
        self.meters.waited(lane.model, waited_s)

    def take_table(self, table: RoutingTable, is_first: bool) -> None:
        """A table from the controller. The first of a connection is taken whatever its number: a controller that
        lost its state counts from the start."""
        if not is_first and self.routes is not None and table.number <= self.routes.number:
            _log.warning("table ignored", number=table.number, in_force=self.routes.number)
            return
        self._switch(table)

    def report(self, standing: Standing, era: int, loss: Loss) -> None:
        """A replica failed: the controller is told, and the replica left alone for a while."""
        replica = standing.replica
        _log.warning("engine failed", replica=replica, outcome=loss.outcome, why=loss.why)
        self.link.send(Outcome(replica=replica, outcome=loss.outcome, why=loss.why))
        if loss.outcome == "timed_out":
            self.replicas.time_out(standing, era)
        else:
            self.replicas.lose(standing, era)

    async def run(self) -> None:
        """Repeat what the controller must know, each second, until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            self._tell_all()
            if not self.link.is_open and not self.meters.accounts.is_told:
                self._leave_legacy()

    async def say_last(self, limit_s: float) -> None:
        """Tell what was counted since it was last told: this worker ends. Waits for `limit_s` at most."""
        self._leave_legacy()  # who is told may be killed before it has written that down
        if self.routes is None or not self.link.is_open:
            return
        self._tell_load(with_meters=True)
        while not self.meters.is_told and self.link.is_open:
            self._tell_load(with_meters=True)
        await self.link.flush(limit_s)

    def _leave_legacy(self) -> None:
        write_legacy(self.options.table_file.parent, Legacy(self.link.incarnation, self.meters.accounts.all()))

    def close(self) -> None:
        """Let go of what is kept."""
        if self._load_timer is not None:
            self._load_timer.cancel()
        self.dialing.close()
        self.pool.close()
        self.replicas.close()

    def _switch(self, table: RoutingTable) -> None:
        # No request is chosen for between these lines: the Load that names this table is sent when no new request
        # can go where the table doesn't lead any more, so a replica that it leaves out is idle for good.
        standings = self.replicas.follow(table)
        self.routes = Routes(table, standings, self.pool.origin, self.ledger, self.meters, self.routes)
        self.meters.tallies.forget_but(frozenset(self.routes.lanes))
        self._switched(self.routes)
        self.pool.allow(self.routes.origins)
        self._tell_load()
        self._wake()

    def _wake(self) -> None:
        self._wakes = self._in_order()
        self._wake_next(self._wakes)

    def _wake_next(self, wakes: Iterator[None]) -> None:
        """One in each turn of the loop: what is written in the same turn may be sent in any order."""
        if wakes is self._wakes and next(wakes, _WOKEN) is not _WOKEN:  # else it was begun anew
            self.loop.call_soon(self._wake_next, wakes)

    def _in_order(self) -> Iterator[None]:
        """Wakes those who can be served now, by a replica, or by an answer that says why not, each once."""
        for line in self._waiting.lines():
            for place in line:
                if not self._is_served(place.model):
                    break
                if place.is_taken:
                    place.waiter.proceed()
                    yield
        for waiter in sorted(self._flexible, key=self._flexible.__getitem__):
            if waiter in self._flexible:
                waiter.reconsider()
                yield

    def _is_served(self, model: str) -> bool:
        lane = self.find(model)
        if lane is None:
            return True  # with an error that says so
        is_off = not lane.route.targets and lane.route.unavailable is not None
        return is_off or pick(lane.standings, self.ledger) is not None

    def _load_changed(self) -> None:
        if self._load_timer is None:
            self._load_timer = self.loop.call_later(LOAD_DELAY_S, self._tell_load)

    def _greet(self) -> None:
        self.meters.resend()
        if self.routes is not None:
            self._tell_all()

    def _tell_all(self) -> None:
        for demand in self._waiting.demands(monotonic()):
            self.link.send(demand)
        self._tell_load(with_meters=True)

    def _tell_load(self, *, with_meters: bool = False) -> None:
        if self._load_timer is not None:
            self._load_timer.cancel()
            self._load_timer = None
        if self.routes is not None and self.link.is_open:  # else the counts wait for a link
            load = self.replicas.load(self.routes.number)
            told = self.meters.tallies.settle()
            meters = self.meters.snapshot(self.connections) if with_meters else ()
            used = self.meters.accounts.settle() if with_meters else ()
            self.link.send(
                msgspec.structs.replace(
                    load, meters=meters, arrived=told.arrived, ttft=told.ttft, tokens=told.tokens, used=used
                )
            )
