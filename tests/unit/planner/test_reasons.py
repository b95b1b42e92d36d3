"""The facts behind an action are those that it was decided on."""

from __future__ import annotations

import pytest

from modelgrid.planner import Facts, Reasons, observe, plan, wind_down, with_reasons
from modelgrid.spec import Action, Event, Failures, Fleet, Model, Replica, ReplicaId, State, Unknown, Wish
from modelgrid.spec.reason import Cause, Reason
from unit.planner.fleets import MACHINE_BYTES, NOW, fleet, model, replica


def pictured(*known: Model | Replica) -> Fleet:
    return fleet([one for one in known if isinstance(one, Model)], [one for one in known if isinstance(one, Replica)])


def reasons(actions: list[Action], picture: Fleet) -> list[Reason]:
    known = Reasons(picture)
    return [known.of(action) for action in actions]


def only(picture: Fleet, kind: str) -> Reason:
    """The reason of the only action of this kind that is planned."""
    actions = plan(picture)
    found = [reason for action, reason in zip(actions, reasons(actions, picture), strict=True) if _is(action, kind)]
    assert len(found) == 1, actions
    return found[0]


def _is(action: Action, kind: str) -> bool:
    return type(action).__name__ == kind


def test_a_start_knows_who_waited_where_it_goes_and_what_was_free() -> None:
    picture = pictured(model("a", waiting=3, waited_s=2.5), model("b"), replica("b-1"))
    assert only(picture, "Start") == Reason(
        cause=Cause.REQUEST,
        waiting=3,
        waited_s=2.5,
        machine="local",
        devices=("cpu",),
        memory_bytes=4,
        free_bytes=MACHINE_BYTES - 4,
        replicas=0,
        in_flight=0,
        target=4,
    )


def test_of_two_starts_in_one_lap_the_second_finds_what_the_first_left() -> None:
    picture = pictured(model("a", min=2, max=2))
    actions = plan(picture)
    assert [reason.free_bytes for reason in reasons(actions, picture)] == [10, 6]


@pytest.mark.parametrize(
    ("asked", "cause"),
    [
        (model("a", min=1), Cause.KEPT),
        (model("a", wish=Wish.LOADED), Cause.BY_HAND),
        (model("a", waiting=1, failures=Failures(2, NOW - 50.0, "broke")), Cause.REQUEST),
    ],
)
def test_a_start_has_its_cause(asked: Model, cause: Cause) -> None:
    assert only(pictured(asked), "Start").cause is cause


def test_one_more_replica_is_started_with_the_numbers_that_ask_for_it() -> None:
    picture = pictured(model("a", waiting=1, max=2, target=2), replica("a-1", in_flight=5))
    reason = only(picture, "Start")
    assert (reason.cause, reason.in_flight, reason.waiting, reason.replicas, reason.target) == (Cause.LOAD, 5, 1, 1, 2)


def test_room_is_made_for_somebody_who_is_named() -> None:
    picture = pictured(model("a", 8, waiting=2, waited_s=6.0), model("b"), replica("b-1", unused_s=30.0))
    reason = only(picture, "Drain")
    assert (reason.cause, reason.other, reason.waiting, reason.waited_s) == (Cause.ROOM, "a", 2, 6.0)
    assert (reason.idle_s, reason.in_flight, reason.memory_bytes) == (30.0, 0, 4)


def test_an_idle_one_goes_with_how_long_it_was_idle_and_how_long_it_may_be() -> None:
    reason = only(pictured(model("a", idle_s=60.0), replica("a-1", unused_s=70.0, in_state_s=100.0)), "Drain")
    assert (reason.cause, reason.idle_s, reason.limit_s) == (Cause.IDLE, 70.0, 60.0)


@pytest.mark.parametrize(
    ("picture", "cause"),
    [
        (pictured(model("a", wish=Wish.UNLOADED), replica("a-1")), Cause.BY_HAND),
        (pictured(model("b"), replica("a-1")), Cause.REMOVED),
        (pictured(model("a", args=("new",)), replica("a-1")), Cause.CHANGED),
    ],
)
def test_an_end_has_its_cause(picture: Fleet, cause: Cause) -> None:
    assert only(picture, "Drain").cause is cause


def test_when_modelgrid_stops_that_is_the_cause() -> None:
    picture = pictured(model("a"), replica("a-1"))
    (reason,) = reasons(wind_down(picture), picture)
    assert reason.cause is Cause.SHUTDOWN


@pytest.mark.parametrize(
    ("picture", "cause"),
    [
        (pictured(model("a", 99, waiting=1)), Cause.TOO_LARGE),
        (pictured(model("a", Unknown("no weights"), waiting=1)), Cause.UNKNOWN_SIZE),
        (pictured(model("a", 8, waiting=1), model("b", min=1), replica("b-1")), Cause.ALL_KEPT),
        (pictured(model("a", waiting=1, failures=Failures(3, NOW, "broke"))), Cause.FAILING),
    ],
)
def test_a_refusal_has_its_cause(picture: Fleet, cause: Cause) -> None:
    assert only(picture, "Refuse").cause is cause


def test_what_happened_gets_its_facts_too() -> None:
    before = (replica("a-1", State.STARTING), replica("a-2", State.STOPPING, stops=1), replica("a-3"))
    picture = pictured(model("a", max=3), *before)
    lap = observe(picture, Facts(NOW))
    phases = {ReplicaId("a-1"): {"load": 2.0}}
    told = with_reasons(lap, before, phases, {ReplicaId("a-3"): ("it broke",)})
    by_replica = {event.replica: event for event in told}
    assert by_replica["a-2"].reason == Reason(memory_bytes=4)
    failed = by_replica["a-3"].reason
    assert failed is not None
    assert (failed.failures, failed.log) == (lap.failures[picture.models[0].spec.name].count, ("it broke",))
    assert failed.retry_at is not None
    assert failed.retry_at > NOW
    ready = with_reasons(type(lap)(before, {}, (Event(NOW, "a", "a-1", "ready", ""),)), before, phases, {})
    assert ready[0].reason == Reason(phases={"load": 2.0})
