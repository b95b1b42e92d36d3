"""What one replica takes, learned from first tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelgrid.planner.capacity import STEP, capacity, learn, level_of
from modelgrid.spec.pulse import Beat, Level, Pulse

NOW = 100_003.0


def pulse(*shares: tuple[int, float], seen: float = 1_000.0, attained: float = 0.95, loads: int = 20) -> Pulse:
    """A pulse that saw each level with its share in time, and always had work of level `loads` in all."""
    levels = tuple(Level(number, seen, seen * share, 0.0) for number, share in shares)
    return Pulse(at=NOW, levels=levels, loads=((loads, 1_000.0),), seen=1_000.0, met=1_000.0 * attained)


def test_nothing_seen_is_nothing_known() -> None:
    assert capacity(Pulse(), 0.95) is None
    assert capacity(pulse((10, 1.0), seen=20.0), 0.95) is None


def test_it_is_the_most_that_attains_the_objective() -> None:
    takes = capacity(pulse((8, 0.999), (10, 0.99), (12, 0.97), (14, 0.80), (16, 0.10), loads=40), 0.95)
    assert takes is not None
    assert STEP**11.5 < takes < STEP**13.5


def test_a_higher_objective_takes_less() -> None:
    seen = pulse((4, 0.999), (8, 0.99), (12, 0.96), (16, 0.90), (20, 0.50), loads=50)
    high, middle, low = (capacity(seen, attain) or 0.0 for attain in (0.98, 0.95, 0.90))
    assert high < middle < low


def test_beyond_what_was_seen_it_goes_on_step_by_step() -> None:
    seen = pulse((9, 0.999), (10, 0.995), loads=60)
    assert capacity(seen, 0.95) == pytest.approx(STEP**11)
    early = replace(seen, levels=tuple(replace(level, early=level.met) for level in seen.levels))
    assert capacity(early, 0.95) == pytest.approx(STEP**13), "faster where there is much to spare"


def test_where_all_is_late_less_is_tried() -> None:
    assert capacity(pulse((10, 0.2), (12, 0.1), loads=60), 0.95) == pytest.approx(STEP**8)


def test_an_objective_out_of_reach_does_not_start_replicas_without_end() -> None:
    seen = pulse((2, 0.90), (4, 0.90), (6, 0.90), (8, 0.895), (10, 0.89), (12, 0.5), loads=60, attained=0.85)
    takes = capacity(seen, 0.99)
    assert takes is not None
    assert takes > STEP**9, "a fifth of the replicas loses one percent"


def test_a_lucky_level_above_an_unlucky_one_is_no_sign() -> None:
    smooth = pulse((8, 0.99), (10, 0.93), (12, 0.93), (14, 0.50), loads=60)
    bumpy = pulse((8, 0.99), (10, 0.90), (12, 0.96), (14, 0.50), loads=60)
    assert capacity(bumpy, 0.95) == pytest.approx(capacity(smooth, 0.95), rel=0.1)


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
    old = replace(beating(5), levels=(Level(7, 100.0, 100.0, 100.0),), loads=((9, 100.0),), learned_at=NOW - 3_600.0)
    learned = learn(old, (0.1,), NOW, 0.5)
    assert learned.levels[-1] == Level(7, 50.0, 50.0, 50.0)
    assert dict(learned.loads)[9] == 50.0


def test_levels_are_steps_of_work() -> None:
    assert [level_of(STEP**number) for number in (-3, 0, 1, 60)] == [-3, 0, 1, 60]
