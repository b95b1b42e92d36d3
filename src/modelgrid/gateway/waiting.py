"""Requests that wait for a replica of their model: a line each, in order of rank, and the demand that they make."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from itertools import count
from typing import Protocol

from modelgrid.spec import Demand


class Waiter(Protocol):
    """A request that waits."""

    def proceed(self) -> None:
        """Leave the line and try again, or be answered: the table has something for your model."""
        ...

    def reconsider(self) -> None:
        """The same if you are flexible, and another model can serve you."""
        ...

    def wait_out(self) -> None:
        """Leave the line and be answered: your time is over."""
        ...

    def give_way(self) -> None:
        """Leave the line and be answered: it is full, and who came was ahead of you."""
        ...


class Place:
    """One waiter's place in one line."""

    __slots__ = ("is_taken", "model", "order", "since", "waiter")

    def __init__(self, model: str, waiter: Waiter, order: tuple[float, int], since: float) -> None:
        self.model = model
        self.waiter = waiter
        self.order = order  # its rank, and its number among those of the same
        self.since = since
        self.is_taken = True  # it stands there

    def __repr__(self) -> str:
        return f"Place({self.model!r}, {self.order})"


class Waiting:
    """The lines, one a model; the lowest rank is first. `tell` gets a Demand when a line begins and when it ends."""

    def __init__(self, tell: Callable[[Demand], None]) -> None:
        self._tell = tell
        self._lines: dict[str, list[Place]] = {}
        self._numbers = count()

    def count(self, model: str) -> int:
        """How many wait for `model`."""
        line = self._lines.get(model)
        return 0 if line is None else len(line)

    def join(self, model: str, waiter: Waiter, rank: float, since: float) -> Place:
        """Wait for `model`. Who has waited before says since when, and isn't behind who came later."""
        place = Place(model, waiter, (rank, next(self._numbers)), since)
        line = self._lines.setdefault(model, [])
        insort(line, place, key=_order)
        if len(line) == 1:
            self._tell(Demand(model=model, waiting=1, oldest_s=0.0))
        return place

    def leave(self, place: Place) -> None:
        """Wait no longer."""
        place.is_taken = False
        line = self._lines[place.model]
        del line[bisect_left(line, place.order, key=_order)]
        if not line:
            del self._lines[place.model]
            self._tell(Demand(model=place.model, waiting=0, oldest_s=0.0))

    def last(self, model: str) -> Place | None:
        """The one that everybody else is ahead of."""
        line = self._lines.get(model)
        return line[-1] if line else None

    def lines(self) -> list[list[Place]]:
        """Those who wait now, model by model, each line in its order."""
        return [list(line) for line in self._lines.values()]

    def demands(self, now: float) -> list[Demand]:
        """The demand as it is now."""
        return [
            Demand(model=model, waiting=len(line), oldest_s=max(0.0, now - min(place.since for place in line)))
            for model, line in self._lines.items()
        ]


def _order(place: Place) -> tuple[float, int]:
    return place.order
