"""Gateway workers as the supervisor keeps them: replaced by those that can serve, and by no others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from modelgrid.config import GatewayConfig
from modelgrid.config.paths import Paths, find_paths
from modelgrid.daemon.asking import NobodyAsked, replace_workers, serve_asking
from modelgrid.daemon.workers import Replaced, Workers
from modelgrid.gateway.ledger import Ledger
from modelgrid.spec import RoutingTable
from modelgrid.spec.messages import encode

PATIENCE_S = 30.0
Scene = Callable[[Workers], Awaitable[None]]


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "nothing happened"
        await asyncio.sleep(0.02)


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too long for a socket's address
        monkeypatch.setenv("MODELGRID_HOME", folder)  # where the workers look
        found = find_paths()
        found.make()
        found.table.write_bytes(encode(RoutingTable(number=1)))
        yield found


def play(paths: Paths, scene: Scene, *, workers: int = 1) -> None:
    """Real workers, on a port of their own, until the scene is over."""

    @contextlib.asynccontextmanager
    async def kept() -> AsyncIterator[Workers]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            config = GatewayConfig(workers=workers, grace_s=1.0)
            all_workers = Workers(paths, config, listener, died=lambda _: None)
            async with asyncio.TaskGroup() as group:
                all_workers.start(group)
                try:
                    await until(lambda: all(child.is_ready.is_set() for child in all_workers.children))
                    yield all_workers
                finally:
                    all_workers.end()
                    for child in all_workers.children:
                        child.end(signal.SIGKILL)  # also where a test fails, and with whatever it has stopped

    async def whole() -> None:
        async with kept() as all_workers:
            await scene(all_workers)

    asyncio.run(whole())


def pids(workers: Workers) -> set[int]:
    return {child.pid for child in workers.children if child.pid is not None}


def test_workers_are_replaced_by_others_of_other_names(paths: Paths) -> None:
    async def scene(workers: Workers) -> None:
        told: list[Replaced] = []
        before = pids(workers)
        await workers.replace(told.append)
        assert told == [Replaced("gateway-1", "gateway-3"), Replaced("gateway-2", "gateway-4")]
        async with asyncio.timeout(10):  # long before somebody has to be killed
            await until(lambda: len(workers.children) == 2)
        assert not before & pids(workers)
        await workers.replace(told.append)
        assert {replaced.worker for replaced in told[2:]} == {"gateway-3", "gateway-4"}
        assert {replaced.by for replaced in told[2:]} == {"gateway-1", "gateway-2"}  # rows that are free again

    play(paths, scene, workers=2)


def test_a_worker_without_a_table_takes_nobodys_place(paths: Paths) -> None:
    async def scene(workers: Workers) -> None:
        before = pids(workers)
        paths.table.unlink()
        told: list[Replaced] = []
        await workers.replace(told.append, ready_s=1.0)
        log = paths.logs / "gateway-2.log"
        assert told == [Replaced("gateway-1", "gateway-2", f"not ready within 1.0s (see {log})")]
        assert pids(workers) == before

    play(paths, scene)


def test_after_one_that_dies_no_other_is_tried(paths: Paths) -> None:
    async def scene(workers: Workers) -> None:
        before = pids(workers)
        (paths.logs / "gateway-3.log").mkdir()  # where it has to write
        told: list[Replaced] = []
        await workers.replace(told.append)
        (replaced,) = told
        assert replaced.why_not is not None
        assert replaced.why_not.startswith("exited with code 1 (see ")
        assert pids(workers) == before

    play(paths, scene, workers=2)


def test_two_who_ask_at_once_are_served_one_after_the_other(paths: Paths) -> None:
    async def scene(workers: Workers) -> None:
        told: list[Replaced] = []
        most = 0

        def tell(replaced: Replaced) -> None:
            nonlocal most
            most = max(most, len(workers.children))
            told.append(replaced)

        await asyncio.gather(workers.replace(tell), workers.replace(tell))
        assert told == [Replaced("gateway-1", "gateway-2"), Replaced("gateway-2", "gateway-1")]
        assert most == 2

    play(paths, scene)


def test_rows_of_workers_that_still_have_streams_are_waited_for(paths: Paths) -> None:
    async def scene(workers: Workers) -> None:
        (first,) = pids(workers)
        os.kill(first, signal.SIGSTOP)  # it can't end
        told: list[Replaced] = []
        await workers.replace(told.append)
        replacing = asyncio.create_task(workers.replace(told.append))
        await asyncio.sleep(0.5)
        assert len(told) == 1
        assert len(workers.children) == 2
        os.kill(first, signal.SIGKILL)
        await asyncio.wait_for(replacing, PATIENCE_S)
        assert told == [Replaced("gateway-1", "gateway-2"), Replaced("gateway-2", "gateway-1")]

    play(paths, scene)


def test_a_killed_workers_row_is_cleared_before_another_has_it(paths: Paths) -> None:
    async def scene(workers: Workers) -> None:
        (pid,) = pids(workers)
        rows = workers._rows
        spare = rows.take()
        reader, victim = Ledger.shared(rows.path, spare), Ledger.shared(rows.path, 0)
        victim.begin(5)  # as it had it
        victim.wait(5)
        assert (reader.elsewhere(5), reader.waiting(5)) == (1, 1)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pids(workers) - {pid})
        assert (reader.elsewhere(5), reader.waiting(5)) == (0, 0)
        rows.give_back(spare, 0.0)

    play(paths, scene)


def test_whoever_connects_is_told_how_it_goes(paths: Paths) -> None:
    with pytest.raises(NobodyAsked):
        next(replace_workers(paths.serve_socket))

    async def scene(workers: Workers) -> None:
        serving = asyncio.create_task(serve_asking(paths.serve_socket, workers))
        await until(paths.serve_socket.exists)
        assert paths.serve_socket.stat().st_mode & 0o777 == 0o600
        told = await asyncio.to_thread(lambda: list(replace_workers(paths.serve_socket)))
        assert told == [Replaced("gateway-1", "gateway-2")]
        serving.cancel()
        await asyncio.wait([serving])

    play(paths, scene)
    with pytest.raises(NobodyAsked):
        next(replace_workers(paths.serve_socket))
