"""What a worker has in flight, and which replicas it leaves alone: counts, eras, pauses and tables."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from modelgrid.gateway.breaker import State
from modelgrid.gateway.choose import pick
from modelgrid.gateway.ledger import Ledger
from modelgrid.gateway.replicas import Replicas
from modelgrid.gateway.standing import Standing
from modelgrid.spec import Load, Route, RoutingTable, Target


class ClockedLoop(asyncio.SelectorEventLoop):
    """A loop whose time is told."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and do what is due."""
        self.now += seconds
        for _ in range(2):
            self.call_soon(self.stop)
            self.run_forever()


class World:
    """Replicas, and what they told."""

    def __init__(self, loop: ClockedLoop) -> None:
        self.loop = loop
        self.ledger = Ledger.alone()
        self.changes = 0
        self.cleared = 0
        self.number = 0
        self.replicas = Replicas(loop, self._change, self._clear, self.ledger)

    def publish(self, *names: str, slot: int = 1, number: int | None = None) -> tuple[Standing, ...]:
        """A newer table, with these replicas of one model."""
        self.number = self.number + 1 if number is None else number
        targets = tuple(
            Target(replica=name, url="http://h/v1", model="m", slot=slot + n) for n, name in enumerate(names)
        )
        table = RoutingTable(number=self.number, routes=(Route(model="m", targets=targets), Route(model="cold")))
        by_model = self.replicas.follow(table)
        assert by_model["cold"] == ()
        return by_model["m"]

    def lose(self, standing: Standing) -> None:
        """One request goes there, and is lost."""
        era = self.replicas.begin(standing)
        self.replicas.lose(standing, era)
        self.replicas.end(standing, era)

    def ask(self, standing: Standing, status: int = 200) -> None:
        """One request goes there, and is answered."""
        era = self.replicas.begin(standing)
        self.replicas.judge(standing, era, status)
        self.replicas.end(standing, era)

    def _change(self) -> None:
        self.changes += 1

    def _clear(self) -> None:
        self.cleared += 1


def is_out(standing: Standing) -> bool:
    """Asked anew."""
    return standing.breaker.is_out


@pytest.fixture
def world() -> Iterator[World]:
    loop = ClockedLoop()
    made = World(loop)
    yield made
    made.replicas.close()
    loop.close()


def test_what_begins_counts_until_it_ends(world: World) -> None:
    a, b = world.publish("a", "b")
    eras = [world.replicas.begin(one) for one in (a, a, b)]
    assert (a.in_flight, b.in_flight, world.ledger.in_flight(a.slot)) == (2, 1, 2)
    assert world.replicas.load(7) == Load(table=7, in_flight={"a": 2, "b": 1})
    world.replicas.end(a, eras[0])
    world.replicas.end(b, eras[2])
    assert (a.in_flight, world.ledger.in_flight(a.slot), world.ledger.in_flight(b.slot)) == (1, 1, 0)
    assert world.replicas.load(7) == Load(table=7, in_flight={"a": 1})


def test_changes_to_and_from_none_are_told(world: World) -> None:
    (a,) = world.publish("a")
    told = []
    for step in (world.replicas.begin, world.replicas.begin):
        step(a)
        told.append(world.changes)
    for _ in range(2):
        world.replicas.end(a, 0)
        told.append(world.changes)
    assert told == [1, 1, 1, 2]


def test_finished_requests_are_told_once(world: World) -> None:
    for model in ("m", "n", "m"):
        world.replicas.finish(model)
    assert world.replicas.load(1).requests == {"m": 2, "n": 1}
    assert world.replicas.load(1).requests == {}


def test_replicas_are_kept_from_table_to_table(world: World) -> None:
    a, b = world.publish("a", "b")
    world.replicas.begin(b)
    b_again, c = world.publish("b", "c")
    assert b_again is b
    assert b.peers == (b, c)
    assert world.replicas.load(2).in_flight == {"b": 1}
    assert world.publish("a")[0] is not a


def test_a_replica_that_a_table_leaves_out_counts_until_it_has_nothing_in_flight(world: World) -> None:
    (a,) = world.publish("a")
    era = world.replicas.begin(a)
    world.publish("b")
    assert world.replicas.load(2).in_flight == {"a": 1}
    assert world.publish("a", "b")[0] is a
    world.publish("b")
    world.replicas.end(a, era)
    assert world.replicas.load(2).in_flight == {}
    assert world.publish("a")[0] is not a


def test_counts_move_with_the_slot(world: World) -> None:
    (a,) = world.publish("a", slot=3)
    eras = [world.replicas.begin(a) for _ in range(2)]
    world.publish("a", slot=5)
    assert (world.ledger.in_flight(3), world.ledger.in_flight(5)) == (0, 2)
    for era in eras:
        world.replicas.end(a, era)
    assert world.ledger.in_flight(5) == 0


def test_a_lost_replica_is_left_alone_for_a_second_then_probed(world: World) -> None:
    (a,) = world.publish("a")
    world.lose(a)
    assert pick((a,), world.ledger) is None
    world.loop.pass_time(0.9)
    assert (pick((a,), world.ledger), world.cleared) == (None, 0)
    world.loop.pass_time(0.2)
    assert (pick((a,), world.ledger), world.cleared) == (a, 1)
    era = world.replicas.begin(a)
    assert pick((a,), world.ledger) is None
    world.replicas.judge(a, era, 200)
    assert pick((a,), world.ledger) is a
    world.loop.pass_time(0)
    assert world.cleared == 2


def test_the_pause_is_not_longer_for_what_ends_meanwhile(world: World) -> None:
    (a,) = world.publish("a")
    old = world.replicas.begin(a)
    world.lose(a)
    world.loop.pass_time(0.9)
    world.replicas.lose(a, old)
    world.replicas.end(a, old)
    world.loop.pass_time(0.2)
    assert a.breaker.state is State.HALF_OPEN


def test_pauses_double_while_it_is_lost_again(world: World) -> None:
    (a,) = world.publish("a")
    for pause in (1, 2, 4, 5, 5):
        world.lose(a)
        world.loop.pass_time(pause - 0.1)
        assert is_out(a)
        world.loop.pass_time(0.2)
        assert not is_out(a)


def test_a_probe_whose_caller_leaves_makes_room_for_the_next(world: World) -> None:
    (a,) = world.publish("a")
    world.lose(a)
    world.loop.pass_time(1.1)
    era = world.replicas.begin(a)
    world.replicas.end(a, era)
    assert pick((a,), world.ledger) is a
    world.loop.pass_time(0)
    assert world.cleared == 2


def test_a_newer_table_that_still_has_a_lost_replica_is_believed(world: World) -> None:
    (a,) = world.publish("a")
    world.lose(a)
    world.publish("a", number=world.number)  # the same again
    assert is_out(a)
    world.publish("a")
    assert not is_out(a)
    world.loop.pass_time(1.1)
    assert (a.breaker.state, world.cleared) == (State.CLOSED, 1)


def test_a_pause_does_not_end_by_the_timer_of_an_earlier_one(world: World) -> None:
    (a,) = world.publish("a")
    world.lose(a)
    world.loop.pass_time(0.5)
    world.publish("a")
    world.lose(a)  # for 2 s
    world.loop.pass_time(1.0)
    assert is_out(a)
    world.loop.pass_time(1.1)
    assert not is_out(a)


def test_an_outlier_is_left_alone_and_the_others_serve(world: World) -> None:
    a, b, c = world.publish("a", "b", "c")
    for _ in range(5):
        world.ask(a, 500)
        world.ask(b)
    assert a.breaker.is_outlier
    assert pick((a, b, c), world.ledger) is not a
    for _ in range(20):
        world.ask(b, 500)  # one of three is out, that is as many as may be
    assert not b.breaker.is_out


def test_a_table_says_nothing_of_an_outlier(world: World) -> None:
    a, _ = world.publish("a", "b")
    for _ in range(5):
        world.ask(a, 500)
    world.publish("a", "b")
    assert is_out(a)
    world.loop.pass_time(1.1)
    assert not is_out(a)


def test_a_model_that_fails_everywhere_is_served_everywhere(world: World) -> None:
    group = world.publish("a", "b", "c", "d")
    for _ in range(50):
        for one in group:
            world.ask(one, 500)
    assert not any(one.breaker.is_out for one in group)


def test_a_replica_that_is_too_slow_is_an_outlier(world: World) -> None:
    a, _ = world.publish("a", "b")
    for _ in range(5):
        era = world.replicas.begin(a)
        world.replicas.time_out(a, era)
        world.replicas.end(a, era)
    assert a.breaker.is_outlier


def test_an_outlier_serves_where_all_others_are_lost_and_is_back_once_it_answers(world: World) -> None:
    a, b = world.publish("a", "b")
    for _ in range(5):
        world.ask(a, 500)
    world.lose(b)
    assert pick((a, b), world.ledger) is a
    world.ask(a)
    assert a.breaker.state is State.CLOSED


def test_success_is_not_told_where_nothing_is_watched(world: World) -> None:
    (a,) = world.publish("a")
    watched = []
    for status in (200, 500, 200):
        world.ask(a, status)
        watched.append(a.breaker.is_watched)
        world.loop.pass_time(10.1)
    assert watched == [False, True, False]


def test_nothing_is_due_once_closed(world: World) -> None:
    (a,) = world.publish("a")
    world.lose(a)
    world.replicas.close()
    world.loop.pass_time(5)
    assert (a.breaker.is_out, world.cleared) == (True, 0)


def test_a_forgotten_replica_is_not_waited_for(world: World) -> None:
    (a,) = world.publish("a")
    world.lose(a)
    world.publish("b")
    world.loop.pass_time(5)
    assert world.cleared == 0
