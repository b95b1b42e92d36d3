"""Which way of scaling would have been the cheapest over the last hour, of those that attain the objective?

A course is a way to scale: one replica for so much work, never fewer than some, and a peak is held for so long. With
what there was to do in the last hour, with how long a start takes, and with what is known of how late first tokens are
under which load, each course is replayed: which replicas it would have had, when they would have been ready, and what
share would have been in time. The cheapest that attains the objective is taken.

So nobody has to say whether traffic comes in waves, which are followed, or in bursts that are over before a replica has
started: then having enough all the time is cheaper, and the replay says so.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from modelgrid.planner.capacity import DOWN, STEP, TOLERANCE, Point, late, within_reach
from modelgrid.spec import Scaling
from modelgrid.spec.pulse import PIECE_S, Course, Pulse

HOLDS_S = (60.0, 180.0, 540.0)
START_S = 60.0  # that a start is thought to take, as long as none was seen
_UP = 4  # levels beyond what was seen that are tried
_SPEND = 0.03  # the most below the objective, where more than that was attained,
_MAKE_UP = 0.2  # and the most above it where less was, as a part of what there is above
_ROUNDING = 0.002  # by so much a replay may be wrong about the best that is within reach
_NEAR = 1.03  # times the cost is about the same: then the better one is taken
_SAME = 1.005  # and this is the same
_SURELY = 2  # levels beyond what was seen that more traffic than in the last hour may bring,
_AT_RISK = 2.0  # and so many times the late ones that there may be
_PARTS = 4  # of a level, in the table of shares
_OVER = 2  # levels above what a replica takes: from there on work piles up
_BEYOND = 16  # levels in the table above what was seen: there all is late
_LOG_STEP = math.log(STEP)


def choose(pulse: Pulse, points: Sequence[Point], load_s: float | None, scaling: Scaling) -> Course | None:
    """The course to take from now on; None: too little was seen. `points` are `capacity.curve`.

    Of all floors those around the one that is now are tried, as far as it gets better; for each the most work for one
    replica is searched, as more of it is always cheaper and never better.
    """
    if not points or not pulse.past:
        return None
    aim = min(_aim(pulse, scaling.attain), within_reach(points) - _ROUNDING)
    lag = max(1, round((START_S if load_s is None else load_s) / PIECE_S))
    searches = [_Search(_Past.of(pulse.past, hold_s, lag), points, aim, scaling) for hold_s in HOLDS_S]
    tried = [(outcome, search) for search in searches for outcome in search.outcomes(pulse.course)]
    cheapest, _ = min(tried, key=lambda one: one[1].rank(one[0]))
    near = [one for one in tried if one[0].replicas <= cheapest.replicas * _NEAR]
    best, search = max(near, key=lambda one: one[0].share)
    return search.readier(best).course


def _aim(pulse: Pulse, attain: float) -> float:
    """The share to go for: what was attained beyond the objective may be spent, what is missing is made up for a
    little."""
    if pulse.attained is None:
        return attain
    return attain + min(_MAKE_UP * (1.0 - attain), max(-_SPEND, attain - pulse.attained))


@dataclass(frozen=True, slots=True)
class _Past:
    """The last hour, in pieces: what there was to do, for how much replicas would have been held, and for how much
    they would have been ready. Whatever a replica takes, their number follows from these: it only grows with work."""

    work: Sequence[float]
    held: Sequence[float]
    ready: Sequence[float]
    hold_s: float

    @classmethod
    def of(cls, work: Sequence[float], hold_s: float, lag: int) -> _Past:
        """`lag` is the pieces that a start takes: ready are those that have been wanted for so long. How traffic began
        tells nothing of how it goes on, and is left out."""
        held = _sliding(work, round(hold_s / PIECE_S), lambda one, other: one >= other)
        ready = _sliding(held, lag + 1, lambda one, other: one <= other)
        begin = lag + 1 if len(work) > lag + 1 else 0
        return cls(work[begin:], held[begin:], ready[begin:], hold_s)


def _sliding(values: Sequence[float], width: int, beats: Callable[[float, float], bool]) -> list[float]:
    """For each value the one of the last `width` that beats all others."""
    window: deque[tuple[int, float]] = deque()
    found: list[float] = []
    for index, value in enumerate(values):
        while window and beats(value, window[-1][1]):
            window.pop()
        window.append((index, value))
        if window[0][0] <= index - width:
            window.popleft()
        found.append(window[0][1])
    return found


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a course would have cost, in replicas on average, and the share that would have been in time."""

    course: Course
    replicas: float
    share: float


@dataclass(slots=True)
class _Search:
    past: _Past
    points: Sequence[Point]
    aim: float
    scaling: Scaling
    least: int = field(init=False)  # level
    shares: Sequence[float] = field(init=False)  # in time: from the least level on, by parts of one

    def __post_init__(self) -> None:
        self.least = self.points[0].first - DOWN
        parts = range(_PARTS * (self.points[-1].last + _BEYOND - self.least))
        self.shares = [1.0 - late(self.points, self.least + part / _PARTS) for part in parts]

    def outcomes(self, now: Course | None) -> list[_Outcome]:
        """The best of each floor that was tried."""
        floors = self._floors()
        at = min(range(len(floors)), key=lambda index: abs(floors[index] - (now.floor if now is not None else 1)))
        found = {at: self._best(floors[at])}
        for step in (1, -1):
            while 0 <= at + step < len(floors):
                if at + step not in found:
                    found[at + step] = self._best(floors[at + step])
                if self.rank(found[at + step]) > self.rank(found[at]):
                    break
                at += step
        return list(found.values())

    def rank(self, one: _Outcome) -> tuple[bool, float]:
        """The lower the better: cheap among those that attain the aim, else near to it."""
        return (False, one.replicas) if one.share >= self.aim else (True, -one.share)

    def readier(self, one: _Outcome) -> _Outcome:
        """The same with less work for each replica, as long as it costs the same: what the last hour didn't have
        is answered earlier."""
        while not self._is_known_enough(level := math.log(one.course.takes) / _LOG_STEP):
            less = self._replay(replace(one.course, takes=STEP ** (level - 0.5)))
            if less.replicas > one.replicas * _SAME:
                break
            one = less
        return one

    def _is_known_enough(self, level: float) -> bool:
        """Whether a replica may be planned with so much work also where the last hour is no guide."""
        return level <= self.points[-1].last + _SURELY and late(self.points, level) <= _AT_RISK * (1.0 - self.aim)

    def _floors(self) -> list[int]:
        """From the least that is allowed to what the peak would take at the least level, in steps of about a sixth."""
        most = min(self.scaling.max, math.ceil(max(self.past.work) / STEP**self.least))
        floors = [max(1, self.scaling.min)]
        while floors[-1] < most:
            floors.append(floors[-1] + max(1, floors[-1] // 6))
        return floors

    def _best(self, floor: int) -> _Outcome:
        """The most work for each replica that attains the aim; else what attains the most."""
        low, high = 2 * self.least, 2 * (self.points[-1].last + _UP)
        best = None
        while low <= high:
            middle = (low + high) // 2
            outcome = self._replay(Course(STEP ** (middle / 2), floor, self.past.hold_s))
            if best is None or self.rank(outcome) <= self.rank(best):
                best = outcome
            if outcome.share >= self.aim:
                low = middle + 1
            else:
                high = middle - 1
        assert best is not None, "there are levels"
        return best

    def _replay(self, course: Course) -> _Outcome:
        """The hot loop, run some hundred times a minute for each model with an objective: hence hardly a call."""
        takes, floor, most = course.takes, course.floor, max(course.floor, self.scaling.max)
        shares, last, offset = self.shares, len(self.shares) - 1, 0.5 - _PARTS * self.least
        ceil, log, parts = math.ceil, math.log, _PARTS / _LOG_STEP
        full = takes * STEP**_OVER
        cost = met = came = backlog = 0.0
        for work, held, ready in zip(self.past.work, self.past.held, self.past.ready, strict=True):
            count = ceil(held / takes - TOLERANCE)
            cost += floor if count < floor else most if count > most else count
            if work <= 0.0:
                backlog = 0.0
                continue
            count = ceil(ready / takes - TOLERANCE)
            count = floor if count < floor else most if count > most else count
            part = int(log((work + backlog) / count) * parts + offset)
            came += work
            if part <= last:
                met += work * shares[part if part > 0 else 0]
            backlog += work - count * full
            if backlog < 0.0:
                backlog = 0.0
        return _Outcome(course, cost / len(self.past.work), met / came if came else 1.0)
