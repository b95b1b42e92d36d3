"""How many replicas there should be."""

from __future__ import annotations

import pytest

from modelgrid.planner import plan
from modelgrid.planner.scale import floor, scale
from modelgrid.spec import (
    ModelName,
    ReplicaId,
    Start,
    State,
    Wish,
    shares_of,
)
from unit.planner.fleets import NOW, fleet, model, replica


@pytest.mark.parametrize(
    ("min", "wish", "expected"),
    [
        (0, None, 0),
        (2, None, 2),
        (0, Wish.LOADED, 1),
        (2, Wish.LOADED, 2),
        (0, Wish.UNLOADED, 0),
        (2, Wish.UNLOADED, 0),
    ],
)
def test_the_floor(min: int, wish: Wish | None, expected: int) -> None:
    assert floor(model(min=min, max=3, wish=wish)) == expected


@pytest.mark.parametrize(
    ("waiting", "in_flight", "expected"),
    [(0, 0, 1), (1, 0, 1), (4, 0, 1), (5, 0, 2), (0, 4, 1), (1, 4, 2), (4, 5, 3), (99, 99, 3), (0, None, 1)],
)
def test_replicas_follow_the_load_up_to_the_most(waiting: int, in_flight: int | None, expected: int) -> None:
    assert scale(model(max=3, target=4, waiting=waiting), [replica(in_flight=in_flight)], NOW).count == expected


def test_by_hand_a_model_is_loaded_also_where_its_most_is_none() -> None:
    assert scale(model(max=0, wish=Wish.LOADED), [], NOW).count == 1


def test_all_that_are_missing_start_at_once_and_say_why() -> None:
    name = ModelName("a")
    assert plan(fleet([model(memory_bytes=1, max=3, waiting=9)])) == [
        Start(ReplicaId("a-7"), name, shares_of(1), "requests waited for it"),
        Start(ReplicaId("a-8"), name, shares_of(1), "its replicas were busy and requests waited"),
        Start(ReplicaId("a-9"), name, shares_of(1), "its replicas were busy and requests waited"),
    ]
    assert plan(fleet([model(memory_bytes=1, max=2)], [replica(memory_bytes=1, in_flight=5)])) == [
        Start(ReplicaId("a-7"), name, shares_of(1), "its replicas were busy")
    ]
    assert plan(fleet([model(memory_bytes=1, min=2, max=2)])) == [
        Start(ReplicaId("a-7"), name, shares_of(1), "kept loaded (scaling.min)"),
        Start(ReplicaId("a-8"), name, shares_of(1), "kept loaded (scaling.min)"),
    ]
    assert plan(fleet([model(memory_bytes=1, min=1, max=2)], [replica(memory_bytes=1, in_flight=5)])) == [
        Start(ReplicaId("a-7"), name, shares_of(1), "its replicas were busy")
    ]
    assert plan(fleet([model(memory_bytes=1, wish=Wish.LOADED)])) == [
        Start(ReplicaId("a-7"), name, shares_of(1), "loaded by hand")
    ]


def test_more_start_only_as_far_as_they_fit() -> None:
    actions = plan(fleet([model(memory_bytes=4, max=9, target=1, waiting=9)]))
    assert [action.replica for action in actions if isinstance(action, Start)] == ["a-7", "a-8"]


def test_those_of_an_older_revision_do_not_count() -> None:
    old = replica(memory_bytes=4, args=("old",), state=State.READY, in_flight=3)
    actions = plan(fleet([model(memory_bytes=4, waiting=1)], [old]))
    assert [action.replica for action in actions if isinstance(action, Start)] == ["a-7"]


def test_an_unloaded_model_is_not_started_by_its_floor() -> None:
    assert plan(fleet([model(min=1, wish=Wish.UNLOADED)])) == []
