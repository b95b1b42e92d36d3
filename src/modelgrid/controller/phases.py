"""The phases of a start, or of a waking, timed: what the log, the status and the benchmarks show of it."""

from __future__ import annotations

from dataclasses import dataclass, field

PHASES = ("queued", "weights", "environment", "spawn", "load", "first_request", "wake")


@dataclass(slots=True)
class Phases:
    """When each phase of one start began. `queued` began when the first request for it came."""

    begun: dict[str, float] = field(default_factory=dict)
    detail: str = ""
    ended: float | None = None

    def enter(self, phase: str, now: float, detail: str = "") -> None:
        """The phase that goes on now; telling it again changes only the detail."""
        self.begun.setdefault(phase, now)
        self.detail = f"{phase}: {detail}" if detail else phase

    def end(self, now: float) -> None:
        """The start is over."""
        self.ended = now
        self.detail = ""

    def seconds(self, now: float) -> dict[str, float]:
        """How long each phase took, the last one until `now` where it still goes on."""
        order = sorted(self.begun, key=lambda phase: (self.begun[phase], PHASES.index(phase)))
        ends = [self.begun[phase] for phase in order[1:]] + [now if self.ended is None else self.ended]
        return {phase: max(0.0, end - self.begun[phase]) for phase, end in zip(order, ends, strict=True)}
