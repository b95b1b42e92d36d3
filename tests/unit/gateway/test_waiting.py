"""Lines: in order of rank, each place once, whatever comes between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelgrid.gateway.waiting import Place, Waiting
from modelgrid.spec import Demand


class Nobody:
    """A request that is never woken here."""

    def proceed(self) -> None:
        raise AssertionError

    def reconsider(self) -> None:
        raise AssertionError

    def wait_out(self) -> None:
        raise AssertionError

    def give_way(self) -> None:
        raise AssertionError


def line(*ranks: float) -> tuple[Waiting, list[Place]]:
    waiting = Waiting(lambda demand: None)
    return waiting, [waiting.join("m", Nobody(), rank, since=0.0) for rank in ranks]


def test_the_lowest_rank_is_first_and_among_equals_who_came_first() -> None:
    waiting, places = line(3.0, 1.0, 2.0, 1.0)
    assert waiting.lines() == [[places[1], places[3], places[2], places[0]]]


def test_the_last_is_the_one_that_everybody_is_ahead_of() -> None:
    waiting, places = line(2.0, 3.0, 1.0, 3.0)
    assert waiting.last("m") is places[3]
    assert waiting.last("n") is None


def test_demand_tells_the_longest_wait_whoever_is_first() -> None:
    told: list[Demand] = []
    waiting = Waiting(told.append)
    first = waiting.join("m", Nobody(), rank=9.0, since=10.0)
    second = waiting.join("m", Nobody(), rank=1.0, since=30.0)
    assert waiting.demands(now=40.0) == [Demand(model="m", waiting=2, oldest_s=30.0)]
    waiting.leave(first)
    assert waiting.demands(now=40.0) == [Demand(model="m", waiting=1, oldest_s=10.0)]
    waiting.leave(second)
    assert [demand.waiting for demand in told] == [1, 0]
    assert waiting.demands(now=40.0) == []


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans())))
def test_who_leaves_takes_nobody_elses_place(comes: list[tuple[int, bool]]) -> None:
    waiting, places = line(*(float(rank) for rank, _ in comes))
    for place, (_, leaves) in zip(places, comes, strict=True):
        if leaves:
            waiting.leave(place)
    left = [place for place, (_, leaves) in zip(places, comes, strict=True) if not leaves]
    assert waiting.lines() == ([sorted(left, key=lambda place: place.order)] if left else [])
    assert [place.is_taken for place in places] == [not leaves for _, leaves in comes]
    assert waiting.count("m") == len(left)
