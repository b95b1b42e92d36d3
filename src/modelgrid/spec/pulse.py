"""The pulse of a model: what its traffic was lately, and what was learned from it. Scaling steers by it."""

from __future__ import annotations

from dataclasses import dataclass

BEAT_S = 5.0  # traffic is counted in pieces of so long
BEATS = 120  # so many are kept: ten minutes
PIECE_S = 10.0  # how much there was to do is kept for longer, in pieces of so long
PIECES = 360  # so many: an hour


@dataclass(frozen=True, slots=True)
class Beat:
    """A piece of time: the `number`-th since the epoch. Work is tokens, or requests where nobody tells tokens."""

    number: int
    arrived: int = 0  # requests
    work: float = 0.0  # that arrives a second, at most
    ongoing: float = 0.0  # requests that wait or are served, at most
    level: int | None = None  # how much work for each ready replica; None: nothing can be learned from it


@dataclass(frozen=True, slots=True)
class Level:
    """What was seen while each replica had so much to do. Counts fade, so they are no whole numbers."""

    number: int  # the work a second for each replica, as a power of `planner.capacity.STEP`
    seen: float  # requests
    met: float  # of them: the first token came within the objective


@dataclass(frozen=True, slots=True)
class Course:
    """A way to scale: one replica for so much work, at least so many of them, and a peak is held for so long."""

    takes: float  # work a second
    floor: int
    hold_s: float


@dataclass(frozen=True, slots=True)
class Pulse:
    """What is known of a model's traffic, made by `planner.pulse.fold`. Times are seconds since the epoch."""

    at: float = 0.0  # of the last fold; 0: nothing was told yet
    beats: tuple[Beat, ...] = ()  # without gaps, the oldest first; the last one isn't over. None: it has been quiet
    arrivals: float = 0.0  # requests a second, lately
    work: float = 0.0  # that arrives a second
    ongoing: float = 0.0  # requests that wait or are served, smoothed
    ended: float = 0.0  # requests, and
    tokens: float = 0.0  # what they took: both fade
    came: float = 0.0  # requests, and
    busy_s: float = 0.0  # the time that requests were ongoing: both fade
    cold_at: float = 0.0  # when a request last waited for want of a replica
    levels: tuple[Level, ...] = ()  # by number
    seen: float = 0.0  # requests, over all levels, and
    met: float = 0.0  # those whose first token came within the objective: both fade
    learned_at: float = 0.0
    past: tuple[float, ...] = ()  # the work a second in each piece of the last hour, the oldest first
    course: Course | None = None  # how to scale for the objective; None: not learned
    chosen: int = 0  # the beat in which that was tried last
    full: int | None = None  # the level from which most first tokens are late

    @property
    def work_per_request(self) -> float:
        """Tokens, where they are told."""
        return max(1.0, self.tokens / self.ended) if self.ended else 1.0

    @property
    def request_s(self) -> float:
        """How long a request is ongoing."""
        return self.busy_s / self.came if self.came else 0.0

    @property
    def attained(self) -> float | None:
        """The share of requests whose first token came within the objective."""
        return self.met / self.seen if self.seen else None
