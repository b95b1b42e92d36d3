"""How often something comes: an average that fades, and the chance that it goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass

FADE_S = 30.0  # what came so long ago counts for a third of what comes now


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second, as of the last that came `at`, in seconds since the epoch."""

    per_s: float = 0.0
    at: float = 0.0

    def counted(self, came: int, now: float) -> Rate:
        """The rate once `came` more have come."""
        return Rate(self.faded(now) + came / FADE_S, now)  # a clock that was put back must not keep it from fading

    def faded(self, now: float) -> float:
        """The average now."""
        return self.per_s * math.exp(-max(0.0, now - self.at) / FADE_S)

    def expected(self, now: float) -> float:
        """How many a second are still to be expected: the longer a pause beside what is usual, the likelier it is
        that nobody comes any more."""
        others = self.per_s - 1 / FADE_S  # the last one alone says nothing of a next one
        pause_s = max(0.0, now - self.at)
        return others * math.exp(-pause_s / FADE_S - self.per_s * pause_s) if others > 0 else 0.0
