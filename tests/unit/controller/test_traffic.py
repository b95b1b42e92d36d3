"""What workers say of their traffic; what one of them has not said is unknown."""

from __future__ import annotations

from modelgrid.controller.traffic import Traffic
from modelgrid.spec import Demand, Load


def load(table: int = 5, **in_flight: int) -> Load:
    return Load(table=table, in_flight=in_flight)


def two_workers() -> Traffic:
    traffic = Traffic(2, 100.0)
    for worker in ("w1", "w2"):
        traffic.join(worker, 100.0)
    return traffic


def test_load_is_the_sum_of_all_workers() -> None:
    traffic = two_workers()
    traffic.load("w1", load(a=2), 100.0)
    traffic.load("w2", load(a=1, b=4), 100.0)
    assert [traffic.in_flight(name, 5, 101.0) for name in "abc"] == [3, 4, 0]


def test_a_worker_that_has_not_spoken_makes_it_unknown() -> None:
    traffic = two_workers()
    traffic.load("w1", load(a=2), 100.0)
    assert traffic.in_flight("a", 5, 101.0) is None


def test_a_worker_that_acts_on_an_older_table_makes_it_unknown() -> None:
    traffic = two_workers()
    traffic.load("w1", load(6), 100.0)
    traffic.load("w2", load(5), 100.0)
    assert traffic.in_flight("a", 6, 101.0) is None
    assert traffic.in_flight("a", 5, 101.0) == 0


def test_a_worker_that_fell_silent_makes_it_unknown() -> None:
    traffic = two_workers()
    traffic.load("w1", load(), 100.0)
    traffic.load("w2", load(), 104.0)
    assert traffic.in_flight("a", 5, 105.0) == 0
    assert traffic.in_flight("a", 5, 105.1) is None
    traffic.demand("w1", Demand(model="m", waiting=1, oldest_s=0.0), 106.0)
    assert traffic.in_flight("a", 5, 106.0) == 0, "any message shows that it is there"


def test_a_worker_that_is_missing_makes_it_unknown_for_a_while() -> None:
    traffic = two_workers()
    traffic.load("w1", load(a=1), 100.0)
    assert traffic.in_flight("a", 5, 100.0) is None
    traffic.leave("w2")
    traffic.load("w1", load(a=1), 109.0)
    assert traffic.in_flight("a", 5, 109.9) is None
    assert traffic.in_flight("a", 5, 110.0) == 1
    traffic.join("w2", 111.0)
    assert traffic.in_flight("a", 5, 111.0) is None


def test_nobody_connected_is_unknown_and_not_idle_at_first() -> None:
    assert Traffic(1, 100.0).in_flight("a", 5, 109.9) is None
    assert Traffic(1, 100.0).in_flight("a", 5, 110.0) == 0


def test_a_connection_that_is_made_anew_begins_with_nothing_said() -> None:
    traffic = two_workers()
    for worker in ("w1", "w2"):
        traffic.load(worker, load(), 100.0)
    traffic.demand("w1", Demand(model="m", waiting=3, oldest_s=0.0), 100.0)
    traffic.join("w1", 101.0)
    assert traffic.in_flight("a", 5, 101.0) is None
    assert traffic.waiting("m") == (0, None)


def test_demand_is_the_sum_and_the_oldest() -> None:
    traffic = two_workers()
    assert traffic.waiting("m") == (0, None)
    assert traffic.demand("w1", Demand(model="m", waiting=2, oldest_s=3.0), 100.0)
    assert not traffic.demand("w2", Demand(model="m", waiting=1, oldest_s=7.0), 101.0), "somebody waited already"
    assert traffic.waiting("m") == (3, 94.0)
    assert not traffic.demand("w2", Demand(model="m", waiting=0, oldest_s=0.0), 102.0)
    assert traffic.waiting("m") == (2, 97.0)
    traffic.leave("w1")
    assert traffic.waiting("m") == (0, None)


def test_what_was_served_is_use() -> None:
    traffic = two_workers()
    traffic.load("w1", Load(table=5, in_flight={}, requests={"m": 3}), 104.0)
    assert traffic.last_used == {"m": 104.0}


def test_who_never_said_hello_is_not_heard() -> None:
    traffic = Traffic(1, 100.0)
    traffic.load("stranger", Load(table=5, in_flight={}, requests={"m": 3}), 104.0)
    assert not traffic.demand("stranger", Demand(model="m", waiting=2, oldest_s=3.0), 100.0)
    assert (traffic.connected, traffic.last_used, traffic.waiting("m")) == (0, {}, (0, None))


def test_after_a_clock_was_put_back_nothing_was_used_later_than_now_and_no_longer_after() -> None:
    traffic = two_workers()
    traffic.load("w1", Load(table=5, in_flight={}, requests={"m": 1}), 4_000.0)
    assert traffic.used("m", 4_010.0) == 4_000.0
    assert [traffic.used("m", now) for now in (400.0, 430.0)] == [400.0, 400.0]
    assert traffic.used("never", 400.0) == 0.0
