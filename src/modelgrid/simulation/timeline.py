"""What happened, in equal slices of time: what was loaded where, how many waited, how many served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from modelgrid.simulation.engine import Phase
from modelgrid.simulation.world import History, Span
from modelgrid.spec import ModelName
from modelgrid.spec.machine import MAIN, Machine


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


def devices(history: History, machines: Sequence[Machine]) -> list[tuple[str, str, int]]:
    """What is worth telling of, and its size: those that ever held anything, and main memory beside GPUs only where
    models sleep in it."""
    used = {
        (span.machine, share.device)
        for span in history.spans
        for share in span.shares
        if share.device != MAIN or span.phase is Phase.ASLEEP or len(span.shares) == 1
    }
    return [
        (machine.name, device.name, device.memory_bytes)
        for machine in machines
        for device in machine.devices
        if (machine.name, device.name) in used
    ]


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
    """The most that waited at once, in each slice, by model. Who is sent in the moment of coming does not wait; models
    for which nobody ever waited are not there."""
    width_s = history.end / slices if history.end else 1.0
    changes: dict[ModelName, list[tuple[float, int]]] = {}
    for at, model, count in history.waiting:
        changes.setdefault(model, []).append((at, count))
    found: dict[ModelName, tuple[int, ...]] = {}
    for model, own in changes.items():
        counts = [0] * slices
        for (start, count), (end, _) in pairwise([*own, (history.end, 0)]):
            if count and end > start:
                for index in range(int(start / width_s), min(slices - 1, int(end / width_s)) + 1):
                    counts[index] = max(counts[index], count)
        if any(counts):
            found[model] = tuple(counts)
    return found


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
