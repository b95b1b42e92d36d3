"""How many replicas traffic asks for: up fast, down slowly, and always with a why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelgrid.planner import plan
from modelgrid.planner.scale import Wanted, scale, surplus
from modelgrid.spec import Drain, Model, Replica, State, Wish
from modelgrid.spec.pulse import BEAT_S, Beat, Course, Pulse
from modelgrid.spec.reason import Because, Cause
from unit.planner.fleets import NOW, fleet, model, replica


def beats(*work: float, ongoing: float = 0.0) -> tuple[Beat, ...]:
    """Beats up to now, with so much work each."""
    last = int(NOW // BEAT_S)
    first = last - len(work) + 1
    return tuple(Beat(first + index, 1, each, ongoing) for index, each in enumerate(work))


def learned(work: float, *earlier: float, known_s: float = 600.0, floor: int = 1, hold_s: float = 60.0) -> Pulse:
    """One replica takes 1,000 tokens a second; so many arrive now."""
    past = earlier or (work,) * int(known_s / BEAT_S)
    quiet = (0.0,) * (int(known_s / BEAT_S) - len(past))
    return Pulse(
        at=NOW,
        beats=beats(*quiet, *past),
        work=work,
        ongoing=8.0,
        ended=10.0,
        tokens=5_000.0,
        came=10.0,
        busy_s=20.0,
        course=Course(1_000.0, floor, hold_s),
    )


def timely(pulse: Pulse, *, min: int = 0, max: int = 9, waiting: int = 0, load_s: float | None = 60.0) -> Model:
    known = model(min=min, max=max, waiting=waiting)
    scaling = replace(known.spec.scaling, ttft_s=0.5)
    return replace(known, spec=replace(known.spec, scaling=scaling), pulse=pulse, load_s=load_s)


def ready(count: int, in_flight: int | None = 2) -> list[Replica]:
    return [replica(f"a-{number}", in_flight=in_flight) for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("work", "count"), [(0.0, 1), (900.0, 1), (1_090.0, 1), (1_200.0, 2), (4_500.0, 5), (99_000.0, 9)]
)
def test_as_many_start_at_once_as_the_work_asks_for(work: float, count: int) -> None:
    assert scale(timely(learned(work)), ready(1), NOW).count == count


def test_the_why_is_for_people() -> None:
    assert scale(timely(learned(2_500.0)), ready(1), NOW) == Wanted(
        3, "8 requests ongoing, one replica takes 4 within 500ms to first token (95%)"
    )
    assert scale(replace(model(target=4, max=3), pulse=Pulse()), ready(1, 9), NOW) == Wanted(
        3, "9 requests ongoing, one replica takes 4"
    )
    assert scale(timely(learned(900.0)), ready(2), NOW).why == (
        "8 requests ongoing, one replica takes 4 within 500ms to first token (95%); "
        "one was enough for all of the last 1m00s"
    )


def test_those_that_start_count_as_coming() -> None:
    starting = [replica("a-8", State.STARTING), replica("a-9", State.STARTING)]
    assert scale(timely(learned(2_500.0)), [*ready(1), *starting], NOW).count == 3
    assert surplus(timely(learned(2_500.0)), [*ready(1), *starting], NOW) == []


def test_it_shrinks_only_when_fewer_had_taken_the_peak() -> None:
    recent = learned(900.0, *[3_500.0] * 2, *[900.0] * 6)
    assert scale(timely(recent), ready(4), NOW).count == 4
    past = learned(900.0, *[3_500.0] * 2, *[900.0] * 14)
    assert scale(timely(past), ready(4), NOW).count == 1


def test_a_peak_is_held_for_as_long_as_the_course_says() -> None:
    past = (900.0, *[3_500.0] * 2, *[900.0] * 14)
    assert scale(timely(learned(*past, hold_s=180.0)), ready(4), NOW).count == 4
    assert scale(timely(learned(*past, hold_s=540.0)), ready(4), NOW).count == 4
    assert scale(timely(learned(900.0, *[3_500.0] * 2, *[900.0] * 50, hold_s=180.0)), ready(4), NOW).count == 1


def test_without_an_objective_a_start_that_takes_long_holds_a_peak_for_longer() -> None:
    past = beats(*[0.0] * 60, ongoing=0.0) + beats(ongoing=0.0)
    peaked = tuple(replace(beat, ongoing=11.0 if index == 30 else 1.0) for index, beat in enumerate(past))
    plain = replace(model(max=9, target=4), pulse=Pulse(at=NOW, beats=peaked, ongoing=1.0))
    assert scale(replace(plain, load_s=60.0), ready(3, 0), NOW).count == 1
    assert scale(replace(plain, load_s=240.0), ready(3, 0), NOW).count == 3


def test_what_bursts_need_is_kept_between_them() -> None:
    assert scale(timely(learned(900.0, floor=3)), ready(1), NOW) == Wanted(
        3, "3 replicas keep 500ms to first token (95%) through traffic like that of the last hour"
    )
    assert surplus(timely(learned(900.0, floor=3)), ready(3), NOW) == []
    assert scale(timely(learned(4_500.0, floor=3)), ready(3), NOW).count == 5
    assert scale(timely(learned(900.0, floor=30), max=4), ready(3), NOW).count == 4


def test_when_nobody_comes_for_long_nothing_is_kept_for_bursts() -> None:
    quiet = replace(learned(0.0, floor=3), beats=(), work=0.0, ongoing=0.0)
    assert scale(timely(quiet), ready(3, 0), NOW).count == 1


def test_traffic_that_is_not_known_for_long_enough_never_shrinks() -> None:
    assert scale(timely(learned(100.0, known_s=30.0)), ready(4), NOW) == Wanted(
        4, "its traffic is not known for 1m00s yet"
    )
    assert scale(timely(Pulse()), ready(4, 0), NOW).count == 4, "a controller that was just started"


def test_unknown_load_never_shrinks_and_may_grow() -> None:
    blind = [*ready(3), replica("a-9", in_flight=None)]
    assert scale(timely(learned(100.0)), blind, NOW) == Wanted(4, "how busy its replicas are is unknown")
    assert surplus(timely(learned(100.0)), blind, NOW) == []
    assert scale(timely(learned(7_000.0)), blind, NOW).count == 7


@pytest.mark.parametrize(("min", "max", "work", "count"), [(3, 5, 0.0, 3), (3, 5, 90_000.0, 5), (0, 1, 5_000.0, 1)])
def test_the_floor_and_the_most_hold_always(min: int, max: int, work: float, count: int) -> None:
    known = timely(learned(work), min=min, max=max)
    for have in range(7):
        answer = scale(known, ready(have), NOW).count
        assert min <= answer <= max, have
    assert scale(known, ready(1), NOW).count == count


def test_nobody_asks_and_nothing_runs() -> None:
    assert scale(timely(learned(5_000.0)), [], NOW).count == 0, "one that was evicted does not come back by itself"
    assert scale(timely(learned(0.0), min=2), [], NOW).count == 2
    assert scale(timely(Pulse(), waiting=1), [], NOW).count == 1
    assert scale(replace(timely(learned(0.0)), wish=Wish.LOADED), [], NOW).count == 1


def test_the_last_one_is_never_surplus() -> None:
    quiet = timely(replace(learned(0.0), ongoing=0.0))
    assert scale(quiet, ready(1, 0), NOW).count == 1
    assert surplus(quiet, ready(1, 0), NOW) == []


def test_who_starts_goes_first_then_the_least_busy_then_the_youngest() -> None:
    replicas = [
        replica("a-1", in_flight=5),
        replica("a-2", in_flight=1, ready_s=500.0),
        replica("a-3", in_flight=1, ready_s=50.0),
        replica("a-4", State.STARTING),
    ]
    leaving = surplus(timely(learned(900.0)), replicas, NOW)
    assert [one.id for one, _ in leaving] == ["a-4", "a-3", "a-2"]
    assert all("one was enough" in why for _, why in leaving)


@pytest.mark.parametrize(
    ("ongoing", "smooth", "peak", "have", "count"),
    [
        (4, 4.0, 4.0, 1, 1),
        (9, 4.0, 4.0, 1, 1),  # noise
        (30, 8.0, 8.0, 1, 5),  # a burst, at once
        (8, 9.0, 9.0, 1, 3),
        (0, 2.0, 11.0, 3, 3),
        (0, 2.0, 3.0, 3, 1),
    ],
)
def test_without_an_objective_it_is_ongoing_requests_but_steady(
    ongoing: int, smooth: float, peak: float, have: int, count: int
) -> None:
    pulse = Pulse(at=NOW, beats=beats(*[0.0] * 60, ongoing=peak), ongoing=smooth)
    own = [replica("a-1", in_flight=ongoing), *ready(4, 0)[1:have]]
    assert scale(replace(model(max=9, target=4), pulse=pulse), own, NOW).count == count


def test_as_long_as_nothing_is_learned_the_target_begins() -> None:
    fresh = replace(learned(50_000.0), course=None, ongoing=8.0)
    assert scale(timely(fresh), ready(1, 8), NOW) == Wanted(2, "8 requests ongoing, one replica takes 4")


def test_who_would_be_started_again_at_once_is_not_idle() -> None:
    busy, quiet = timely(learned(2_500.0)), timely(learned(900.0))
    idle = [
        replica(f"a-{number}", memory_bytes=1, in_flight=0, unused_s=1_000.0, in_state_s=1_000.0)
        for number in range(1, 5)
    ]
    going = [action for action in plan(fleet([busy], idle)) if isinstance(action, Drain)]
    assert [(drain.replica, drain.because) for drain in going] == [("a-1", Because(Cause.IDLE))]
    assert len(plan(fleet([quiet], idle))) == 4  # the last one as well: nobody has asked for it for long
    assert len(plan(fleet([replace(busy, wish=Wish.UNLOADED)], idle))) == 4
