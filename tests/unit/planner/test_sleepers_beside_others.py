"""Replicas that sleep: nobody waits for them for ever, and they are never counted for less than they hold."""

from __future__ import annotations

from dataclasses import replace

from modelgrid.planner import Facts, observe, plan
from modelgrid.spec import (
    MAIN,
    Asleep,
    Device,
    Fleet,
    Machine,
    Model,
    Replica,
    ReplicaId,
    Running,
    Seen,
    Share,
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
