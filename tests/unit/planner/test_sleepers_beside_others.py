"""Replicas that sleep: nobody waits for them for ever, and they are never counted for less than they hold."""

from __future__ import annotations

from dataclasses import replace

from modelgrid.planner import Facts, observe, plan
from modelgrid.spec import (
    MAIN,
    Asleep,
    Device,
    Drain,
    Fleet,
    Machine,
    Model,
    Refuse,
    Replica,
    ReplicaId,
    Running,
    Seen,
    Share,
    Start,
    State,
    Stop,
    Wake,
)
from unit.planner.fleets import NOW, model, replica

SLEEP = Asleep(share=0.25, main_bytes=5, wake_s=1.0)
BOX = Machine((Device("gpu0", 10, 10, 0), Device(MAIN, 20, 20)), accelerator="cuda")


def _sleeper(waiting: int, waited_s: float) -> Model:
    return replace(model("sleeper", 8, waiting=waiting, waited_s=waited_s), sleep=SLEEP)


def _asleep() -> Replica:
    known = replica("sleeper-1", State.ASLEEP)
    return replace(known, shares=(Share("gpu0", 8),), asleep_shares=(Share("gpu0", 2), Share(MAIN, 5)))


def test_one_that_is_asleep_makes_room_for_who_has_waited_longer_though_others_wait_for_it() -> None:
    first = model("first", 10, waiting=1, waited_s=60)
    fleet = Fleet(NOW, (BOX,), (first, _sleeper(1, 30)), (_asleep(),))
    (action,) = plan(fleet)
    assert isinstance(action, Stop)
    assert action.replica == "sleeper-1"


def test_one_that_is_to_wake_makes_no_room_for_who_has_waited_less() -> None:
    second = model("second", 10, waiting=1, waited_s=30)
    fleet = Fleet(NOW, (BOX,), (second, _sleeper(1, 60)), (_asleep(),))
    (action,) = plan(fleet)
    assert isinstance(action, Wake)


def test_what_is_adopted_counts_as_if_it_were_awake_and_asleep() -> None:
    fleet = Fleet(NOW, (BOX,), (_sleeper(0, 0),))
    running = Running("http://127.0.0.1:1/v1", "http://127.0.0.1:1")
    seen = Seen(ReplicaId("sleeper-1"), fleet.models[0].spec.name, fleet.models[0].spec.revision, running)
    facts = Facts(NOW, seen={seen.replica: replace(seen, devices=("gpu0",))})
    (found,) = observe(fleet, facts).replicas
    assert found.counted == (Share("gpu0", 8), Share(MAIN, 5))


def _gpus(count: int) -> Machine:
    devices = (Device(f"gpu{index}", 10, 10, index) for index in range(count))
    return Machine((Device(MAIN, 20, 20), *devices), accelerator="cuda")


def _on(id: str, gpu: str, *, in_flight: int = 0, is_asleep: bool = False) -> Replica:
    known = replace(replica(id, in_flight=in_flight, unused_s=500.0), shares=(Share(gpu, 8),))
    return replace(known, state=State.ASLEEP, asleep_shares=(Share(gpu, 2),)) if is_asleep else known


def test_one_that_can_never_be_woken_where_it_is_makes_room_for_another_one_elsewhere() -> None:
    models = (_sleeper(1, 60), model("kept", 8, min=1), model("idle", 8))
    replicas = (_on("sleeper-1", "gpu0", is_asleep=True), _on("kept-1", "gpu0"), _on("idle-1", "gpu1"))
    (action,) = plan(Fleet(NOW, (_gpus(2),), models, replicas))
    assert isinstance(action, Drain)
    assert action.replica == "idle-1"


def test_of_two_that_sleep_the_one_wakes_that_finds_room() -> None:
    replicas = (
        _on("sleeper-1", "gpu0", is_asleep=True),
        _on("kept-1", "gpu0"),
        _on("sleeper-2", "gpu1", is_asleep=True),
    )
    (action,) = plan(Fleet(NOW, (_gpus(2),), (_sleeper(1, 0), model("kept", 8, min=1)), replicas))
    assert isinstance(action, Wake)
    assert action.replica == "sleeper-2"


def test_one_that_finds_no_room_to_wake_keeps_no_other_from_helping_those_that_serve() -> None:
    busy = replace(model("sleeper", 8, max=3, target=4), sleep=SLEEP)
    replicas = (
        _on("sleeper-1", "gpu0", is_asleep=True),
        _on("kept-1", "gpu0"),
        _on("sleeper-2", "gpu1", in_flight=6),
    )
    (action,) = plan(Fleet(NOW, (_gpus(3),), (busy, model("kept", 8, min=1)), replicas))
    assert isinstance(action, Start)
    assert action.shares == (Share("gpu2", 8),)


def test_one_that_sleeps_is_no_replacement_for_one_that_is_kept() -> None:
    kept = replace(model("sleeper", 8, min=1, max=2, idle_s=100.0), sleep=SLEEP)
    awake = replace(_on("sleeper-1", "gpu0"), last_used=NOW - 900.0)
    actions = plan(Fleet(NOW, (_gpus(2),), (kept,), (awake, _on("sleeper-2", "gpu1", is_asleep=True))))
    assert [action.replica for action in actions if not isinstance(action, Refuse)] == ["sleeper-2"]
    second = replace(awake, id=ReplicaId("sleeper-3"), shares=(Share("gpu2", 8),))
    both = Fleet(NOW, (_gpus(3),), (kept,), (awake, second, _on("sleeper-2", "gpu1", is_asleep=True)))
    assert [action.replica for action in plan(both) if not isinstance(action, Refuse)] == ["sleeper-1", "sleeper-2"]
