"""Measures a service beside the bare library: in rounds, each of all ways, so that what else the machine does falls
on all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from bench.services import callers
from bench.services.programs import KEY, bare, make_environment, service
from bench.services.subjects import Subject

CALLERS = 16
_WARM_S = 1.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Units a second, each the median of the rounds."""

    name: str
    bare_one: float  # the library, one after the other
    bare_batch: float  # the library, in batches
    one_caller: float  # the service
    many_callers: float

    @property
    def overhead(self) -> float:
        """What a lone caller gets of what the library alone makes, one after the other."""
        return self.one_caller / self.bare_one

    @property
    def gain(self) -> float:
        """What many callers get together, as a multiple of what one gets."""
        return self.many_callers / self.one_caller

    @property
    def share(self) -> float:
        """What many callers get of what the library alone makes in batches."""
        return self.many_callers / self.bare_batch


def run(name: str, subject: Subject, rounds: int, seconds: float, tell: Callable[[str], None]) -> Measured:
    """Measure one of them."""
    tell(f"{name}: its environment")
    launch, python = make_environment(subject)
    tell(f"{name}: starting")
    with service(launch, python) as port, bare(subject, python) as library:

        def asked(many: int, for_s: float) -> float:
            return callers.rate(port, KEY, subject.path, subject.body, many, for_s)

        asked(CALLERS, _WARM_S)
        figures: list[tuple[float, float, float, float]] = []
        for number in range(rounds):
            tell(f"{name}: round {number + 1} of {rounds}")
            alone = library.rate(1, seconds), library.rate(subject.batch, seconds)
            figures.append((*alone, asked(1, seconds), asked(CALLERS, seconds)))
    return Measured(name, *(statistics.median(column) for column in zip(*figures, strict=True)))
