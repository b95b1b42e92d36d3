"""The gateway workers: each is started again when it dies, and all are replaced one by one when somebody asks."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from modelgrid.config import GatewayConfig
from modelgrid.config.paths import Paths
from modelgrid.daemon import roles
from modelgrid.daemon.children import Child, Death
from modelgrid.daemon.roles import Role
from modelgrid.gateway.ledger import ROWS
from modelgrid.gateway.rows import LINGER_S, NoRow, Rows
from modelgrid.spec.units import format_seconds

READY_S = 30.0  # for a new worker to have a table and to take connections
_FAILED_S = 5.0  # for one that had not, to end
_AFTER_GRACE_S = 15.0  # what one that retires may take beyond the grace time of its streams

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Replaced:
    """How it went with one worker."""

    worker: str
    by: str  # who serves in its place
    why_not: str | None = None  # then it serves on


@dataclass(frozen=True, slots=True)
class _Worker:
    number: int
    row: int | None
    child: Child
    task: asyncio.Task[str]  # that keeps it


class Workers:
    """They share the listening socket, and a ledger in which each has a row of its own. Its number is its row's, so its
    name and its log are its own as well, while its predecessor still has streams."""

    def __init__(
        self, paths: Paths, config: GatewayConfig, listener: socket.socket, died: Callable[[Death], object]
    ) -> None:
        self._paths = paths
        self._config = config
        self._listener = listener
        self._died = died
        self._rows = Rows(2 * config.workers)
        self._serving: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._replacing = asyncio.Lock()
        self._is_ending = False
        self._group: asyncio.TaskGroup

    @property
    def children(self) -> list[Child]:
        """Those that serve, those that retire, and one that may not be ready yet."""
        return [worker.child for worker in self._all]

    @property
    def tasks(self) -> list[asyncio.Task[str]]:
        """What keeps them; done when they have ended."""
        return [worker.task for worker in self._all]

    def start(self, group: asyncio.TaskGroup) -> None:
        """As many as are configured, kept by tasks of `group`."""
        self._group = group
        self._serving = [self._start() for _ in range(self._config.workers)]

    def end(self) -> None:
        """None is started any more."""
        self._is_ending = True

    async def replace(self, tell: Callable[[Replaced], object] = lambda _: None, ready_s: float = READY_S) -> None:
        """Replace all, one by one. A new worker is a new interpreter, with the code that is on the disk now. It serves
        before the old one takes no more connections. One that can't serve ends this; the others go on as they are.
        """
        async with self._replacing:
            for place in range(len(self._serving)):
                if self._is_ending:
                    return
                replaced = await self._replace(place, ready_s)
                if replaced.why_not is None:
                    log.info("worker.replaced", worker=replaced.worker, by=replaced.by)
                else:
                    log.error("worker.not_replaced", worker=replaced.worker, why=replaced.why_not)
                tell(replaced)
                if replaced.why_not is not None:
                    return

    async def _replace(self, place: int, ready_s: float) -> Replaced:
        old = self._serving[place]
        await self._until_there_is_a_row()
        if self._is_ending:
            return Replaced(old.child.name, "", "modelgrid is ending")
        new = self._start(on_trial=True)
        why_not = await _why_not_ready(new, ready_s)
        if why_not is not None:
            await _end(new, _FAILED_S)
            log_file = self._paths.logs / f"{new.child.name}.log"
            return Replaced(old.child.name, new.child.name, f"{why_not} (see {log_file})")
        self._serving[place] = new
        old.child.retire()
        asyncio.get_running_loop().call_later(self._config.grace_s + _AFTER_GRACE_S, old.child.end, signal.SIGKILL)
        return Replaced(old.child.name, new.child.name)

    async def _until_there_is_a_row(self) -> None:
        """Those replaced earlier may still have theirs, for as long as a stream of them may last."""
        while not self._rows.has_one and len(self._all) > len(self._serving) and not self._is_ending:
            serving = {worker.task for worker in self._serving}
            retiring = [task for task in self.tasks if task not in serving]
            await asyncio.wait(retiring, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)  # for what is called when one is done

    def _start(self, *, on_trial: bool = False) -> _Worker:
        row = self._take_row()
        number = row + 1 if row is not None else self._free_number()
        options = {
            "gateway": dataclasses.asdict(self._config),
            "number": number,
            "descriptor": self._listener.fileno(),
            "ledger": str(self._rows.path) if row is not None else None,
            "row": row or 0,
        }

        def died(death: Death) -> None:
            if row is not None:
                self._rows.settle(row)
            self._died(death)

        child = Child(
            f"gateway-{number}",
            ["gateway", json.dumps(options)],
            roles.marks(self._paths, Role.GATEWAY),
            [self._listener.fileno(), self._rows.descriptor],
            died=died,
            on_trial=on_trial,
        )
        worker = _Worker(number, row, child, self._group.create_task(child.keep()))
        self._all.add(worker)
        worker.task.add_done_callback(lambda _: self._ended(worker))
        return worker

    def _ended(self, worker: _Worker) -> None:
        self._all.discard(worker)
        if worker.row is not None:
            self._rows.give_back(worker.row, time.monotonic())
            with contextlib.suppress(RuntimeError):  # the loop is closing: nobody is left to read
                loop = asyncio.get_running_loop()
                loop.call_later(LINGER_S, lambda: self._rows.forget(time.monotonic()))

    def _take_row(self) -> int | None:
        try:
            return self._rows.take()
        except NoRow as error:
            log.warning("worker.counts_alone", why=str(error))
            return None

    def _free_number(self) -> int:
        taken = {worker.number for worker in self._all}
        return next(number for number in range(ROWS + 1, ROWS + 2 + len(taken)) if number not in taken)


async def _why_not_ready(worker: _Worker, limit_s: float) -> str | None:
    ready = asyncio.ensure_future(worker.child.is_ready.wait())
    await asyncio.wait([ready, worker.task], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    if worker.child.is_ready.is_set():
        return None
    ready.cancel()
    return worker.task.result() if worker.task.done() else f"not ready within {format_seconds(limit_s)}"


async def _end(worker: _Worker, limit_s: float) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        worker.child.end(number)
        await asyncio.wait([worker.task], timeout=limit_s)
