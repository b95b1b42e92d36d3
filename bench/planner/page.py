"""The reference page of the planner's figures, from what was kept: ``python -m bench.planner.page``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
RESULTS = _ROOT / "bench" / "results"
PAGE = _ROOT / "docs" / "reference" / "planner-benchmarks.md"

_FIGURES = ("goodput/s", "wait p50", "wait p95")


def page() -> str:
    """The page as it should be."""
    planner, laps = _newest("planner"), _newest("laps")
    return "\n".join([*_head(planner), *_ways(planner), *_loads(planner), *_real(planner), *_laps(laps), ""])


def _head(record: dict[str, Any]) -> Iterator[str]:
    yield "<!-- made by bench/planner/page.py -->"
    yield ""
    yield "# What the planner is worth"
    yield ""
    yield "Figures of [who gets memory](../explanation/who-gets-memory.md), and of how long deciding takes."
    yield "Those of [autoscaling](../explanation/autoscaling.md#does-it-help) are on its own page."
    yield ""
    yield "## Beside other ways"
    yield ""
    seeds = record["seeds"]
    told = f"the median of seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]} only"
    yield f'`make bench-planner ARGS="--real --keep"`, {record["date"][:10]}: the same machines, requests and'
    yield f"costs in virtual time, {told}. Goodput is answers"
    yield "within a deadline of 60 s (batch work 240 s, beside a large model 120 s); callers leave after 300 s;"
    yield "waiting is in seconds, of those who leave too. A model loads in 15 s (large ones in up to 35 s), and a"
    yield "token takes 25 ms and more."
    yield ""
    yield "- **first-come**: one queue; the model of its head is loaded, others are swapped out once they are done."
    yield "- **lru**: Ollama's scheduler: what is loaded goes straight, what isn't evicts the least recently used idle"
    yield "  one, one after the other."
    yield "- **llama-swap**: its scheduler of August 2026: a model is never stopped while it is busy, so one that is"
    yield "  never idle is never stopped (workload busy)."
    yield ""


def _ways(record: dict[str, Any]) -> Iterator[str]:
    ways = list(next(iter(record["medians"].values())))
    yield "![What the planner is worth](../images/planner.svg)"
    yield ""
    yield "| | figure | " + " | ".join(ways) + " |"
    yield "| --- | --- |" + " ---: |" * len(ways)
    for name, told in record["workloads"].items():
        for number, figure in enumerate(_FIGURES):
            label = f"**{name}**: {told}" if number == 0 else ""
            values = [f"{record['medians'][name][way][figure]:,.{3 if number == 0 else 1}f}" for way in ways]
            yield f"| {label} | {figure} | " + " | ".join(values) + " |"
        for kind, by_way in record["classes"].get(name, {}).items():
            yield f"| | wait p95, {kind} | " + " | ".join(f"{by_way[way]:,.1f}" for way in ways) + " |"
    yield ""
    yield from _behind(record)


def _behind(record: dict[str, Any]) -> Iterator[str]:
    yield "Where modelgrid is behind, seed by seed, in goodput or in waiting (the median, the 95th percentile; of all"
    yield "classes together); what differs by less than a lap (0.2 s) or 1 % is level:"
    yield ""
    for rival, lines in record["behind"].items():
        count = len(record["workloads"]) * len(record["seeds"]) * len(_FIGURES) * len(rival.split("/"))
        where = Counter(line.partition(",")[0] for line in lines)
        named = ": " + ", ".join(f"{name} {often}" for name, often in where.items()) if where else ""
        yield f"- behind {rival} in {len(lines)} of {count} comparisons{named}"
    yield ""


def _loads(record: dict[str, Any]) -> Iterator[str]:
    yield "At full load first-come and LRU have long collapsed. So the same with fewer requests; the fewer, the less"
    yield "there is between the ways:"
    yield ""
    for name, by_load in record["loads"].items():
        ways = list(next(iter(by_load.values())))
        yield f"| {name}, share of the requests | figure | " + " | ".join(ways) + " |"
        yield "| --- | --- |" + " ---: |" * len(ways)
        for load, by_way in by_load.items():
            for number, figure in enumerate(("goodput/s", "wait p95")):
                values = [f"{by_way[way][figure]:,.{3 if number == 0 else 1}f}" for way in ways]
                yield f"| {load if number == 0 else ''} | {figure} | " + " | ".join(values) + " |"
        yield ""


def _real(record: dict[str, Any]) -> Iterator[str]:
    yield "The same in small with real engine processes (`python -m bench.planner --only-real`): two models in turn,"
    yield "room for one, requests answered in time a second, as measured and as the simulation says of that trace:"
    yield ""
    yield "| way | measured | simulated |"
    yield "| --- | ---: | ---: |"
    for run in record["real"]:
        yield f"| {run['way']} | {run['measured']['goodput']:.2f} | {run['simulated']['goodput']:.2f} |"
    yield ""


def _laps(record: list[dict[str, Any]]) -> Iterator[str]:
    yield "## What a lap takes"
    yield ""
    yield "`make bench-laps`: observe and plan over the whole fleet, CPU time on one core of an AMD EPYC, the least of"
    yield "seven laps. *calm*: nothing to do. *room*: a twentieth of the models is asked for and there is room. *full*:"
    yield "as many are asked for and others must make room."
    yield ""
    yield "| lap | models | machines | GPUs | replicas | asked for | starts | other actions | ms | µs / n log n |"
    yield "| --- |" + " ---: |" * 9
    for row in record:
        yield "| " + " | ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()) + " |"


def _newest(name: str) -> Any:
    path = max(RESULTS.glob(f"{name}-*.json"))
    return json.loads(path.read_text())


if __name__ == "__main__":
    PAGE.write_text(page())
