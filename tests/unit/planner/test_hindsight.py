"""Which way of scaling is chosen, by what the last hour would have cost with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from modelgrid.planner.capacity import STEP, curve
from modelgrid.planner.hindsight import HOLDS_S, choose
from modelgrid.spec import Scaling
from modelgrid.spec.pulse import PIECES, Course, Level, Pulse

FULL = STEP**20  # one replica takes about so much
SCALING = Scaling(min=1, max=50, ttft_s=0.5, attain=0.95)


def pulse(past: Sequence[float], attained: float = 0.95) -> Pulse:
    """Nearly none late up to what a replica takes, and nearly all at twice as much; so much to do in the past."""
    shares = {10: 0.999, 14: 0.995, 17: 0.99, 19: 0.97, 20: 0.955, 21: 0.90, 22: 0.7, 24: 0.1, 26: 0.0}
    levels = tuple(Level(number, 1_000.0, 1_000.0 * share) for number, share in shares.items())
    return Pulse(levels=levels, past=tuple(past), seen=1_000.0, met=1_000.0 * attained)


def chosen(pulse: Pulse, load_s: float | None = 60.0, scaling: Scaling = SCALING) -> Course:
    course = choose(pulse, curve(pulse), load_s, scaling)
    assert course is not None
    return course


def test_nothing_is_chosen_from_nothing() -> None:
    assert choose(Pulse(past=(1.0,)), (), 60.0, SCALING) is None
    known = pulse(())
    assert choose(known, curve(known), 60.0, SCALING) is None


def test_slow_waves_are_followed() -> None:
    wave = [FULL * level for level in (0.8, 1.8, 2.8, 3.8, 2.8, 1.8) for _ in range(60)]
    course = chosen(pulse(wave))
    assert course.floor <= 2
    assert 0.8 * FULL < course.takes < 1.3 * FULL


def test_for_bursts_that_are_over_before_a_start_enough_is_kept() -> None:
    bursts = ([FULL * 0.8] * 24 + [FULL * 2.8] * 12) * 10
    assert chosen(pulse(bursts), load_s=120.0).floor == 3


def test_the_faster_a_start_the_less_is_kept() -> None:
    bursts = ([FULL * 0.8] * 60 + [FULL * 3.8] * 12) * 5
    kept = [chosen(pulse(bursts), load_s=load_s).floor for load_s in (10.0, 60.0, 180.0)]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]


def test_a_rare_burst_is_let_go() -> None:
    once = [FULL * 0.6] * 350 + [FULL * 2.0] * 3
    assert chosen(pulse(once)).floor == 1


def test_how_traffic_began_is_no_sign_of_bursts() -> None:
    fell = [0.0] + [FULL * 2.8] * 60 + [FULL * 0.6] * 120
    assert chosen(pulse(fell)).floor == 1


def test_peaks_that_come_again_and_again_are_held() -> None:
    often = ([FULL * 0.8] * 9 + [FULL * 2.8] * 9) * 20
    course = chosen(pulse(often))
    assert course.floor >= 3 or course.hold_s > HOLDS_S[0]


def test_a_higher_objective_costs_more() -> None:
    steady = [FULL * 10] * PIECES
    counts = []
    for attain in (0.90, 0.95, 0.98):
        course = chosen(pulse(steady, attained=attain), scaling=replace(SCALING, attain=attain))
        counts.append(max(course.floor, FULL * 10 / course.takes))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_what_was_missed_is_made_up_for() -> None:
    steady = [FULL * 10] * PIECES

    def count(attained: float) -> float:
        course = chosen(pulse(steady, attained))
        return max(course.floor, FULL * 10 / course.takes)

    assert count(0.90) > count(0.99)


@pytest.mark.parametrize(("min", "max"), [(3, 8), (1, 2), (0, 1)])
def test_the_bounds_of_the_configuration_hold(min: int, max: int) -> None:
    bursts = ([FULL * 0.8] * 24 + [FULL * 12] * 12) * 10
    floor = chosen(pulse(bursts), scaling=replace(SCALING, min=min, max=max)).floor
    assert min <= floor <= max


def test_where_nothing_is_enough_the_most_is_attained() -> None:
    flood = pulse([FULL * 30] * PIECES)
    course = chosen(flood, scaling=replace(SCALING, max=4))
    assert course.floor == 4 or FULL * 30 / course.takes > 3


def test_an_objective_out_of_reach_does_not_start_replicas_without_end() -> None:
    levels = tuple(Level(number, 2_000.0, 2_000.0 * share) for number, share in ((5, 0.9), (19, 0.89), (22, 0.4)))
    course = chosen(replace(pulse([FULL * 10] * PIECES, attained=0.89), levels=levels), scaling=SCALING)
    assert max(course.floor, FULL * 10 / course.takes) < 20


def test_a_start_that_nobody_saw_is_thought_to_take_a_minute() -> None:
    bursts = pulse(([FULL * 0.8] * 24 + [FULL * 2.8] * 12) * 10)
    assert chosen(bursts, load_s=None) == chosen(bursts, load_s=60.0)
