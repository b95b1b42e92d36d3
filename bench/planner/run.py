"""One way on one workload with one seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.planner.ways import FirstCome, LlamaSwap, Lru
from bench.planner.workloads import Workload

from modelgrid.simulation.figures import Figures, Usage, by, figures, usage
from modelgrid.simulation.planned import Planned
from modelgrid.simulation.world import History, Way, World

WAYS: dict[str, Callable[[], Way]] = {
    "modelgrid": Planned,
    "first-come": FirstCome,
    "lru": Lru,
    "llama-swap": LlamaSwap,
}


@dataclass(frozen=True, slots=True)
class Run:
    """What one way came to."""

    workload: str
    way: str
    seed: int
    all: Figures
    classes: dict[str, Figures]
    usage: Usage
    wall_s: float


def run(workload: Workload, way: str, seed: int) -> Run:
    """Simulate, and take the figures."""
    began = time.perf_counter()
    history = simulate(workload, way, seed)
    wall_s = time.perf_counter() - began
    duration_s = history.calls[-1].request.at  # until the last arrival: the same for all ways
    kind = workload.classes
    groups = by(history.calls, lambda call: kind(call.request)) if kind else {}
    return Run(
        workload.name,
        way,
        seed,
        figures(history.calls, duration_s),
        {name: figures(calls, duration_s) for name, calls in sorted(groups.items())},
        usage(history, workload.machines, {}),
        wall_s,
    )


def simulate(workload: Workload, way: str, seed: int) -> History:
    """The history of one run."""
    return World(workload.machines, workload.models, WAYS[way]()).run(workload.trace(seed))
