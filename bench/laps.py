"""How long a lap of the controller's deciding takes: `python -m bench.laps`.

A fleet of machines with eight GPUs, full of replicas of many models; in each lap everything is observed anew and
planned. Three kinds of laps: nothing to do; requests wait and there is room; requests wait and others must make room.
The time is the CPU time of this process, the least of several laps.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from modelgrid.planner import Facts, observe, plan
from modelgrid.spec import (
    MAIN,
    Device,
    Fleet,
    Machine,
    Model,
    ModelName,
    ModelSpec,
    Need,
    Rate,
    Replica,
    ReplicaId,
    Running,
    Scaling,
    Seen,
    Share,
    Start,
    State,
)

GIB = 1 << 30
RESULTS = Path(__file__).parent / "results"
NOW = 1_000_000.0
LAPS = 7
FULL = (1000, 200, 5000)  # models, machines of 8 GPUs, replicas
PARTS = (0.125, 0.25, 0.5, 1.0, 2.0)


def fleet(models: int, machines: int, replicas: int, *, waiting: int, is_full: bool) -> Fleet:
    """A fleet where `waiting` models have no replica and are asked for. `is_full`: no GPU has room for another one."""
    dice = random.Random(1)
    gpu = 80 * GIB
    places = tuple(
        Machine(
            (Device(MAIN, 1000 * GIB, 1000 * GIB), *(Device(f"gpu{n}", gpu, gpu, n) for n in range(8))),
            name=f"machine-{number}",
            accelerator="cuda",
        )
        for number in range(machines)
    )
    specs = [
        ModelSpec(ModelName(f"model-{number}"), "vllm", source="a/b", scaling=Scaling(max=50, target=16))
        for number in range(models)
    ]
    running = specs[waiting:]
    each = math.ceil(replicas / (machines * 8))
    size = gpu // (each - 1) if is_full else gpu // (each + 1)  # where there is one less, all of the GPU is taken
    found: list[Replica] = []
    for number in range(replicas):
        spec = running[number % len(running)]
        at = number % (machines * 8)
        found.append(
            Replica(
                ReplicaId(f"{spec.name}-{number}"),
                spec.name,
                spec.revision,
                State.READY,
                (Share(f"gpu{at % 8}", gpu // (replicas // (machines * 8) + (at < replicas % (machines * 8)))),)
                if is_full
                else (Share(f"gpu{at % 8}", size),),
                since=NOW - 500,
                created=NOW - 560,
                why="requests waited for it",
                machine=f"machine-{at // 8}",
                spawned=NOW - 550,
                ready_at=NOW - 500,
                last_used=NOW - dice.uniform(0, 300),
            )
        )
    known = tuple(
        Model(
            spec,
            Need(size, main_bytes=2 * GIB),
            waiting=20 if number < waiting else 0,
            waiting_since=NOW - dice.uniform(6, 60) if number < waiting else None,
            last_used=NOW - dice.uniform(0, 300),
            rate=Rate(dice.random(), NOW - dice.uniform(0, 60)),
            load_s=40.0,
        )
        for number, spec in enumerate(specs)
    )
    return Fleet(NOW, places, known, tuple(found), replicas + 1)


def facts(given: Fleet) -> Facts:
    """Everything is there, and every fifth replica is busy."""
    seen = {
        replica.id: Seen(
            replica.id, replica.model, replica.revision, Running("http://x/v1", "http://x", 40 * GIB), replica.machine
        )
        for replica in given.replicas
    }
    in_flight = {replica.id: 3 if number % 5 == 0 else 0 for number, replica in enumerate(given.replicas)}
    return Facts(NOW + 1, seen=seen, in_flight=in_flight)


def lap_ms(given: Fleet, told: Facts) -> tuple[float, int, int]:
    """CPU milliseconds of one observe and plan, the starts that it ordered, and its other actions."""
    given = replace(given, replicas=observe(given, replace(told, now=NOW)).replicas)  # as the lap before left them
    best, starts, others = math.inf, 0, 0
    for _ in range(LAPS):
        begun = time.process_time()
        lap = observe(given, told)
        actions = plan(replace(given, now=told.now, replicas=lap.replicas))
        best = min(best, time.process_time() - begun)
        starts = sum(isinstance(action, Start) for action in actions)
        others = len(actions) - starts
    return best * 1000, starts, others


def rows() -> Iterator[dict[str, float | str]]:
    """One row for each size and kind of lap."""
    for part in PARTS:
        models, machines, replicas = (int(count * part) for count in FULL)
        waiting = max(1, models // 20)
        for kind, asked, is_full in (("calm", 0, True), ("room", waiting, False), ("full", waiting, True)):
            given = fleet(models, machines, replicas, waiting=asked, is_full=is_full)
            spent, starts, others = lap_ms(given, facts(given))
            n = models + machines * 8 + replicas
            yield {
                "kind": kind,
                "models": models,
                "machines": machines,
                "gpus": machines * 8,
                "replicas": replicas,
                "waiting": asked,
                "starts": starts,
                "others": others,
                "ms": round(spent, 1),
                "us_per_n_log_n": round(1000 * spent / (n * math.log2(n)), 4),
            }


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-laps", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep the figures for the docs")
    options = parser.parse_args()
    found = []
    head = ("lap", "models", "machines", "GPUs", "replicas", "waiting", "starts", "others", "ms", "us / n log n")
    print("{:>5} {:>7} {:>9} {:>6} {:>9} {:>8} {:>7} {:>7} {:>8} {:>13}".format(*head))
    for row in rows():
        found.append(row)
        print("{:>5} {:>7} {:>9} {:>6} {:>9} {:>8} {:>7} {:>7} {:>8} {:>13}".format(*row.values()))
    if options.keep:
        path = RESULTS / f"laps-{datetime.now():%Y-%m-%d}.json"
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"kept in {path}")


if __name__ == "__main__":
    main()
