"""Room on GPUs: for what takes several of them, or main memory beside them."""

from __future__ import annotations

from dataclasses import replace

from modelgrid.planner import plan
from modelgrid.spec import (
    MAIN,
    Action,
    Asleep,
    Device,
    Drain,
    Fleet,
    Machine,
    Model,
    Need,
    Rate,
    Replica,
    Share,
    Start,
    State,
)
from unit.planner.fleets import NOW, model, replica

SLEEP = Asleep(share=0.1, main_bytes=10, wake_s=2.0)


def box(gpus: int) -> Machine:
    """A machine with 64 of main memory and GPUs of 80."""
    devices = (Device(f"gpu{index}", 80, 80, index) for index in range(gpus))
    return Machine((Device(MAIN, 64, 64), *devices), accelerator="cuda")


def needing(need: Need, given: Model) -> Model:
    return replace(given, need=need)


def on(id: str, *, in_flight: int = 0, unused_s: float = 0.0, **memory: int) -> Replica:
    shares = tuple(Share(device, memory_bytes) for device, memory_bytes in memory.items())
    return replace(replica(id, in_flight=in_flight, unused_s=unused_s), shares=shares)


def drains(fleet: Fleet) -> list[tuple[str, str]]:
    return sorted((action.replica, action.then) for action in plan(fleet) if isinstance(action, Drain))


def after(fleet: Fleet, actions: list[Action]) -> Fleet:
    """Once all that was drained has gone."""
    gone = {action.replica for action in actions if isinstance(action, Drain)}
    return replace(fleet, replicas=tuple(one for one in fleet.replicas if one.id not in gone))


def test_room_is_made_in_main_memory_too_for_what_needs_it_beside_a_gpu() -> None:
    asking = needing(Need(70, 1, 16), model("asking", waiting=1, waited_s=100))
    in_main, on_gpu = needing(Need(60, 0), model("main")), needing(Need(70, 1), model("gpu"))
    before = Fleet(NOW, (box(1),), (asking, in_main, on_gpu), (on("main-1", cpu=60), on("gpu-1", gpu0=70)))
    assert drains(before) == [("gpu-1", "stop"), ("main-1", "stop")]
    (start,) = plan(after(before, plan(before)))
    assert isinstance(start, Start)


def test_no_gpu_is_emptied_for_what_finds_no_main_memory_beside_it() -> None:
    asking = needing(Need(70, 1, 16), model("asking", waiting=1, waited_s=100))
    kept, on_gpu = needing(Need(60, 0), model("main", min=1)), needing(Need(70, 1), model("gpu"))
    fleet = Fleet(NOW, (box(1),), (asking, kept, on_gpu), (on("main-1", cpu=60), on("gpu-1", gpu0=70)))
    assert drains(fleet) == []


def test_a_gpu_that_is_free_is_taken_where_only_main_memory_has_to_be_made_free() -> None:
    asking = needing(Need(70, 1, 16), model("asking", waiting=1, waited_s=100))
    in_main, on_gpu = needing(Need(60, 0), model("main")), needing(Need(70, 1), model("gpu"))
    fleet = Fleet(NOW, (box(2),), (asking, in_main, on_gpu), (on("main-1", cpu=60), on("gpu-1", gpu0=70)))
    assert drains(fleet) == [("main-1", "stop")]


def test_one_that_could_sleep_is_stopped_for_what_needs_its_main_memory() -> None:
    asking = needing(Need(60, 0), model("asking", waiting=1, waited_s=100))
    sleeper = replace(needing(Need(70, 1, 20), model("sleeper")), sleep=SLEEP)
    assert drains(Fleet(NOW, (box(1),), (asking, sleeper), (on("sleeper-1", gpu0=70, cpu=20),))) == [
        ("sleeper-1", "stop")
    ]


def test_one_that_could_sleep_on_its_gpu_is_stopped_where_its_main_memory_is_needed_as_well() -> None:
    sleeper = replace(needing(Need(70, 1, 20), model("sleeper")), sleep=SLEEP)
    for main_bytes, then in ((16, "sleep"), (50, "stop")):
        asking = needing(Need(70, 1, main_bytes), model("asking", waiting=1, waited_s=100))
        fleet = Fleet(NOW, (box(1),), (asking, sleeper), (on("sleeper-1", gpu0=70, cpu=20),))
        assert drains(fleet) == [("sleeper-1", then)]


def test_of_one_model_s_replicas_no_more_go_for_several_gpus_than_it_can_spare() -> None:
    spare = needing(Need(70, 1), model("spare", min=1, max=2))
    missed = replace(needing(Need(70, 1), model("missed", max=2)), rate=Rate(1.0, NOW))
    asking = needing(Need(140, 2), model("asking", waiting=1, waited_s=1000))
    replicas = (
        *(on("spare-1", gpu0=70, unused_s=100), on("spare-2", gpu1=70, unused_s=100)),
        *(on("missed-1", gpu2=70, unused_s=1), on("missed-2", gpu3=70, unused_s=1)),
    )
    going = drains(Fleet(NOW, (box(4),), (spare, missed, asking), replicas))
    assert [id.rpartition("-")[0] for id, _ in going] == ["missed", "spare"]


def test_what_a_lower_priority_may_not_have_yet_a_higher_one_may() -> None:
    low = needing(Need(70, 1), model("low", waiting=1, waited_s=200))
    high = needing(Need(70, 1), model("high", waiting=1, waited_s=20))
    high = replace(high, spec=replace(high.spec, priority=1))
    new = replace(on("new-1", gpu0=70, in_flight=3), ready_at=NOW - 20, created=NOW - 70)  # it has not had its turn
    fetched = replace(replica("fetched-1", State.STARTING, is_spawned=False), shares=(Share(MAIN, 4),))
    models = (low, high, needing(Need(70, 1), model("new")), needing(Need(4, 0), model("fetched", waiting=1)))
    assert drains(Fleet(NOW, (box(1),), models, (new, fetched))) == [("new-1", "stop")]
