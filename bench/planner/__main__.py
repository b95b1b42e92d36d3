"""``make bench-planner``, or ``python -m bench.planner --help``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.planner.run import WAYS, Run, run
from bench.planner.table import drawn_table, verdicts
from bench.planner.workloads import Workload, workloads

if TYPE_CHECKING:
    from bench.planner.real import Real


def main() -> None:
    """Simulate, and print."""
    options = _options()
    real = _real(options) if options.real else []
    if options.only_real:
        return
    known = workloads(options.load)
    chosen = [_patient(known[name], options.patience) for name in _named(options.workload, list(known), "workload")]
    ways = _named(options.way, list(WAYS), "way")
    seeds = range(options.seed, options.seed + options.seeds)
    runs: list[Run] = []
    for workload in chosen:
        for way in ways:
            for seed in seeds:
                runs.append(run(workload, way, seed))
                sys.stderr.write(f"\r{workload.name}, {way}, seed {seed}: {runs[-1].wall_s:.1f} s \033[K")
    sys.stderr.write("\r\033[K")
    told = {workload.name: workload.told for workload in chosen}
    sys.stdout.write(drawn_table(runs, told))
    behind = verdicts(runs)
    for rival, lines in behind.items():
        sys.stdout.writelines(f"behind {rival}: {line}\n" for line in lines)
    if options.keep:
        from bench.planner.loads import sweep
        from bench.planner.publish import keep

        sys.stdout.write(f"kept in {keep(runs, told, behind, real, sweep(ways, seeds))}\n")


def _real(options: argparse.Namespace) -> list[Real]:
    from bench.planner.real import drawn, measure

    ways = _named(options.way, [name for name in WAYS if name != "llama-swap"], "way")

    def tell(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    found = measure(ways, tell)
    sys.stdout.write(drawn(found) + "\n")
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench-planner",
        description="modelgrid's planner beside the ways of others: the same world, cost model, traces and seeds.",
    )
    parser.add_argument("--workload", metavar="NAMES", help=f"of {', '.join(workloads())}")
    parser.add_argument("--way", metavar="NAMES", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--seeds", type=int, default=3, help="how many; the median counts (3)")
    parser.add_argument("--seed", type=int, default=1, help="the first of them (1)")
    parser.add_argument("--load", type=float, default=1.0, metavar="X", help="so many times the requests (1)")
    parser.add_argument("--real", action="store_true", help="first in small with real engines (under three minutes)")
    parser.add_argument("--only-real", action="store_true", help="nothing else")
    parser.add_argument("--keep", action="store_true", help="keep the figures, and draw them for the docs")
    parser.add_argument("--patience", type=float, metavar="S", help="callers leave after so long (300 s)")
    options = parser.parse_args()
    options.real = options.real or options.only_real
    return options


def _named(text: str | None, known: list[str], what: str) -> list[str]:
    names = text.split(",") if text else known
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"cannot run {what} {', '.join(unknown)}: known are {', '.join(known)}")
    return names


def _patient(workload: Workload, patience_s: float | None) -> Workload:
    """The same workload with callers who wait for so long."""
    if patience_s is None:
        return workload
    return replace(
        workload,
        trace=lambda seed: [replace(request, patience_s=patience_s) for request in workload.trace(seed)],
    )


main()
