"""The world: time, memory and callers, whatever a way does."""

from __future__ import annotations

import pytest

from modelgrid.simulation.engine import Phase
from modelgrid.simulation.speed import Speed
from modelgrid.simulation.world import OverCommitted, World
from modelgrid.spec import ModelName, ReplicaId
from modelgrid.spec.machine import LOCAL, MAIN, Device, Machine, Share
from unit.simulation.worlds import GB, SPEED, Told, gpu_machine, model, request

A = ReplicaId("a-1")


def test_memory_is_free_only_when_the_engine_is_gone() -> None:
    seen = {}

    def look(world: World) -> None:
        seen[world.now] = world.free_bytes(LOCAL, "gpu0")

    way = Told(orders={20.0: lambda world: world.stop(A), 20.5: look, 21.5: look})
    World([gpu_machine(24)], [model("a")], way).run([request(12.0), request(30.0, patience_s=1.0)])
    assert seen == {20.5: 4 * GB, 21.5: 24 * GB}


def test_more_memory_than_there_is_cannot_be_ordered() -> None:
    world = World([gpu_machine(24)], [model("a"), model("b")], Told(loads=(("a", 20), ("b", 20))))
    with pytest.raises(OverCommitted, match="gpu0 of local"):
        world.run([request(1.0)])


def test_a_stop_twice_is_harmless_and_ends_what_was_in_flight() -> None:
    way = Told(orders={12.0: lambda world: world.stop(A), 12.1: lambda world: world.stop(A)})
    history = World([gpu_machine(24)], [model("a")], way).run([request(11.0, output=1001)])
    assert history.calls[0].refused
    assert [span.phase for span in history.spans] == [Phase.LOADING, Phase.READY, Phase.ENDING]


def test_a_caller_leaves_when_its_patience_ends() -> None:
    way = Told()
    history = World([gpu_machine(24)], [model("a")], way).run([request(1.0, patience_s=3.0)])
    assert history.calls[0].left == 4.0
    assert history.calls[0].waited_s == 3.0
    assert way.left_calls == history.calls


def test_a_model_that_sleeps_gives_its_gpu_back() -> None:
    machine = Machine((*gpu_machine(24).devices, Device(MAIN, 64 * GB, 64 * GB)), LOCAL, "cuda")
    speed = Speed(10.0, 1000.0, 0.1, 0.1, sleep_s=1.0, wake_s=2.0)
    keeps = (Share("gpu0", 2 * GB), Share(MAIN, 16 * GB))
    seen = []

    def look(world: World) -> None:
        seen.append((world.free_bytes(LOCAL, "gpu0"), world.free_bytes(LOCAL, MAIN)))

    orders = {20.0: lambda w: w.sleep(A, keeps), 22.0: look, 23.0: lambda w: w.wake(A), 24.0: look}
    history = World([machine], [model("a", speed=speed)], Told(orders=orders)).run([request(21.0)])
    assert seen == [(22 * GB, 48 * GB), (4 * GB, 64 * GB)]
    assert history.calls[0].sent == 25.0
    assert history.wakes == 1


def test_who_is_stopped_in_its_sleep_gives_back_what_it_kept() -> None:
    machine = Machine((*gpu_machine(24).devices, Device(MAIN, 64 * GB, 64 * GB)), LOCAL, "cuda")
    keeps = (Share("gpu0", 2 * GB), Share(MAIN, 16 * GB))
    seen = []

    def look(world: World) -> None:
        seen.append((world.free_bytes(LOCAL, "gpu0"), world.free_bytes(LOCAL, MAIN)))

    orders = {20.0: lambda w: w.sleep(A, keeps), 25.0: lambda w: w.stop(A), 25.5: look, 27.0: look}
    World([machine], [model("a")], Told(orders=orders)).run([request(15.0), request(26.0, patience_s=5.0)])
    assert seen == [(22 * GB, 48 * GB), (24 * GB, 64 * GB)]


def test_the_same_trace_gives_the_same_history() -> None:
    trace = [request(at / 3, output=at % 7 + 1) for at in range(200)]
    runs = [World([gpu_machine(24)], [model("a")], Told()).run(trace) for _ in range(2)]
    assert [call.done for call in runs[0].calls] == [call.done for call in runs[1].calls]
    assert len(runs[0].calls) == 200


def test_shares_of_one_engine_may_lie_on_several_gpus() -> None:
    seen = []

    def two(world: World) -> None:
        world.start(ReplicaId("a-2"), ModelName("a"), LOCAL, (Share("gpu0", 4 * GB), Share("gpu1", 4 * GB)))
        seen.append((world.free_bytes(LOCAL, "gpu0"), world.free_bytes(LOCAL, "gpu1")))

    World([gpu_machine(24, 24)], [model("a", speed=SPEED)], Told(orders={1.0: two})).run([request(2.0)])
    assert seen == [(0, 20 * GB)]
