"""What all requests of a worker share: the table in force, the counts, the lines, the pool, and the link."""

from __future__ import annotations

import asyncio

import structlog

from modelgrid.gateway.link import Link, read_table
from modelgrid.gateway.options import LOAD_DELAY_S, GatewayOptions
from modelgrid.gateway.replicas import Replicas
from modelgrid.gateway.routes import Routes
from modelgrid.gateway.upstream import Loss, Pool, Upstream
from modelgrid.gateway.waiting import Waiting
from modelgrid.spec import Outcome, RoutingTable

_log = structlog.get_logger()


class Switchboard:
    """One worker's state. Everything here happens in one thread, between two turns of its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: GatewayOptions) -> None:
        self.loop = loop
        self.options = options
        self.routes: Routes | None = None
        self.link = Link(options.link_socket, options.worker, self.take_table, self._greet)
        self.pool = Pool(loop, options)
        self.replicas = Replicas(loop, self._load_changed, self._wake)
        self.waiting = Waiting(self.link.send)
        self.is_draining = False
        self.tasks: set[asyncio.Task[Upstream | Loss]] = set()  # connections to engines that are being made
        self._load_timer: asyncio.TimerHandle | None = None

    def read_table_file(self) -> None:
        """Begin with the last table, where the controller is away."""
        table = read_table(self.options.table_file)
        if table is not None:
            self._switch(Routes(table))

    def take_table(self, table: RoutingTable, is_first: bool) -> None:
        """A table from the controller. The first of a connection is taken whatever its number: a controller that
        lost its state counts from the start."""
        if not is_first and self.routes is not None and table.number <= self.routes.number:
            _log.warning("table ignored", number=table.number, in_force=self.routes.number)
            return
        self._switch(Routes(table))

    def report(self, replica: str, loss: Loss) -> None:
        """A replica failed: the controller is told, and the replica left alone for a while."""
        _log.warning("engine failed", replica=replica, outcome=loss.outcome, why=loss.why)
        self.link.send(Outcome(replica=replica, outcome=loss.outcome, why=loss.why))
        if loss.outcome != "timed_out":
            self.replicas.suspect(replica, self.routes.number if self.routes else 0)

    async def run(self) -> None:
        """Repeat what the controller must know, each second, until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            self._tell_all()

    def close(self) -> None:
        """Let go of what is kept."""
        if self._load_timer is not None:
            self._load_timer.cancel()
        for task in self.tasks:
            task.cancel()
        self.pool.close()
        self.replicas.close()

    def _switch(self, routes: Routes) -> None:
        # No request is chosen for between these lines: the Load that names this table is sent when no new request
        # can go where the table doesn't lead any more, so a replica that it leaves out is idle for good.
        self.routes = routes
        self.replicas.take(routes)
        self.pool.allow(routes.origins)
        self._tell_load()
        self._wake()

    def _wake(self) -> None:
        self.waiting.resume(self._is_served)

    def _is_served(self, model: str) -> bool:
        route = self.routes.find(model) if self.routes else None
        if route is None:
            return True  # with an error that says so
        return self.replicas.choose(route.targets) is not None or (not route.targets and route.unavailable is not None)

    def _load_changed(self) -> None:
        if self._load_timer is None:
            self._load_timer = self.loop.call_later(LOAD_DELAY_S, self._tell_load)

    def _greet(self) -> None:
        if self.routes is not None:
            self._tell_all()

    def _tell_all(self) -> None:
        for demand in self.waiting.demands(self.loop.time()):
            self.link.send(demand)
        self._tell_load()

    def _tell_load(self) -> None:
        if self._load_timer is not None:
            self._load_timer.cancel()
            self._load_timer = None
        if self.routes is not None and self.link.is_open:  # else the counts wait for a link
            self.link.send(self.replicas.load(self.routes.number))
