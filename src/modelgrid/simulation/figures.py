"""What a simulation came to: waiting by percentile, objectives, goodput, swaps, GPU-hours, cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelgrid.simulation.engine import Phase
from modelgrid.simulation.request import Call
from modelgrid.simulation.world import History, Span
from modelgrid.spec import ModelName
from modelgrid.spec.machine import MAIN, Machine

PERCENTILES = (50.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one model, of one class of requests, or of all. Times are seconds; percentiles are of
    `PERCENTILES`."""

    requests: int
    completed: int
    in_time: int  # answered whole by their deadline
    refused: int
    left: int  # their callers went away
    waited_s: tuple[float, ...]  # until a replica took them, or their callers left
    ttft_s: tuple[float, ...]  # of those who had a token
    attained: float | None  # the share that had its first token within the objective; None: there is none
    completed_rate: float  # a second
    goodput: float  # requests answered in time, a second


@dataclass(frozen=True, slots=True)
class Usage:
    """What it took of the machines."""

    starts: int
    ends: int  # of engines, before the end
    wakes: int
    gpu_hours: float  # memory that was held, as shares of GPUs
    loading_gpu_hours: float  # of them, while nothing could be served
    cost: float | None  # of the machines for the whole time; None: nobody said what they cost


def figures(
    calls: Iterable[Call], duration_s: float, objectives: Mapping[ModelName, float | None] | None = None
) -> Figures:
    """The figures of `calls`. `objectives`: by when the first token should come, by model."""
    own = list(calls)
    waited = sorted(seconds for call in own if (seconds := call.waited_s) is not None)
    ttft = sorted(seconds for call in own if (seconds := call.ttft_s) is not None)
    completed = sum(call.done is not None for call in own)
    in_time = sum(call.is_in_time for call in own)
    return Figures(
        requests=len(own),
        completed=completed,
        in_time=in_time,
        refused=sum(bool(call.refused) for call in own),
        left=sum(call.left is not None and not call.refused for call in own),
        waited_s=tuple(percentile(waited, each) for each in PERCENTILES),
        ttft_s=tuple(percentile(ttft, each) for each in PERCENTILES),
        attained=_attained(own, objectives or {}),
        completed_rate=completed / duration_s if duration_s else 0.0,
        goodput=in_time / duration_s if duration_s else 0.0,
    )


def usage(history: History, machines: Sequence[Machine], prices: Mapping[str, float]) -> Usage:
    """What it took. `prices` are of machines, an hour; those without one make the cost unknown."""
    sizes = {(machine.name, device.name): device.memory_bytes for machine in machines for device in machine.devices}
    hours = history.end / 3600
    cost = sum(prices[m.name] * hours for m in machines) if all(m.name in prices for m in machines) else None
    return Usage(
        starts=history.starts,
        ends=sum(span.phase is Phase.ENDING for span in history.spans),
        wakes=history.wakes,
        gpu_hours=_gpu_hours(history.spans, sizes),
        loading_gpu_hours=_gpu_hours((span for span in history.spans if span.phase is not Phase.READY), sizes),
        cost=cost,
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """By the nearest rank: a value that was seen. Not a number where there are none."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def by(calls: Iterable[Call], key: Callable[[Call], str]) -> dict[str, list[Call]]:
    """`calls` in groups."""
    groups: dict[str, list[Call]] = {}
    for call in calls:
        groups.setdefault(key(call), []).append(call)
    return groups


def _attained(calls: Sequence[Call], objectives: Mapping[ModelName, float | None]) -> float | None:
    counted = [(call.ttft_s, limit) for call in calls if (limit := objectives.get(call.model)) is not None]
    if not counted:
        return None
    return sum(seconds is not None and seconds <= limit for seconds, limit in counted) / len(counted)


def _gpu_hours(spans: Iterable[Span], sizes: Mapping[tuple[str, str], int]) -> float:
    """Where a machine has no GPU, its main memory counts as one."""
    with_gpu = {machine for machine, device in sizes if device != MAIN}
    total = 0.0
    for span in spans:
        for share in span.shares:
            if share.device != MAIN or span.machine not in with_gpu:
                total += (span.end - span.start) * share.memory_bytes / sizes[span.machine, share.device]
    return total / 3600
