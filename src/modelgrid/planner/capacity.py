"""How much one replica takes while the objective is attained: learned from how soon first tokens came under which load.

The work for each replica is put into levels, each 15 % above the one before. For each level there is the share of the
requests whose first token came too late. More work never makes it better, so the shares are made to rise (isotonic
regression).
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
DOWN = 2  # levels below what was seen that are tried
_LESS = 0.9  # of the late ones at each of them, as is hoped
_MORE = 1.7  # times the late ones at each level beyond what was seen, as is feared
_FULL = 0.5
_WORTH = 0.4  # log2(1 / 0.76): a quarter fewer late ones for twice the replicas


@dataclass(frozen=True, slots=True)
class Point:
    """Levels from `first` to `last` at which the same share is late."""

    first: int
    last: int
    seen: float
    met: float

    @property
    def late(self) -> float:
        """The share whose first token came too late."""
        return 1.0 - self.met / (self.seen + _DOUBT)


def level_of(work: float) -> int:
    """The level of so much work a second for one replica."""
    return round(math.log(work) / math.log(STEP))


def learn(pulse: Pulse, ttft: Sequence[float], now: float, ttft_s: float) -> Pulse:
    """Put first tokens to the work that there was when their requests came. Those that had no replica to go to teach
    nothing about one, but they count as attained or not."""
    faded = 0.5 ** ((now - pulse.learned_at) / _FORGET_S) if 0.0 < pulse.learned_at < now else 1.0
    levels = {level.number: _faded(level, faded) for level in pulse.levels}
    for took_s in ttft:
        if (at := _level_at(pulse, now - took_s)) is not None:
            levels[at] = _with(levels.get(at) or Level(at, 0.0, 0.0), took_s, ttft_s)
    kept = math.exp(-len(ttft) / _ALL_REQUESTS)
    return replace(
        pulse,
        levels=tuple(levels[number] for number in sorted(levels) if levels[number].seen >= 0.5),
        seen=pulse.seen * kept + len(ttft),
        met=pulse.met * kept + sum(took_s <= ttft_s for took_s in ttft),
        learned_at=now,
    )


def curve(pulse: Pulse) -> tuple[Point, ...]:
    """What share of the requests is late at which level: points that rise from level to level. Empty: too little was
    seen."""
    return tuple(_rising([level for level in pulse.levels if level.seen >= _ENOUGH]))


def late(points: Sequence[Point], level: float) -> float:
    """The share that is late at a level. Between two points, and beyond the last one, it grows by the same factor from
    level to level: as queues do, slowly at first and fast in the end. Below the first it is hoped to fall, a little,
    so that less work is tried where what was seen isn't good enough."""
    before = points[0]
    if level <= before.first:
        return before.late * float(_LESS ** min(DOWN, before.first - level))
    for point in points:
        if level <= point.first:
            way = (level - before.last) / (point.first - before.last)
            return before.late * float((point.late / before.late) ** way)
        if level <= point.last:
            return point.late
        before = point
    return min(1.0, before.late * float(_MORE ** (level - before.last)))


def within_reach(points: Sequence[Point]) -> float:
    """The most that can be attained, as far as it is worth its replicas: twice as many must spare a quarter of the late
    first tokens."""
    half_levels = range(2 * (points[0].first - DOWN), 2 * points[-1].last + 1)
    tried = [(late(points, half / 2), half / 2) for half in half_levels]
    return 1.0 - min(tried, key=lambda one: one[0] * STEP ** (-_WORTH * one[1]))[0]


def full(points: Sequence[Point]) -> int:
    """The level from which most requests are late: then they pile up."""
    return next(level for level in range(points[0].first, points[-1].last + 40) if late(points, level) >= _FULL)


def _level_at(pulse: Pulse, at: float) -> int | None:
    index = int(at // BEAT_S) - pulse.beats[-1].number - 1
    is_known = -len(pulse.beats) <= index < 0 and at > pulse.cold_at
    return pulse.beats[index].level if is_known else None


def _faded(level: Level, share: float) -> Level:
    return replace(level, seen=level.seen * share, met=level.met * share)


def _with(level: Level, took_s: float, ttft_s: float) -> Level:
    kept = min(1.0, _LEVEL_REQUESTS / (level.seen + 1.0))
    return Level(level.number, level.seen * kept + 1.0, level.met * kept + (took_s <= ttft_s))


def _rising(levels: Sequence[Level]) -> list[Point]:
    """Shares that rise from level to level: neighbours that don't are put together."""
    points: list[Point] = []
    for level in levels:
        point = Point(level.number, level.number, level.seen, level.met)
        while points and points[-1].late >= point.late:
            before = points.pop()
            point = Point(before.first, point.last, before.seen + point.seen, before.met + point.met)
        points.append(point)
    return points
