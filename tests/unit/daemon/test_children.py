"""Children of the supervisor: started again when they die, and ended when asked."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelgrid.config import GatewayConfig
from modelgrid.config.paths import Paths, find_paths
from modelgrid.daemon import roles
from modelgrid.daemon.children import Child, Death
from modelgrid.daemon.roles import Role

PATIENCE_S = 30.0


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "nothing happened"
        await asyncio.sleep(0.02)


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too long for a socket's address
        yield Path(folder).resolve()


@pytest.fixture
def paths(home: Path) -> Paths:
    found = find_paths({"MODELGRID_HOME": str(home)})
    found.make()
    return found


@pytest.fixture
def deaths() -> list[Death]:
    return []


@pytest.fixture
def worker(home: Path, paths: Paths, deaths: list[Death]) -> Iterator[Child]:
    """A real gateway worker, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = {
            "gateway": dataclasses.asdict(GatewayConfig(grace_s=1.0)),
            "number": 1,
            "descriptor": listener.fileno(),
        }
        environ = {"MODELGRID_HOME": str(home), **roles.marks(paths, Role.GATEWAY)}
        yield Child("gateway-1", ["gateway", json.dumps(options)], environ, [listener.fileno()], died=deaths.append)


def test_a_child_that_keeps_dying_is_started_again_with_growing_pauses(deaths: list[Death]) -> None:
    async def scene() -> None:
        child = Child("odd", ["gateway", "these are no options"], {}, died=deaths.append)
        keeping = asyncio.create_task(child.keep())
        await until(lambda: len(deaths) == 4)
        child.end()
        await asyncio.wait_for(keeping, 2)  # not after the last pause
        assert deaths == [Death("odd", "exited with code 1", pause_s) for pause_s in (0.0, 0.2, 0.5, 5.0)]

    asyncio.run(scene())


def test_a_child_that_cannot_be_started_is_tried_again_with_pauses(deaths: list[Death]) -> None:
    async def scene() -> None:
        child = Child("large", ["x" * 2**24], {}, died=deaths.append)  # more than the system takes
        keeping = asyncio.create_task(child.keep())
        await until(lambda: len(deaths) == 3)
        assert not child.has_ended_well
        child.end()
        await asyncio.wait_for(keeping, PATIENCE_S)
        assert [death.again_in_s for death in deaths] == [0.0, 0.2, 0.5]
        assert all(death.how.startswith("could not be started: ") for death in deaths)

    asyncio.run(scene())


def test_a_killed_worker_is_replaced_and_can_be_found_and_ended(
    worker: Child, paths: Paths, deaths: list[Death]
) -> None:
    async def scene() -> None:
        def found() -> list[int]:
            return [member.process.pid for member in roles.members(paths) if member.role is Role.GATEWAY]

        keeping = asyncio.create_task(worker.keep())
        await until(lambda: worker.pid is not None and found() == [worker.pid])
        first = worker.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: worker.pid not in (None, first) and found() == [worker.pid])
        assert deaths == [Death("gateway-1", "killed by SIGKILL", 0.0)]
        worker.end()
        await asyncio.wait_for(keeping, PATIENCE_S)
        assert worker.pid is None
        assert found() == []

    asyncio.run(scene())


def test_who_is_asked_to_end_while_it_is_being_started_ends(worker: Child) -> None:
    async def scene() -> None:
        keeping = asyncio.create_task(worker.keep())
        await asyncio.sleep(0)  # now it waits for its process
        assert worker.pid is None
        worker.end()
        await asyncio.wait_for(keeping, PATIENCE_S)
        assert worker.pid is None

    asyncio.run(scene())


def test_who_was_ended_before_its_start_is_not_started(worker: Child) -> None:
    worker.end()
    asyncio.run(asyncio.wait_for(worker.keep(), PATIENCE_S))
    assert worker.pid is None
    assert not worker.has_ended_well
