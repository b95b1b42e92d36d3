"""The fake's faults: each does what its name says, at the times of its clock."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from modelgrid.runtimes.fake import FakeRuntime, Faults, StartFault, World
from modelgrid.runtimes.runtime import StartError
from modelgrid.spec import Exited, Launch, ModelName, ReplicaId, Running, Unknown

TINY = ModelName("tiny")
ONE = ReplicaId("tiny-1")
LAUNCH = Launch(TINY, "r1", "tiny", argv=("true",), memory_bytes=5)
RUNNING = Running("http://127.0.0.1:20000/v1", "http://127.0.0.1:20000", 5, 1000)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def quiet(phase: str, detail: str) -> None:
    """Progress that nobody follows."""


def fake(clock: Clock, faults: Faults) -> FakeRuntime:
    return FakeRuntime(World(clock, faults={TINY: faults}))


def do(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def state(runtime: FakeRuntime) -> Running | Exited | None:
    seen = asyncio.run(runtime.list())
    assert not isinstance(seen, Unknown)
    return seen[0].state if seen else None


def test_a_refused_start_raises_and_nothing_appears(clock: Clock) -> None:
    runtime = fake(clock, Faults(start=StartFault.REFUSED))
    with pytest.raises(StartError):
        do(runtime.start(ONE, LAUNCH, quiet))
    assert state(runtime) is None


def test_a_lost_start_returns_and_nothing_appears(clock: Clock) -> None:
    runtime = fake(clock, Faults(start=StartFault.LOST))
    do(runtime.start(ONE, LAUNCH, quiet))
    assert state(runtime) is None


def test_a_start_whose_reply_is_lost_raises_and_the_replica_is_there(clock: Clock) -> None:
    runtime = fake(clock, Faults(start=StartFault.REPLY_LOST))
    with pytest.raises(StartError):
        do(runtime.start(ONE, LAUNCH, quiet))
    assert state(runtime) == RUNNING
    do(runtime.start(ONE, LAUNCH, quiet))
    assert runtime.world.starts == [ONE]


def test_a_start_that_hangs_can_be_cancelled_and_leaves_nothing(clock: Clock) -> None:
    runtime = fake(clock, Faults(start=StartFault.HANGS))

    async def scenario() -> None:
        task = asyncio.create_task(runtime.start(ONE, LAUNCH, quiet))
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    do(scenario())
    assert state(runtime) is None


def test_a_replica_can_appear_late(clock: Clock) -> None:
    runtime = fake(clock, Faults(appears_after_s=3))
    do(runtime.start(ONE, LAUNCH, quiet))
    assert state(runtime) is None
    clock.now += 3
    assert state(runtime) == RUNNING


def test_a_replica_can_end_by_itself_and_leave_processes(clock: Clock) -> None:
    runtime = fake(clock, Faults(exits_after_s=5, leftover_processes=2))
    do(runtime.start(ONE, LAUNCH, quiet))
    clock.now += 4
    assert state(runtime) == RUNNING
    clock.now += 1
    assert state(runtime) == Exited("exited with code 1", 2)
    do(runtime.stop(ONE, force=False))
    assert state(runtime) == Exited("exited with code 1", 2)
    do(runtime.stop(ONE, force=True))
    assert state(runtime) is None


def test_stops_can_be_lost(clock: Clock) -> None:
    runtime = fake(clock, Faults(loses_stops=2))
    do(runtime.start(ONE, LAUNCH, quiet))
    for _ in range(2):
        do(runtime.stop(ONE, force=True))
        assert state(runtime) == RUNNING
    do(runtime.stop(ONE, force=False))
    assert state(runtime) is None


def test_a_gentle_stop_can_take_its_time_and_a_second_one_does_not_prolong_it(clock: Clock) -> None:
    runtime = fake(clock, Faults(stop_takes_s=4))
    do(runtime.start(ONE, LAUNCH, quiet))
    do(runtime.stop(ONE, force=False))
    clock.now += 3
    do(runtime.stop(ONE, force=False))
    assert state(runtime) == RUNNING
    clock.now += 1
    assert state(runtime) is None


def test_a_crash_and_a_disappearance_come_when_they_are_told(clock: Clock) -> None:
    runtime = fake(clock, Faults())
    do(runtime.start(ONE, LAUNCH, quiet))
    runtime.world.crash(ONE, processes=1)
    assert state(runtime) == Exited("killed by SIGKILL", 1)
    runtime.world.vanish(ONE)
    assert state(runtime) is None


def test_a_blind_runtime_answers_unknown(clock: Clock) -> None:
    runtime = fake(clock, Faults())
    do(runtime.start(ONE, LAUNCH, quiet))
    runtime.world.blind = "the power is off"
    assert asyncio.run(runtime.list()) == Unknown("the power is off")
    runtime.world.blind = None
    assert state(runtime) == RUNNING
