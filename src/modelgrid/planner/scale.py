"""How many replicas a model should have now."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from modelgrid.planner.capacity import TOLERANCE
from modelgrid.spec import Model, Replica, State, Wish
from modelgrid.spec.pulse import BEAT_S, BEATS, Beat, Pulse
from modelgrid.spec.units import format_seconds

HOLD_S = 60.0  # a peak is held against shrinking for at least so long
MOST_HOLD_S = (BEATS - 2) * BEAT_S  # beats don't reach further back
_SURE = 2.0  # standard deviations by which a burst of ongoing requests stands out


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many replicas, and why, for people."""

    count: int
    why: str


def floor(model: Model) -> int:
    """Replicas that are kept without any request: these are never evicted."""
    if model.wish is Wish.UNLOADED:
        return 0
    kept = model.spec.scaling.min
    return max(1, kept) if model.wish is Wish.LOADED else kept


def scale(model: Model, replicas: Sequence[Replica], now: float) -> Wanted:
    """How many replicas there should be, with those that start, between `floor` and ``scaling.max``, and why.
    `replicas` are the model's own: those that serve or start, none that leave or sleep.

    It goes up as soon as there is more to do than they take, and down when fewer would have taken the peak of the
    last while. Unknown load never makes it go down, and the last replica goes by `is_idle` only.
    """
    count, least = len(replicas), floor(model)
    if not count and not model.waiting:
        return Wanted(least, "nobody asks for it")
    most = max(model.spec.scaling.max, least)
    load = _load(model, replicas)
    up, down = _replicas(load.now), _replicas(max(load.now, load.peak))
    if up > count or least > count:
        return Wanted(min(most, max(least, up)), load.why)
    if any(replica.in_flight is None and replica.state is State.READY for replica in replicas):
        return Wanted(min(most, max(least, count)), "how busy its replicas are is unknown")
    if not _is_known(model.pulse, load.hold_s, now):
        return Wanted(min(most, max(least, count)), f"its traffic is not known for {format_seconds(load.hold_s)} yet")
    if (fewer := max(least, down)) < count:
        enough = "one was" if fewer == 1 else f"{fewer} were"
        why = f"{load.why}; {enough} enough for all of the last {format_seconds(load.hold_s)}"
        return Wanted(min(most, fewer), why)
    return Wanted(min(most, max(least, count)), load.why)


def needed(model: Model, replicas: Sequence[Replica]) -> int:
    """How many of `replicas` what there is to do now takes, also while none of them has a request; 0 where one is
    enough, for the last one goes by `is_idle` only. Nobody needs those of a model that was unloaded by hand."""
    if model.wish is Wish.UNLOADED:
        return 0
    count = _replicas(_load(model, replicas).now)
    return min(count, model.spec.scaling.max) if count > 1 else 0


def surplus(model: Model, replicas: Sequence[Replica], now: float) -> list[tuple[Replica, str]]:
    """Who goes, and why, because fewer replicas take what there is to do: those that only start, then those with the
    fewest requests, then the youngest. `replicas` as for `scale`."""
    if len(replicas) <= max(1, floor(model)):
        return []
    wants = scale(model, replicas, now)
    many = len(replicas) - max(1, wants.count)
    leaving = sorted(replicas, key=lambda r: (r.state is State.READY, r.in_flight or 0, -r.created, r.id))
    return [(replica, wants.why) for replica in leaving[: max(0, many)]]


@dataclass(frozen=True, slots=True)
class _Load:
    """What there is to do, in replicas: now, and at most in the last `hold_s` seconds."""

    now: float
    peak: float
    hold_s: float
    why: str


def _load(model: Model, replicas: Sequence[Replica]) -> _Load:
    scaling, pulse = model.spec.scaling, model.pulse
    ongoing = model.waiting + sum(replica.in_flight or 0 for replica in replicas)
    if scaling.ttft_s is None or pulse.course is None:
        hold_s = max(HOLD_S, model.load_s or 0.0)  # one that is kept for nothing costs no more than a start
        surely = max(pulse.ongoing, ongoing - _SURE * math.sqrt(ongoing)) if pulse.at else ongoing
        smooth = max(surely, model.waiting)
        peak = max((beat.ongoing for beat in _since(pulse, hold_s)), default=0.0)
        why = f"{_requests(ongoing)} ongoing, one replica takes {scaling.target}"
        return _Load(smooth / scaling.target, peak / scaling.target, hold_s, why)
    course = pulse.course
    kept = float(course.floor if pulse.beats else 1)
    peak = max((beat.work for beat in _since(pulse, course.hold_s)), default=0.0)
    each = course.takes / pulse.work_per_request * pulse.request_s
    objective = f"{format_seconds(scaling.ttft_s)} to first token ({scaling.attain:.0%})"
    why = f"{_requests(round(pulse.ongoing))} ongoing, one replica takes {max(1, round(each))} within {objective}"
    if kept > _replicas(pulse.work / course.takes):
        why = f"{round(kept)} replicas keep {objective} through traffic like that of the last hour"
    return _Load(max(kept, pulse.work / course.takes), max(kept, peak / course.takes), course.hold_s, why)


def _since(pulse: Pulse, hold_s: float) -> Sequence[Beat]:
    return pulse.beats[-math.ceil(hold_s / BEAT_S) - 1 :]


def _is_known(pulse: Pulse, hold_s: float, now: float) -> bool:
    """Whether traffic was told for so long that a peak would have been seen."""
    if not pulse.at:
        return False
    return not pulse.beats or pulse.beats[0].number * BEAT_S <= now - min(hold_s, MOST_HOLD_S)


def _replicas(load: float) -> int:
    return max(1, math.ceil(load - TOLERANCE))


def is_idle(model: Model, replica: Replica, now: float) -> bool:
    """Whether `replica` has been without a request for long enough to go. Unknown load is not idle."""
    if replica.state is not State.READY or model.waiting:
        return False
    if model.wish is Wish.UNLOADED:
        return True  # also while it is busy: what it has in flight may finish
    unused_s = now - max(replica.last_used, replica.ready_at or replica.since)
    return replica.in_flight == 0 and unused_s >= model.spec.scaling.idle_s


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count} requests"
