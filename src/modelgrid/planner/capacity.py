"""How much one replica takes while the objective is attained: learned from how soon first tokens came under which load.

The work for each replica is put into levels, each 15 % above the one before. For each level there is the share of the
requests whose first token came in time. More work never makes it better, so the shares are made to fall (isotonic
regression). With that curve, and with how often there was how much to do in all, one can say which share would have
been attained had there always been one replica for so much work: the capacity is the most work for which that is the
objective. Beyond what was seen it is tried step by step.

An objective that is out of reach, because some prompts alone take longer than it allows, must not start replicas
without end: each doubling of them has to spare a quarter of the late first tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelgrid.spec.pulse import BEAT_S, Level, Pulse

STEP = 1.15  # from one level to the next
TOLERANCE = 0.1  # of a replica: so much more than they take is no reason for another one
_ENOUGH = 60.0  # requests that make a level count
_DOUBT = 2.0  # so many more of each level count as late: a few that were in time are no proof
_LEVEL_REQUESTS = 2_000.0  # that a level remembers, at most
_ALL_REQUESTS = 5_000.0  # after which a third is left of the share of all
_FORGET_S = 3_600.0  # half of what was learned is forgotten in so long, where nothing new is seen
_UP = 1  # levels beyond what was seen,
_UP_EARLY = 3  # and where most first tokens came in half of the time
_DOWN = 2
_WORTH = 0.4  # log2(1 / 0.76): a quarter fewer late ones for twice the replicas
_SPEND = 0.03  # the most below the objective, where more than that was attained,
_MAKE_UP = 0.2  # and the most above it where less was, as a part of what there is above


def level_of(work: float) -> int:
    """The level of so much work a second for one replica."""
    return round(math.log(work) / math.log(STEP))


def learn(pulse: Pulse, ttft: Sequence[float], now: float, ttft_s: float) -> Pulse:
    """Put first tokens to the work that there was when their requests came. Those that had no replica to go to teach
    nothing about one, but they count as attained or not."""
    faded = 0.5 ** ((now - pulse.learned_at) / _FORGET_S) if 0.0 < pulse.learned_at < now else 1.0
    levels = {level.number: _faded(level, faded) for level in pulse.levels}
    loads = {number: count * faded for number, count in pulse.loads}
    if pulse.work > 0.0:
        number = level_of(pulse.work)
        loads[number] = loads.get(number, 0.0) + len(ttft)
    for took_s in ttft:
        if (at := _level_at(pulse, now - took_s)) is not None:
            levels[at] = _with(levels.get(at) or Level(at, 0.0, 0.0, 0.0), took_s, ttft_s)
    kept = math.exp(-len(ttft) / _ALL_REQUESTS)
    return replace(
        pulse,
        levels=tuple(levels[number] for number in sorted(levels) if levels[number].seen >= 0.5),
        loads=tuple((number, loads[number]) for number in sorted(loads) if loads[number] >= 0.5),
        seen=pulse.seen * kept + len(ttft),
        met=pulse.met * kept + sum(took_s <= ttft_s for took_s in ttft),
        learned_at=now,
    )


def capacity(pulse: Pulse, attain: float) -> float | None:
    """The work a second that one replica takes; None: not enough was seen."""
    curve = _falling([level for level in pulse.levels if level.seen >= _ENOUGH])
    if not curve:
        return None
    aim, low, top = _aim(pulse, attain), curve[0], curve[-1]
    most = top.last + (0 if top.share < aim else _UP_EARLY if top.early >= aim else _UP)
    worth = None
    for half_levels in range(2 * most, 2 * low.first - 1, -1):
        takes = _work(half_levels / 2)
        share = _share(takes, pulse.loads, curve)
        if share >= aim:
            return takes
        if worth is None and 1.0 - share <= (1.0 - low.share) * (takes / _work(low.first)) ** _WORTH:
            worth = takes
    if worth is not None and worth > _work(low.first + 1):
        return worth
    return _work(low.first - _DOWN)  # it got better all the way down to the least that was seen


def _level_at(pulse: Pulse, at: float) -> int | None:
    index = int(at // BEAT_S) - pulse.beats[-1].number - 1
    is_known = -len(pulse.beats) <= index < 0 and at > pulse.cold_at
    return pulse.beats[index].level if is_known else None


def _faded(level: Level, share: float) -> Level:
    return replace(level, seen=level.seen * share, met=level.met * share, early=level.early * share)


def _with(level: Level, took_s: float, ttft_s: float) -> Level:
    kept = min(1.0, _LEVEL_REQUESTS / (level.seen + 1.0))
    return Level(
        level.number,
        level.seen * kept + 1.0,
        level.met * kept + (took_s <= ttft_s),
        level.early * kept + (took_s <= ttft_s / 2),
    )


@dataclass(frozen=True, slots=True)
class _Point:
    """Levels from `first` to `last` that have the same share."""

    first: int
    last: int
    seen: float
    met: float
    early: float  # as a share, of the last of them

    @property
    def share(self) -> float:
        return self.met / (self.seen + _DOUBT)


def _falling(levels: Sequence[Level]) -> list[_Point]:
    """Shares that fall from level to level: neighbours that don't are put together."""
    points: list[_Point] = []
    for level in levels:
        point = _Point(level.number, level.number, level.seen, level.met, level.early / level.seen)
        while points and points[-1].share <= point.share:
            before = points.pop()
            point = _Point(before.first, point.last, before.seen + point.seen, before.met + point.met, point.early)
        points.append(point)
    return points


def _aim(pulse: Pulse, attain: float) -> float:
    """The share to go for: what was attained beyond the objective may be spent, what is missing is made up for a
    little. Most of what is missing is lost while replicas start, and more of them don't bring that back."""
    if pulse.attained is None:
        return attain
    missing = attain - pulse.attained
    return attain + min(_MAKE_UP * (1.0 - attain), max(-_SPEND, missing))


def _share(takes: float, loads: Sequence[tuple[int, float]], curve: Sequence[_Point]) -> float:
    """The share that would have been attained, had there always been one replica for `takes`."""
    total = met = 0.0
    for number, count in loads:
        work = _work(number)
        replicas = max(1, math.ceil(work / takes - TOLERANCE))
        total += count
        met += count * _at(curve, number - math.log(replicas) / math.log(STEP))
    return met / total if total else 0.0


def _at(curve: Sequence[_Point], level: float) -> float:
    """The share at a level, between two points on the straight line between them."""
    before = curve[0]
    for point in curve:
        if level <= point.first:
            if level <= before.last or point is before:
                return before.share
            way = (level - before.last) / (point.first - before.last)
            return before.share + way * (point.share - before.share)
        before = point
    return before.share


def _work(level: float) -> float:
    return float(STEP**level)
