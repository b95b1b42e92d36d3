"""From a load that every way carries to one that only some do: the same workload with fewer requests."""

from __future__ import annotations

from collections.abc import Sequence

from bench.planner.run import run
from bench.planner.table import COLUMNS, median
from bench.planner.workloads import workloads

LOADS = (0.05, 0.1, 0.2, 0.5, 1.0)
SWEPT = ("turns", "zipf")


def sweep(
    ways: Sequence[str], seeds: Sequence[int], *, loads: Sequence[float] = LOADS, swept: Sequence[str] = SWEPT
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Medians over the seeds: by workload, by load, by way."""
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for load in loads:
        known = workloads(load)
        for name in swept:
            for way in ways:
                runs = [run(known[name], way, seed) for seed in seeds]
                medians = {column.title: round(median(runs, column), 3) for column in COLUMNS}
                found.setdefault(name, {}).setdefault(f"{load:g}", {})[way] = medians
    return found
