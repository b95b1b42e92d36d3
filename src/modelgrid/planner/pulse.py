"""From what gateways tell to the pulse of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelgrid.planner.capacity import curve, full, learn, level_of
from modelgrid.planner.hindsight import choose
from modelgrid.spec import Scaling
from modelgrid.spec.pulse import BEAT_S, BEATS, PIECE_S, PIECES, Beat, Pulse

_RATE_BEATS = 6  # arrivals are counted over half a minute: long enough to be steady
_BURST_BEATS = 2  # and over ten seconds, where a burst stands out of the noise
_SURE = 2.0  # by so many standard deviations
_FADE_REQUESTS = 150.0  # after which a third is left of what earlier ones cost
_FADE_S = 60.0  # after which a third is left of how long earlier ones took
_SMOOTH_S = 10.0
CHOOSE_BEATS = 6  # half a minute: the course is chosen again
_BACKLOG_BEATS = 13  # how long what piled up makes first tokens late


@dataclass(frozen=True, slots=True)
class Told:
    """What all gateways told of a model since the last fold, and what there is now."""

    arrived: int = 0
    ended: int = 0
    tokens: int = 0  # input and output, of those that ended
    ttft: tuple[float, ...] = ()  # seconds from a request's arrival to its first token
    in_flight: int | None = 0  # on replicas, now; None: unknown
    waiting: int = 0  # for want of a replica, now
    ready: int = 0  # replicas
    load_s: float | None = None  # how long a replica takes to start; None: unknown


def fold(
    pulse: Pulse,
    told: Told,
    now: float,
    scaling: Scaling,
    *,
    may_choose: bool = True,
    choose_beats: int = CHOOSE_BEATS,
) -> Pulse:
    """The pulse after what was told. It may be called as often as one likes. A clock that jumped begins anew, but for
    what was learned. Every `choose_beats` the course is chosen again, which takes some hundredths of a second; where it
    may not be now, it is due at the next call."""
    if not (told.arrived or told.waiting or told.in_flight or told.ttft or told.ended) and _is_quiet(pulse):
        return _rested(pulse, now) if pulse.beats else pulse
    if not 0.0 <= now - pulse.at <= BEATS * BEAT_S:
        pulse = replace(_without_traffic(pulse), at=now - 1.0)
    after = _counted(pulse, told, now)
    if scaling.ttft_s is None:
        return after
    if told.ttft:
        after = learn(after, told.ttft, now, scaling.ttft_s)
    if not pulse.beats or pulse.beats[-1].number != after.beats[-1].number:
        after = _remembered(after)
    return _chosen(after, told.load_s, scaling) if may_choose and is_due(after, scaling, choose_beats) else after


def is_due(pulse: Pulse, scaling: Scaling, choose_beats: int = CHOOSE_BEATS) -> bool:
    """Whether the course is to be chosen again."""
    if scaling.ttft_s is None or not pulse.beats:
        return False
    return pulse.beats[-1].number >= pulse.chosen + (choose_beats if pulse.course is not None else 1)


def _is_quiet(pulse: Pulse) -> bool:
    return not any(beat.arrived or beat.ongoing > 0.01 for beat in pulse.beats)


def _without_traffic(pulse: Pulse) -> Pulse:
    return replace(
        pulse, beats=(), arrivals=0.0, work=0.0, ongoing=0.0, came=0.0, busy_s=0.0, cold_at=0.0, past=(), chosen=0
    )


def _rested(pulse: Pulse, now: float) -> Pulse:
    """Nobody came for long: what comes next may be something else, and nothing is kept for it."""
    course = replace(pulse.course, floor=1) if pulse.course is not None else None
    return replace(_without_traffic(pulse), at=now, course=course)


def _counted(pulse: Pulse, told: Told, now: float) -> Pulse:
    passed_s = now - pulse.at
    beats = _until(pulse.beats, int(now // BEAT_S))
    last = replace(beats[-1], arrived=beats[-1].arrived + told.arrived)
    kept, kept_s = math.exp(-told.ended / _FADE_REQUESTS), math.exp(-passed_s / _FADE_S)
    ongoing = pulse.ongoing if told.in_flight is None else float(told.waiting + told.in_flight)
    ended, tokens = pulse.ended * kept + told.ended, pulse.tokens * kept + told.tokens
    arrivals = _rate((*beats[:-1], last), now)
    work = arrivals * (max(1.0, tokens / ended) if ended else 1.0)
    smooth = pulse.ongoing + (1.0 - math.exp(-passed_s / _SMOOTH_S)) * (ongoing - pulse.ongoing)
    level = level_of(work / told.ready) if told.ready and work > 0.0 else None
    last = replace(
        last,
        work=max(last.work, work),
        ongoing=max(last.ongoing, smooth),
        level=None if level is None or _has_backlog(beats, level, pulse.full) else level,
    )
    return replace(
        pulse,
        at=now,
        beats=(*beats[:-1], last),
        arrivals=arrivals,
        work=work,
        ongoing=smooth,
        ended=ended,
        tokens=tokens,
        came=pulse.came * kept_s + told.arrived,
        busy_s=pulse.busy_s * kept_s + ongoing * passed_s,
        cold_at=now if told.waiting or not told.ready else pulse.cold_at,
    )


def _until(beats: tuple[Beat, ...], number: int) -> tuple[Beat, ...]:
    """The beats up to the one that is now, without gaps."""
    if beats and beats[-1].number >= number:
        return beats
    first = max(beats[-1].number + 1, number - BEATS + 1) if beats else number
    return (*beats, *map(Beat, range(first, number + 1)))[-BEATS:]


def _rate(beats: Sequence[Beat], now: float) -> float:
    """Requests a second: over the last while, or over a shorter one that surely had more."""
    count, seconds = _arrived(beats[-1 - _RATE_BEATS :], now)
    burst, burst_s = _arrived(beats[-1 - _BURST_BEATS :], now)
    return max(count / seconds, (burst - _SURE * math.sqrt(burst)) / burst_s)


def _arrived(beats: Sequence[Beat], now: float) -> tuple[int, float]:
    return sum(beat.arrived for beat in beats), max(BEAT_S, now - beats[0].number * BEAT_S)


def _has_backlog(beats: Sequence[Beat], level: int, full: int | None) -> bool:
    """Whether there was more to do lately than replicas can, and now no longer: what piled up then makes first tokens
    late that would be in time at this level."""
    if full is None:
        return False
    over = max(level + 1, full)
    return any(beat.level is not None and beat.level >= over for beat in beats[-_BACKLOG_BEATS:-1])


def _remembered(pulse: Pulse) -> Pulse:
    """At the end of a piece what there is to do goes into the past."""
    if pulse.beats[-1].number % round(PIECE_S / BEAT_S):
        return pulse
    return replace(pulse, past=(*pulse.past, pulse.work)[-PIECES:])


def _chosen(pulse: Pulse, load_s: float | None, scaling: Scaling) -> Pulse:
    points = curve(pulse)
    course = choose(pulse, points, load_s, scaling)
    if course is None:
        return replace(pulse, chosen=pulse.beats[-1].number)
    return replace(pulse, course=course, chosen=pulse.beats[-1].number, full=full(points))
