"""Replicas that were left are ended, and what can't be ended is told."""

from __future__ import annotations

import asyncio
import time

import pytest

from modelgrid.daemon.leftovers import StopError, end_replicas
from modelgrid.runtimes.fake import FakeRuntime, Faults, World
from modelgrid.spec import Launch, ModelName, ReplicaId

NAME = ModelName("a")


def end(faults: Faults, grace_s: float = 0.2) -> int:
    runtime = FakeRuntime(World(clock=time.monotonic, faults={NAME: faults}))

    async def scenario() -> int:
        await runtime.start(ReplicaId("a-1"), Launch(NAME, "r1", NAME, argv=("true",)), lambda phase, detail: None)
        return await end_replicas({"fake": runtime}, grace_s, lambda _: None, forced_s=0.5)

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    "faults", [Faults(), Faults(ignores_gentle_stops=True), Faults(loses_stops=2), Faults(leftover_processes=1)]
)
def test_what_was_left_is_ended(faults: Faults) -> None:
    assert end(faults) == 1


def test_what_does_not_go_when_it_is_killed_is_told() -> None:
    with pytest.raises(StopError, match=r"^cannot end a-1: still there 500ms after being killed$"):
        end(Faults(loses_stops=10**9))
