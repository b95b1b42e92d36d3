"""Requests that wait for a replica of their model: a bounded line each, and the demand that they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from modelgrid.spec import Demand


class Waiter(Protocol):
    """A request that waits."""

    def proceed(self) -> None:
        """Leave the line and try again, or be answered: the table has something for your model."""
        ...


class Waiting:
    """The lines, one a model, each in order of arrival. `tell` gets a Demand when a line begins and when it ends."""

    def __init__(self, tell: Callable[[Demand], None]) -> None:
        self._tell = tell
        self._lines: dict[str, dict[Waiter, float]] = {}

    def count(self, model: str) -> int:
        """How many wait for `model`."""
        return len(self._lines.get(model, ()))

    def join(self, model: str, waiter: Waiter, now: float) -> None:
        """Wait for `model`."""
        line = self._lines.setdefault(model, {})
        line[waiter] = now
        if len(line) == 1:
            self._tell(Demand(model=model, waiting=1, oldest_s=0.0))

    def leave(self, model: str, waiter: Waiter) -> float:
        """Wait no longer; answers since when the waiter did."""
        line = self._lines[model]
        since = line.pop(waiter)
        if not line:
            del self._lines[model]
            self._tell(Demand(model=model, waiting=0, oldest_s=0.0))
        return since

    def resume(self, is_served: Callable[[str], bool]) -> None:
        """Wake those whose model `is_served` now: by a replica, or by an answer that says why not."""
        for model, line in list(self._lines.items()):
            if is_served(model):
                for waiter in list(line):
                    if waiter in line:
                        waiter.proceed()

    def demands(self, now: float) -> list[Demand]:
        """The demand as it is now."""
        return [
            Demand(model=model, waiting=len(line), oldest_s=max(0.0, now - min(line.values())))
            for model, line in self._lines.items()
        ]
