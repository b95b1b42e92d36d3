"""What happened, in equal slices of time: what was loaded where, how many waited, how many served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelgrid.simulation.engine import Phase
from modelgrid.simulation.world import History, Span
from modelgrid.spec import ModelName


@dataclass(frozen=True, slots=True)
class Lane:
    """What one device held of one model, slice by slice: "" nothing, else the phase that lasted longest."""

    machine: str
    device: str
    model: ModelName
    phases: tuple[str, ...]

    @property
    def filled(self) -> int:
        """In how many slices there was anything."""
        return sum(bool(phase) for phase in self.phases)


def lanes(history: History, slices: int) -> list[Lane]:
    """A lane for each model on each device that ever held it."""
    width_s = history.end / slices if history.end else 1.0
    times: dict[tuple[str, str, ModelName], list[dict[Phase, float]]] = {}
    for span in history.spans:
        for share in span.shares:
            lane = times.setdefault((span.machine, share.device, span.model), [{} for _ in range(slices)])
            for index, overlap_s in _overlaps(span, width_s, slices):
                lane[index][span.phase] = lane[index].get(span.phase, 0.0) + overlap_s
    return [
        Lane(machine, device, model, tuple(_longest(slice_, width_s) for slice_ in lane))
        for (machine, device, model), lane in sorted(times.items())
    ]


def waiting(history: History, slices: int) -> Mapping[ModelName, tuple[int, ...]]:
    """The most that waited at once, in each slice, by model. Models for which nobody ever waited are not there."""
    width_s = history.end / slices if history.end else 1.0
    found: dict[ModelName, list[int]] = {}
    now: dict[ModelName, tuple[int, int]] = {}  # the slice up to which it is told, and the count since
    for at, model, count in history.waiting:
        index = min(slices - 1, int(at / width_s))
        counts = found.setdefault(model, [0] * slices)
        told, before = now.get(model, (0, 0))
        for each in range(told, index + 1):
            counts[each] = max(counts[each], before)
        counts[index] = max(counts[index], count)
        now[model] = (index, count)
    for model, (told, count) in now.items():
        for each in range(told, slices):
            found[model][each] = max(found[model][each], count)
    # A request that is sent at once waits for no time at all: one at a time is nobody.
    return {model: tuple(counts) for model, counts in found.items() if max(counts) > 1}


def replicas(history: History, slices: int) -> Mapping[ModelName, tuple[float, ...]]:
    """How many replicas were ready, on average, in each slice, by model."""
    width_s = history.end / slices if history.end else 1.0
    found: dict[ModelName, list[float]] = {}
    for span in history.spans:
        if span.phase is Phase.READY:
            counts = found.setdefault(span.model, [0.0] * slices)
            for index, overlap_s in _overlaps(span, width_s, slices):
                counts[index] += overlap_s / width_s
    return {model: tuple(counts) for model, counts in found.items()}


def busiest(groups: Mapping[ModelName, Sequence[float]], most: int) -> list[ModelName]:
    """Those with the largest sums, in order of their names."""
    largest = sorted(groups, key=lambda model: (-sum(groups[model]), model))[:most]
    return sorted(largest)


def _overlaps(span: Span, width_s: float, slices: int) -> Iterable[tuple[int, float]]:
    first, last = int(span.start / width_s), min(slices - 1, int(span.end / width_s))
    for index in range(first, last + 1):
        overlap_s = min(span.end, (index + 1) * width_s) - max(span.start, index * width_s)
        if overlap_s > 0:
            yield index, overlap_s


def _longest(phases: Mapping[Phase, float], width_s: float) -> str:
    """The phase that took the most of a slice; "" where nothing took half of it."""
    if not phases or sum(phases.values()) < width_s / 2:
        return ""
    return max(phases, key=lambda phase: (phases[phase], phase)).value
