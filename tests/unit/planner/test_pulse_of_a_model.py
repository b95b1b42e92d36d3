"""Traffic, folded into a pulse."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from modelgrid.planner.pulse import Told, fold
from modelgrid.spec import Scaling
from modelgrid.spec.pulse import BEATS, PIECES, Pulse

NOW = 1_000_000.0
PLAIN = Scaling()
TIMELY = Scaling(ttft_s=0.5)


def after(seconds: int, told: Told, pulse: Pulse | None = None, begin: float = NOW) -> Pulse:
    """The pulse after so many seconds in each of which the same was told."""
    pulse = pulse or Pulse()
    for second in range(seconds):
        pulse = fold(pulse, told, begin + second, PLAIN)
    return pulse


def test_arrivals_are_counted_over_half_a_minute() -> None:
    pulse = after(60, Told(arrived=4, ended=4, tokens=4_000, in_flight=8, ready=2))
    assert pulse.arrivals == pytest.approx(4.0, rel=0.05)
    assert pulse.work == pytest.approx(4_000.0, rel=0.05)
    assert pulse.ongoing == pytest.approx(8.0, rel=0.01)
    assert pulse.request_s == pytest.approx(2.0, rel=0.05)


def test_a_burst_is_seen_within_seconds_and_noise_is_not() -> None:
    calm = after(60, Told(arrived=4, in_flight=8, ready=2))
    burst = after(5, Told(arrived=40, in_flight=8, ready=2), calm, NOW + 60)
    assert burst.arrivals > 12.0
    noise = after(5, Told(arrived=6, in_flight=8, ready=2), calm, NOW + 60)
    assert noise.arrivals < 5.0


def test_what_it_costs_does_not_depend_on_how_often_it_is_told() -> None:
    once = after(40, Told(arrived=10, ended=10, tokens=9_000, in_flight=20, ready=1))
    often = Pulse()
    for tenth in range(400):
        often = fold(often, Told(arrived=1, ended=1, tokens=900, in_flight=20, ready=1), NOW + tenth / 10, PLAIN)
    assert often.work == pytest.approx(once.work, rel=0.1)
    assert often.ongoing == pytest.approx(once.ongoing, rel=0.05)


def test_engines_that_tell_no_tokens_are_measured_in_requests() -> None:
    pulse = after(60, Told(arrived=3, ended=3, in_flight=1, ready=1))
    assert pulse.work == pulse.arrivals


def test_nothing_told_of_a_quiet_model_changes_nothing() -> None:
    quiet = Pulse()
    assert fold(quiet, Told(), NOW, TIMELY) is quiet
    assert fold(quiet, Told(ready=1), NOW, TIMELY) is quiet


def test_a_model_that_fell_quiet_is_done_with_after_ten_minutes() -> None:
    busy = after(20, Told(arrived=3, in_flight=2, ready=1))
    pulse = after(800, Told(ready=1), busy, NOW + 20)
    assert (pulse.beats, pulse.work, pulse.arrivals) == ((), 0.0, 0.0)
    assert pulse.at > 0.0


def test_beats_have_no_gaps_and_an_end() -> None:
    pulse = Pulse()
    for second in (0, 3, 40, 41, 400, 900, 1_000):
        pulse = fold(pulse, Told(arrived=1, in_flight=1, ready=1), NOW + second, PLAIN)
    assert len(pulse.beats) == BEATS
    assert all(later.number == earlier.number + 1 for earlier, later in pairwise(pulse.beats))


@pytest.mark.parametrize("jump_s", [-3_600.0, -3.0, 3_600.0])
def test_a_clock_that_jumps_costs_the_traffic_and_not_what_was_learned(jump_s: float) -> None:
    pulse = Pulse()
    told = Told(arrived=9, in_flight=3, ready=1, ttft=(0.1,) * 9)
    for second in range(60):
        pulse = fold(pulse, told, NOW + second, TIMELY)
    jumped = fold(pulse, told, NOW + 60 + jump_s, TIMELY)
    assert len(jumped.beats) == 1
    assert jumped.course is not None
    assert jumped.attained == 1.0


def test_unknown_load_changes_nothing_of_the_load() -> None:
    pulse = after(60, Told(arrived=4, in_flight=8, ready=2))
    blind = after(60, Told(arrived=4, in_flight=None, ready=2), pulse, NOW + 60)
    assert blind.ongoing == pytest.approx(pulse.ongoing)


def test_how_to_scale_is_chosen_each_half_minute() -> None:
    pulse, chosen = Pulse(), set()
    told = Told(arrived=20, ended=20, tokens=20_000, in_flight=8, ready=4, ttft=(0.1,) * 20)
    for second in range(300):
        pulse = fold(pulse, told, NOW + second, TIMELY)
        chosen.add(pulse.chosen)
    assert pulse.course is not None
    assert 10 <= len(chosen) <= 12


def test_the_past_is_an_hour_in_pieces() -> None:
    pulse = Pulse()
    told = Told(arrived=5, ended=5, tokens=5_000, in_flight=8, ready=4)
    for beat in range(900):
        pulse = fold(pulse, told, NOW + 5 * beat, TIMELY)
    assert len(pulse.past) == PIECES
    assert pulse.past[-1] == pytest.approx(1_000.0, rel=0.2)


def test_after_a_long_quiet_nothing_is_kept_for_what_comes_next() -> None:
    pulse = Pulse()
    told = Told(arrived=9, in_flight=3, ready=1, ttft=(0.1,) * 9)
    for second in range(60):
        pulse = fold(pulse, told, NOW + second, TIMELY)
    assert pulse.course is not None
    busy = replace(pulse, course=replace(pulse.course, floor=4))
    for second in range(60, 900):
        busy = fold(busy, Told(ready=1), NOW + second, TIMELY)
    assert (busy.past, busy.course) == ((), replace(pulse.course, floor=1))


def test_what_piled_up_is_not_put_down_to_the_load_after_it() -> None:
    pulse = Pulse()
    for second in range(120):
        calm = Told(arrived=5, ended=5, tokens=5_000, in_flight=5, ready=1, ttft=(0.4,) * 5)
        pulse = fold(pulse, calm, NOW + second, TIMELY)
    level = pulse.beats[-1].level
    assert pulse.full is not None
    for second in range(120, 150):
        pulse = fold(pulse, Told(arrived=90, ended=5, tokens=5_000, in_flight=900, ready=1), NOW + second, TIMELY)
    assert level is not None
    assert (pulse.beats[-1].level or 0) > level + 5
    for second in range(150, 155):
        pulse = fold(pulse, Told(arrived=5, ended=5, tokens=5_000, in_flight=900, ready=90), NOW + second, TIMELY)
    assert pulse.beats[-1].level is None
