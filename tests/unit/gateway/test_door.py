"""Workers that take connections from one socket: whoever has fewest takes the next, and nobody waits for the dead."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import uvloop

from modelgrid.gateway.door import Door
from modelgrid.gateway.ledger import Ledger
from modelgrid.gateway.rows import Rows

PATIENCE_S = 20.0


class _Caller(asyncio.Protocol):
    """A connection, as its worker has it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._worker.callers.add(self)
        sender = cast(asyncio.Transport, transport)
        sender.write(b"hello")

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.callers.discard(self)
        self._worker.door.tell()


class _CountingDoor(Door):
    """Counts how often it steps back."""

    stepped_back = 0

    def _return(self) -> None:
        self.stepped_back += 1
        super()._return()


class Worker:
    """One of several, all in one loop: as far as the socket and the ledger tell, processes of their own."""

    def __init__(self, listener: socket.socket, rows: Rows) -> None:
        self.callers: set[_Caller] = set()
        self.ledger = Ledger.shared(rows.path, rows.take())
        loop = asyncio.get_running_loop()
        own = socket.socket(fileno=os.dup(listener.fileno()))
        self.door = _CountingDoor(loop, own, self.ledger, lambda: _Caller(self), lambda: len(self.callers))


class Street:
    """A socket, and who listens on it."""

    def __init__(self, listener: socket.socket, rows: Rows) -> None:
        self.listener = listener
        self.rows = rows
        self.sockets: list[socket.socket] = []

    def worker(self) -> Worker:
        worker = Worker(self.listener, self.rows)
        worker.door.open()
        return worker

    async def connect(self) -> socket.socket:
        """A caller who has been greeted, by whichever worker."""
        loop = asyncio.get_running_loop()
        caller = socket.socket()
        caller.setblocking(False)
        self.sockets.append(caller)
        await loop.sock_connect(caller, self.listener.getsockname())
        assert await asyncio.wait_for(loop.sock_recv(caller, 16), PATIENCE_S) == b"hello"
        return caller


@contextlib.contextmanager
def _street() -> Iterator[Street]:
    rows = Rows(8)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        street = Street(listener, rows)
        yield street
        for caller in street.sockets:
            caller.close()
    rows.close()


def play(scene: Callable[[Street], Awaitable[None]]) -> None:
    async def whole() -> None:
        with _street() as street:
            await scene(street)

    uvloop.run(whole())


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_callers_who_come_one_by_one_are_shared_evenly(count: int) -> None:
    async def scene(street: Street) -> None:
        workers = [street.worker() for _ in range(count)]
        for _ in range(count * 10):
            await street.connect()
        assert [len(worker.callers) for worker in workers] == [10] * count

    play(scene)


def test_callers_who_come_at_once_are_shared_within_the_slack() -> None:
    async def scene(street: Street) -> None:
        one, two = street.worker(), street.worker()
        await asyncio.gather(*(street.connect() for _ in range(100)))
        assert len(one.callers) + len(two.callers) == 100
        assert 40 <= len(one.callers) <= 60

    play(scene)


def test_a_worker_that_comes_later_takes_the_next_callers() -> None:
    async def scene(street: Street) -> None:
        one = street.worker()
        for _ in range(20):
            await street.connect()
        two = street.worker()
        for _ in range(15):
            await street.connect()
        assert (len(one.callers), len(two.callers)) == (20, 15)

    play(scene)


def test_callers_who_left_are_no_reason_to_step_back() -> None:
    async def scene(street: Street) -> None:
        one = street.worker()
        callers = [await street.connect() for _ in range(20)]
        two = street.worker()
        for _ in range(4):
            await street.connect()
        for caller in callers:
            caller.close()
        await until(lambda: two.ledger.fewest_connections_elsewhere() == 0)
        for _ in range(4):
            await street.connect()
        assert (len(one.callers), len(two.callers)) == (4, 4)

    play(scene)


def test_a_worker_that_hangs_is_waited_for_a_little_and_keeps_nobody_waiting_for_long() -> None:
    async def scene(street: Street) -> None:
        one = street.worker()
        hanging = Ledger.shared(street.rows.path, street.rows.take())
        hanging.open_door(0)  # and nothing ever after
        await asyncio.gather(*(street.connect() for _ in range(500)))
        assert len(one.callers) == 500
        assert 10 <= one.door.stepped_back < 200

    play(scene)


def test_a_worker_whose_door_is_closed_or_that_died_is_nobody_to_wait_for() -> None:
    async def scene(street: Street) -> None:
        one, two = street.worker(), street.worker()
        row = street.rows.take()
        Ledger.shared(street.rows.path, row).open_door(0)
        await two.door.close()
        street.rows.settle(row)
        assert one.ledger.fewest_connections_elsewhere() is None
        for _ in range(10):
            await street.connect()
        assert (len(one.callers), len(two.callers)) == (10, 0)
        await two.door.close()  # once more is harmless
        two.door.tell()  # as its last connections end
        assert one.ledger.fewest_connections_elsewhere() is None

    play(scene)


def test_whoever_was_taken_when_the_door_closes_is_served() -> None:
    async def scene(street: Street) -> None:
        one = street.worker()
        other = Ledger.shared(street.rows.path, street.rows.take())
        loop = asyncio.get_running_loop()
        caller = socket.create_connection(street.listener.getsockname())
        street.sockets.append(caller)
        while not one.door._coming:
            await asyncio.sleep(0)
        assert (len(one.callers), other.fewest_connections_elsewhere()) == (0, 1)
        await one.door.close()
        assert len(one.callers) == 1
        caller.setblocking(False)
        assert await loop.sock_recv(caller, 16) == b"hello"

    play(scene)


def test_without_descriptors_callers_wait_until_there_are_some() -> None:
    async def scene(street: Street) -> None:
        one = street.worker()
        caller = socket.socket()
        street.sockets.append(caller)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(int(found.name) for found in Path("/dev/fd").iterdir()) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        fill = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    fill.append(os.dup(caller.fileno()))
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                os.dup(caller.fileno())
            caller.connect(street.listener.getsockname())
            await until(lambda: one.door._timer is not None)
            assert not one.callers
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in fill:
                os.close(descriptor)
        await until(lambda: one.callers)

    play(scene)
