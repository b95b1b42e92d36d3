"""What one replica takes, learned from first tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelgrid.planner.capacity import STEP, curve, full, late, learn, level_of, within_reach
from modelgrid.spec.pulse import Beat, Level, Pulse

NOW = 100_003.0


def pulse(*shares: tuple[int, float], seen: float = 1_000.0) -> Pulse:
    """A pulse that saw each level with its share in time."""
    return Pulse(at=NOW, levels=tuple(Level(number, seen, seen * share) for number, share in shares))


def test_nothing_seen_is_nothing_known() -> None:
    assert curve(Pulse()) == ()
    assert curve(pulse((10, 1.0), seen=20.0)) == ()


def test_more_work_never_makes_it_better() -> None:
    points = curve(pulse((8, 0.99), (10, 0.90), (12, 0.96), (14, 0.50), (15, 0.60)))
    assert [(point.first, point.last) for point in points] == [(8, 8), (10, 12), (14, 15)]
    shares = [late(points, part / 4) for part in range(80)]
    assert shares == sorted(shares)


def test_a_lucky_level_above_an_unlucky_one_is_no_sign() -> None:
    smooth = curve(pulse((8, 0.99), (10, 0.93), (12, 0.93), (14, 0.50)))
    bumpy = curve(pulse((8, 0.99), (10, 0.90), (12, 0.96), (14, 0.50)))
    assert late(bumpy, 11) == pytest.approx(late(smooth, 11))


def test_between_two_levels_it_is_the_less_late_the_further_from_the_full_one() -> None:
    points = curve(pulse((10, 0.99), (16, 0.0), seen=100_000.0))
    assert late(points, 13) == pytest.approx(0.1, rel=0.01), "the same factor for each level, as queues grow"


def test_a_few_in_time_are_no_proof() -> None:
    few, many = curve(pulse((10, 1.0), seen=100.0)), curve(pulse((10, 1.0), seen=2_000.0))
    assert late(few, 10) > 10 * late(many, 10) > 0.0


def test_beyond_what_was_seen_the_worse_is_feared_and_below_a_little_better_hoped_for() -> None:
    points = curve(pulse((10, 0.90), (12, 0.80)))
    assert late(points, 12) < late(points, 13) < late(points, 14) < late(points, 40) == 1.0
    assert late(points, 10) > late(points, 9) > late(points, 8) == late(points, 1)


def test_an_objective_out_of_reach_is_not_gone_for() -> None:
    flat = curve(pulse((2, 0.90), (4, 0.90), (6, 0.90), (8, 0.895), (10, 0.89), (12, 0.5), seen=100_000.0))
    assert within_reach(flat) == pytest.approx(0.89, abs=0.001), "four times as many replicas spare one percent"
    steep = curve(pulse((4, 0.99), (12, 0.5), seen=100_000.0))
    assert within_reach(steep) > 0.99


def test_from_where_most_are_late_work_piles_up() -> None:
    assert full(curve(pulse((8, 0.99), (10, 0.90), (12, 0.4), (14, 0.1)))) in (11, 12)
    assert full(curve(pulse((8, 0.99)))) > 10
    assert full(curve(pulse((8, 0.1)))) == 8


def beating(level: int | None, count: int = 20) -> Pulse:
    last = int(NOW // 5)
    beats = tuple(Beat(number, 10, level=level) for number in range(last - count + 1, last + 1))
    return Pulse(at=NOW, beats=beats, work=1_000.0)


def test_a_first_token_counts_for_the_load_when_its_request_came() -> None:
    beats = beating(5).beats
    busy = replace(beating(5), beats=(*beats[:-2], replace(beats[-2], level=9), beats[-1]))
    learned = learn(busy, (0.1, 6.0, 30.0), NOW, 0.5)
    assert [(level.number, level.seen, level.met) for level in learned.levels] == [(5, 2.0, 1.0), (9, 1.0, 0.0)]


def test_who_waited_for_a_start_teaches_nothing_of_a_replica_but_was_late() -> None:
    learned = learn(replace(beating(5), cold_at=NOW - 10.0), (0.1, 20.0), NOW, 0.5)
    assert [(level.seen, level.met) for level in learned.levels] == [(1.0, 1.0)]
    assert learned.attained == 0.5


def test_what_nobody_can_tell_the_load_of_teaches_nothing() -> None:
    assert learn(beating(None), (0.1,), NOW, 0.5).levels == ()
    assert learn(beating(5, count=2), (500.0,), NOW, 0.5).levels == ()


def test_what_was_learned_fades() -> None:
    old = replace(beating(5), levels=(Level(7, 100.0, 100.0),), learned_at=NOW - 3_600.0)
    learned = learn(old, (0.1,), NOW, 0.5)
    assert learned.levels[-1] == Level(7, 50.0, 50.0)


def test_levels_are_steps_of_work() -> None:
    assert [level_of(STEP**number) for number in (-3, 0, 1, 60)] == [-3, 0, 1, 60]
