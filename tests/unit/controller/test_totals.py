"""The sums over workers: what a scrape sees of a counter never goes down."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelgrid.controller.totals import Totals, together
from modelgrid.spec import metrics
from modelgrid.spec.messages import Series

BOUNDS = len(metrics.QUEUE_TIME.bounds)


def retries(count: float, model: str = "m") -> Series:
    return Series(metrics.RETRIES.name, (model,), (count,))


def waits(total: float, **buckets: int) -> Series:
    counts = tuple(buckets.get(f"b{number}", 0) for number in range(BOUNDS + 1))
    return Series(metrics.QUEUE_TIME.name, ("m",), (total, *counts))


def total(totals: Totals, model: str = "m") -> float:
    ((count,),) = [together(totals.parts())[metrics.RETRIES.name][model,]]
    return count


def test_counts_are_added_over_workers() -> None:
    totals = Totals()
    for worker, count in (("w1/1", 3), ("w2/2", 4)):
        totals.join(worker)
        totals.take(worker, [retries(count), waits(1.5, b0=1, b3=2)])
    found = together(totals.parts())
    assert found[metrics.RETRIES.name] == {("m",): (7,)}
    assert found[metrics.QUEUE_TIME.name] == {("m",): waits(3.0, b0=2, b3=4).values}


def test_what_a_worker_says_is_since_it_began_so_a_lost_message_costs_nothing() -> None:
    totals = Totals()
    totals.join("w/1")
    totals.take("w/1", [retries(3)])
    totals.take("w/1", [retries(9)])
    assert total(totals) == 9


def test_a_worker_that_ends_leaves_its_counts_and_takes_its_gauges() -> None:
    totals = Totals()
    totals.join("w/1")
    totals.take("w/1", [retries(3), Series(metrics.GATEWAY_CONNECTIONS.name, ("w",), (5,))])
    totals.leave("w/1")
    assert total(totals) == 3
    assert metrics.GATEWAY_CONNECTIONS.name not in together(totals.parts())
    totals.join("w/2")
    totals.take("w/2", [retries(1)])
    assert total(totals) == 4


def test_a_worker_that_only_lost_its_link_is_not_counted_twice() -> None:
    totals = Totals()
    totals.join("w/1")
    totals.take("w/1", [retries(3)])
    totals.leave("w/1")
    totals.join("w/1")
    assert total(totals) == 3, "also before it has told again"
    totals.take("w/1", [retries(5)])
    assert total(totals) == 5


def test_a_process_with_the_name_and_pid_of_an_earlier_one_is_another() -> None:
    totals = Totals()
    for count in (5, 2):
        totals.join("w/1")
        totals.take("w/1", [retries(count), waits(float(count), b1=count)])
        totals.leave("w/1")
    assert total(totals) == 7
    assert together(totals.parts())[metrics.QUEUE_TIME.name]["m",] == waits(7.0, b1=7).values


def test_a_gauge_may_go_down() -> None:
    totals = Totals()
    totals.join("w/1")
    for count in (5, 2):
        totals.take("w/1", [Series(metrics.GATEWAY_CONNECTIONS.name, ("w",), (count,))])
    assert together(totals.parts())[metrics.GATEWAY_CONNECTIONS.name] == {("w",): (2,)}


def test_the_counts_of_many_ended_workers_are_kept_in_bounded_memory() -> None:
    totals = Totals()
    for number in range(500):
        totals.join(f"w/{number}")
        totals.take(f"w/{number}", [retries(2)])
        totals.leave(f"w/{number}")
    assert total(totals) == 1000
    assert len(totals.parts()) < 100


def test_who_came_back_is_kept_however_many_end() -> None:
    totals = Totals()
    totals.join("old/1")
    totals.leave("old/1")
    totals.join("old/1")
    for number in range(500):
        totals.join(f"w/{number}")
        totals.leave(f"w/{number}")
    totals.take("old/1", [retries(2)])
    assert total(totals) == 2


def test_what_this_version_does_not_know_is_passed_over() -> None:
    totals = Totals()
    totals.join("w/1")
    odd = [
        Series("modelgrid_of_tomorrow_total", (), (1,)),
        Series(metrics.RETRIES.name, ("m", "one more label"), (1,)),
        Series(metrics.RETRIES.name, ("m",), (1, 2)),
        Series(metrics.QUEUE_TIME.name, ("m",), (1, 2, 3)),
    ]
    totals.take("w/1", [*odd, retries(3)])
    assert together(totals.parts()) == {metrics.RETRIES.name: {("m",): (3,)}}


def test_who_never_said_hello_is_not_counted() -> None:
    totals = Totals()
    totals.take("stranger", [retries(3)])
    totals.leave("stranger")
    assert together(totals.parts()) == {}


def test_the_controllers_own_counts_add_up() -> None:
    totals = Totals()
    for seconds in (0.5, 2.5, 5000.0):
        totals.observe(metrics.COLD_START, ("m",), seconds)
        totals.add(metrics.EVENTS, ("m", "start"))
    found = together(totals.parts())
    assert found[metrics.EVENTS.name] == {("m", "start"): (3,)}
    assert found[metrics.COLD_START.name]["m",] == (5003.0, 1, 1, *[0] * (len(metrics.COLD_START.bounds) - 2), 1)


def test_what_another_thread_adds_up_stays_as_it_was() -> None:
    totals = Totals()
    totals.join("w/1")
    totals.take("w/1", [retries(3)])
    parts = totals.parts()
    totals.take("w/1", [retries(4)])
    totals.add(metrics.EVENTS, ("m", "start"))
    assert together(parts) == {metrics.RETRIES.name: {("m",): (3,)}}


# Of each worker of a name: how often it is told, and what happens between: it counts, its link is lost, it ends.
LIVES = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["count", "tell", "lose", "restart"]), st.integers(1, 5)), max_size=60
)


@given(LIVES)
def test_a_counter_never_goes_down_and_ends_exact(lives: list[tuple[int, str, int]]) -> None:
    totals = Totals()
    pids, counts, is_up, ended = [0, 0, 0], [0, 0, 0], [False] * 3, 0
    last = 0.0
    for number, what, amount in lives:
        worker = f"w{number}/{pids[number]}"
        if what == "count":
            counts[number] += amount
        elif what == "tell" or what == "restart":
            if not is_up[number]:
                totals.join(worker)
                is_up[number] = True
            totals.take(worker, [retries(counts[number])])
        if what in ("lose", "restart") and is_up[number]:
            totals.leave(worker)
            is_up[number] = False
        if what == "restart":
            ended, counts[number], pids[number] = ended + counts[number], 0, pids[number] + 1
        now = together(totals.parts()).get(metrics.RETRIES.name, {}).get(("m",), (0.0,))[0]
        assert now >= last
        last = now
    for number in range(3):
        totals.join(f"w{number}/{pids[number]}")
        totals.take(f"w{number}/{pids[number]}", [retries(counts[number])])
    assert total(totals) == ended + sum(counts)
