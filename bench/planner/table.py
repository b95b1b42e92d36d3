"""The table: workloads by ways, with the middle and the worst of the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.planner.run import Run

from modelgrid.simulation.figures import Figures

OURS = "modelgrid"
RIVALS = {"first-come/lru": ("first-come", "lru"), "llama-swap": ("llama-swap",)}  # whom verdicts tell apart
_TIE_S = 0.2  # a lap
_TIE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a run."""

    title: str
    value: Callable[[Run], float]
    decimals: int
    is_better_high: bool


COLUMNS = (
    Column("goodput/s", lambda run: run.all.goodput, 3, True),
    Column("done/s", lambda run: run.all.completed_rate, 3, True),
    Column("wait p50", lambda run: run.all.waited_s[0], 1, False),
    Column("wait p95", lambda run: run.all.waited_s[1], 1, False),
    Column("ttft p50", lambda run: run.all.ttft_s[0], 1, False),
    Column("ttft p95", lambda run: run.all.ttft_s[1], 1, False),
    Column("starts", lambda run: float(run.usage.starts), 0, False),
)
_COMPARED = ("goodput/s", "wait p50", "wait p95")


def drawn_table(runs: Sequence[Run], told: dict[str, str]) -> str:
    """All runs: for each workload and way the median over the seeds; for goodput the worst as well."""
    rows = [("", *(column.title for column in COLUMNS), "worst", "goodput x")]
    for workload in dict.fromkeys(run.workload for run in runs):
        own = [run for run in runs if run.workload == workload]
        rows.append((f"{workload}: {told[workload]}", *[""] * (len(COLUMNS) + 2)))
        for way in dict.fromkeys(run.way for run in own):
            rows.append(_row(f"  {way}", [run for run in own if run.way == way], _of(own, OURS)))
            theirs = _of(own, way)
            rows += [_class_row(f"    {name}", [run.classes[name] for run in theirs]) for name in theirs[0].classes]
    widths = [max(len(row[index]) for row in rows if index or row[1]) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines) + "\n"


def verdicts(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Where modelgrid is behind, by rivals and seed by seed; nothing where it is ahead or level on all."""
    return {rival: [line for way in ways for line in _behind(runs, way)] for rival, ways in RIVALS.items()}


def _behind(runs: Sequence[Run], way: str) -> Iterator[str]:
    by_key = {(run.workload, run.way, run.seed): run for run in runs}
    for run in _of(runs, way):
        ours = by_key.get((run.workload, OURS, run.seed))
        for column in COLUMNS:
            if (
                ours is not None
                and column.title in _COMPARED
                and is_behind(column, column.value(ours), column.value(run))
            ):
                mine, theirs = column.value(ours), column.value(run)
                yield f"{run.workload}, seed {run.seed}: {column.title} {mine:.3f}, {way} has {theirs:.3f}"


def median(runs: Sequence[Run], column: Column) -> float:
    """The middle of the seeds."""
    return statistics.median(column.value(run) for run in runs)


def _of(runs: Sequence[Run], way: str) -> list[Run]:
    return [run for run in runs if run.way == way]


def _row(label: str, runs: Sequence[Run], ours: Sequence[Run]) -> tuple[str, ...]:
    goodput = COLUMNS[0]
    theirs = median(runs, goodput)
    is_other = bool(ours) and runs[0].way != OURS
    ratio = median(ours, goodput) / theirs if is_other and theirs else None
    return (
        label,
        *(f"{median(runs, column):,.{column.decimals}f}" for column in COLUMNS),
        f"{min(goodput.value(run) for run in runs):.3f}",
        "" if ratio is None else f"{ratio:.2f}",
    )


def _class_row(label: str, classes: Sequence[Figures]) -> tuple[str, ...]:
    def middle(value: Callable[[Figures], float]) -> float:
        return statistics.median(value(figures) for figures in classes)

    return (
        label,
        f"{middle(lambda each: each.goodput):.3f}",
        f"{middle(lambda each: each.completed_rate):.3f}",
        f"{middle(lambda each: each.waited_s[0]):.1f}",
        f"{middle(lambda each: each.waited_s[1]):.1f}",
        f"{middle(lambda each: each.ttft_s[0]):.1f}",
        f"{middle(lambda each: each.ttft_s[1]):.1f}",
        "",
        f"{min(each.goodput for each in classes):.3f}",
        "",
    )


def is_behind(column: Column, ours: float, theirs: float) -> bool:
    """By more than one in a hundred, and where it is time by more than a lap."""
    if column.is_better_high:
        return ours < theirs * (1 - _TIE_SHARE)
    return ours > theirs + max(_TIE_S, theirs * _TIE_SHARE)
