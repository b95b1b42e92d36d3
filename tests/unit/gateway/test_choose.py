"""Which replica a request goes to."""

from __future__ import annotations

import mmap
import random
from collections import Counter

import pytest

from modelgrid.gateway.affinity import digest
from modelgrid.gateway.choose import pick
from modelgrid.gateway.ledger import HEADER_BYTES, LAYOUT, LAYOUT_AT, LIVE_AT, ROW_BYTES, Ledger
from modelgrid.gateway.standing import Standing

ALONE = Ledger.alone()


def standing(name: str, in_flight: int = 0, turn: int = 0, slot: int = 0) -> Standing:
    made = Standing(name, slot)
    made.in_flight = in_flight
    made.turn = turn
    return made


def replicas(number: int) -> tuple[Standing, ...]:
    return tuple(standing(f"m-{n}") for n in range(number))


def name(found: Standing | None) -> str | None:
    return None if found is None else found.replica


def lose(*lost: Standing) -> None:
    for one in lost:
        one.breaker.lose(one.breaker.era)


def test_the_least_loaded_replica_is_chosen() -> None:
    assert name(pick([standing("a", 2), standing("b", 1), standing("c", 3)], ALONE)) == "b"


def test_no_replicas_is_nobody() -> None:
    assert pick((), ALONE) is None
    assert pick((), ALONE, key=1) is None


def test_equals_take_turns() -> None:
    group = (standing("a"), standing("b", 1), standing("c"), standing("d"))
    chosen = []
    for turn in range(1, 7):
        one = pick(group, ALONE)
        assert one is not None
        one.turn = turn
        chosen.append(one.replica)
    assert chosen == ["a", "c", "d", "a", "c", "d"]


@pytest.mark.parametrize("key", [None, 17])
def test_who_is_out_is_left_alone_also_when_idle(key: int | None) -> None:
    idle, busy = standing("a"), standing("b", 9)
    lose(idle)
    assert pick((idle, busy), ALONE, key) is busy


@pytest.mark.parametrize("key", [None, 17])
def test_all_lost_is_nobody(key: int | None) -> None:
    group = replicas(3)
    lose(*group)
    assert pick(group, ALONE, key) is None


@pytest.mark.parametrize("key", [None, 17])
def test_who_answers_with_errors_is_better_than_nobody(key: int | None) -> None:
    gone, poor, poorer = standing("a"), standing("b", 1), standing("c", 2)
    lose(gone)
    for one in (poor, poorer):
        one.breaker.eject()
    assert pick((gone, poorer, poor), ALONE, key) is poor


# Several workers.


@pytest.fixture
def two_workers() -> tuple[Ledger, Ledger]:
    memory = mmap.mmap(-1, HEADER_BYTES + 2 * ROW_BYTES)
    header = memoryview(memory)[:16].cast("Q")
    header[LAYOUT_AT] = LAYOUT
    header[LIVE_AT] = 0b11
    return Ledger(memory, 0), Ledger(memory, 1)


@pytest.mark.parametrize("key", [None, 17])
def test_what_other_workers_have_in_flight_counts(two_workers: tuple[Ledger, Ledger], key: int | None) -> None:
    here, there = two_workers
    group = tuple(standing(f"m-{n}", slot=n) for n in range(1, 3))
    favourite = pick(group, here, key)
    assert favourite is not None
    for _ in range(9):
        there.begin(favourite.slot)
    other = pick(group, here, key)
    assert other is not None
    assert other is not favourite


def test_equals_take_turns_over_several_workers(two_workers: tuple[Ledger, Ledger]) -> None:
    here, there = two_workers
    group = tuple(standing(f"m-{n}", slot=n) for n in range(1, 5))
    chosen: Counter[str] = Counter()
    for turn in range(1, 41):
        one = pick(group, (here, there)[turn % 2])
        assert one is not None
        one.turn = turn
        chosen[one.replica] += 1
    assert set(chosen.values()) == {10}


# By key.


def test_a_key_finds_its_replica_again_in_any_process_and_order() -> None:
    group = replicas(8)
    again = tuple(reversed(replicas(8)))
    for n in range(100):
        key = digest(b"%d" % n)
        assert name(pick(group, ALONE, key)) == name(pick(again, ALONE, key))
    assert [name(pick(group, ALONE, digest(b"%d" % n))) for n in range(6)] == ["m-2", "m-2", "m-6", "m-0", "m-3", "m-2"]


@pytest.mark.parametrize("number", [2, 3, 4, 16, 64])
def test_keys_are_spread_evenly(number: int) -> None:
    group = replicas(number)
    each = 1000
    shares = Counter(name(pick(group, ALONE, digest(b"%d" % n))) for n in range(number * each))
    assert len(shares) == number
    assert 0.8 * each < min(shares.values())
    assert max(shares.values()) < 1.2 * each


def test_only_the_keys_of_a_replica_that_goes_move_and_to_all_others() -> None:
    group = replicas(5)
    keys = [digest(b"%d" % n) for n in range(2000)]
    before = {key: pick(group, ALONE, key) for key in keys}
    after = {key: pick(group[:-1], ALONE, key) for key in keys}
    moved = [key for key in keys if before[key] is not after[key]]
    assert moved == [key for key in keys if before[key] is group[-1]]
    assert {name(after[key]) for key in moved} == {"m-0", "m-1", "m-2", "m-3"}


def test_a_busy_replica_hands_over_to_the_next_of_the_order() -> None:
    group = replicas(4)
    key = digest(b"hot")
    first = pick(group, ALONE, key)
    assert first is not None
    second = pick([one for one in group if one is not first], ALONE, key)
    first.in_flight = 1
    assert pick(group, ALONE, key) is first
    first.in_flight = 2
    assert pick(group, ALONE, key) is second


def test_a_busy_replica_keeps_its_keys_where_all_are_busy() -> None:
    group = replicas(4)
    key = digest(b"hot")
    first = pick(group, ALONE, key)
    assert first is not None
    for one in group:
        one.in_flight = 40
    first.in_flight = 52
    assert pick(group, ALONE, key, slack=1.25) is first
    first.in_flight = 60
    assert pick(group, ALONE, key, slack=1.25) is not first
    assert pick(group, ALONE, key, slack=2.0) is first


def test_a_slack_that_leaves_nobody_takes_the_least() -> None:
    group = replicas(2)
    group[0].in_flight, group[1].in_flight = 12, 11
    assert pick(group, ALONE, digest(b"x"), slack=0.1) is group[1]


# A small world: conversations of many turns over four replicas, each busy for a time that differs.


def simulate(seed: int, hot_share: float, slack: float) -> tuple[float, float]:
    """How many turns found the replica of the turn before, and the most in flight over the mean of that time (as far
    as one or two more don't matter)."""
    dice = random.Random(seed)
    group = replicas(4)
    last: dict[int, Standing] = {}
    running: list[tuple[float, Standing]] = []
    kept = turns = 0
    worst = 0.0
    now = 0.0
    for _ in range(8000):
        now += dice.expovariate(40.0)  # 40 a second, of 1 s each: ten in flight at each replica
        for end, one in [run for run in running if run[0] <= now]:
            running.remove((end, one))
            one.in_flight -= 1
        who = 0 if dice.random() < hot_share else dice.randrange(1, 400)
        found = pick(group, ALONE, digest(b"conversation %d" % who), slack)
        assert found is not None
        found.in_flight += 1
        running.append((now + dice.expovariate(1.0), found))
        if who in last:
            turns += 1
            kept += last[who] is found
        last[who] = found
        worst = max(worst, (found.in_flight - 2) / max(1.0, sum(one.in_flight for one in group) / 4))
    return kept / turns, worst


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("slack", "share"), [(1.25, 0.85), (1.5, 0.95), (2.0, 0.99)])
def test_conversations_stay_where_they_are_under_even_load(seed: int, slack: float, share: float) -> None:
    kept, worst = simulate(seed, 0.0, slack)
    assert kept >= share
    assert worst <= slack


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("slack", [1.25, 1.5, 2.0])
def test_one_hot_conversation_does_not_bury_its_replica(seed: int, slack: float) -> None:
    _, worst = simulate(seed, 0.8, slack)
    assert worst <= slack


@pytest.mark.parametrize("seed", range(3))
def test_half_open_replicas_get_one_request(seed: int) -> None:
    dice = random.Random(seed)
    group = replicas(3)
    lose(group[0])
    group[0].breaker.half_open(group[0].breaker.era)
    probes = 0
    for turn in range(50):
        found = pick(group, ALONE, dice.choice([None, dice.getrandbits(60)]))
        assert found is not None
        found.breaker.begin()
        found.turn = turn
        found.in_flight += 1
        probes += found is group[0]
    assert probes == 1
