"""What replicas took is remembered over their end and the controller's, and where they are is known without a store."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from modelgrid.controller import Launches
from modelgrid.controller.needs import MARGIN
from modelgrid.spec import MAIN, Device, Machine, ModelName, Replica, ReplicaId, Share, State, cpu_machine
from modelgrid.store import MemoryStore
from unit.controller.stage import Play, Stage, spec, until

GIB = 1 << 30
GPUS = Machine(
    (Device(MAIN, 64 * GIB, 80 * GIB), *(Device(f"gpu{n}", 70 * GIB, 80 * GIB, n) for n in range(2))),
    accelerator="cuda",
)


def test_the_next_start_is_planned_with_what_the_last_one_held(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine = await stage.engine()
        stage.machine = cpu_machine(4 * GIB)
        stage.configure(replace(spec("a", engine, idle_s=30.0), memory_bytes=None))
        await stage.begin()
        worker = await stage.worker()
        await until(lambda: stage.controller.status().models)
        await until(lambda: stage.model().memory_bytes == GIB)  # the estimate, which the fake holds to the byte
        worker.demand("a", 1)
        await stage.becomes(a_1="ready")
        await stage.routed(worker, "a")
        worker.demand("a", 0)
        worker.in_flight = {"a-1": 1}
        worker.load()
        await stage.passes(1.0)
        await until(lambda: [run.memory_bytes for run in stage.store.runs()] == [GIB])
        assert stage.model().memory_bytes == GIB  # while it runs, it is what was planned for it
        worker.in_flight = {}
        worker.load()
        await until(lambda: stage.model().in_flight == 0)
        stage.jump(31.0)
        await stage.becomes()
        await until(lambda: stage.model().memory_bytes == math.ceil(GIB * MARGIN))
        await stage.kill()
        await stage.begin()
        await until(lambda: stage.controller.status().models)  # the new one has looked
        await until(lambda: stage.model().memory_bytes == math.ceil(GIB * MARGIN))

    play(scene)


def test_replicas_are_adopted_on_their_gpus_without_a_store(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engines = [await stage.engine(), await stage.engine()]
        stage.machine = GPUS
        stage.configure(
            *(replace(spec(name, at, min=1), memory_bytes=40 * GIB) for name, at in zip("ab", engines, strict=True))
        )
        await stage.begin()
        await stage.becomes(a_1="ready", b_2="ready")
        before = {replica.id: replica.shares for replica in stage.store.saved().replicas}
        assert sorted(before.values(), key=str) == [(Share("gpu0", 40 * GIB),), (Share("gpu1", 40 * GIB),)]
        await stage.kill()
        stage.store = MemoryStore()
        await stage.begin()
        await stage.becomes(a_1="ready", b_2="ready")
        assert {replica.id: replica.shares for replica in stage.store.saved().replicas} == before

    play(scene)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (GPUS, (1,)),
        (cpu_machine(8 * GIB), None),
        (replace(cpu_machine(8 * GIB), hides_gpus=True), ()),
    ],
    ids=["its own", "nothing is said", "none"],
)
def test_a_launch_says_which_gpus_may_be_seen(
    tmp_path: Path, machine: Machine, expected: tuple[int, ...] | None
) -> None:
    share = Share("gpu1" if machine.gpus else MAIN, GIB)
    replica = Replica(ReplicaId("a-1"), ModelName("a"), "r", State.STARTING, (share,), 0.0, 0.0, "")
    assert Launches(machine, tmp_path, b"secret").launch(spec("a"), replica).gpus == expected


def test_who_lives_in_main_memory_sees_no_gpus(tmp_path: Path) -> None:
    replica = Replica(ReplicaId("a-1"), ModelName("a"), "r", State.STARTING, (Share(MAIN, 1),), 0.0, 0.0, "")
    assert Launches(GPUS, tmp_path, b"secret").launch(spec("a"), replica).gpus == ()
