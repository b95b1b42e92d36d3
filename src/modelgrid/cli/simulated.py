"""What `modelgrid simulate` shows: figures as tables, and what happened over time as lines of cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from modelgrid.cli import screen
from modelgrid.simulation import timeline
from modelgrid.simulation.engine import Phase
from modelgrid.simulation.figures import Figures
from modelgrid.simulation.report import Report
from modelgrid.spec.units import format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_SLICES = 64
_MOST_MODELS = 24
_MOST_LANES = 24
_MOST_REASONS = 5
_LEVELS = " ▁▂▃▄▅▆▇█"
_FIGURES = ("REQUESTS", "GOODPUT/S", "DONE/S", "WAIT P50", "P95", "P99", "TTFT P50", "P95", "P99", "ATTAINED", "STARTS")
_CELLS = {
    Phase.READY: ("█", "green"),
    Phase.LOADING: ("░", "yellow"),
    Phase.WAKING: ("░", "yellow"),
    Phase.ENDING: ("·", "dim"),
    Phase.FALLING_ASLEEP: ("▁", "cyan"),
    Phase.ASLEEP: ("▁", "cyan"),
}


def shown(report: Report) -> Iterator[RenderableType]:
    """The whole report."""
    yield screen.text(report.title, "bold")
    yield screen.text(_outcome(report))
    yield screen.text(_usage(report))
    for why, count in report.refusals[:_MOST_REASONS]:
        yield screen.text(f"{count:,} turned away: {why}", "yellow")
    yield ""
    yield _table(report)
    yield ""
    yield from _over_time(report)


def _outcome(report: Report) -> str:
    every = report.all
    parts = [f"{every.in_time:,} answered in time", f"{every.completed - every.in_time:,} late"]
    if every.left:
        parts.append(f"{every.left:,} callers left")
    if every.refused:
        parts.append(f"{every.refused:,} turned away")
    return ", ".join(parts)


def _usage(report: Report) -> str:
    used = report.usage
    wakes = f", {used.wakes} wakes" if used.wakes else ""
    cost = f", {used.cost:,.2f} for the machines" if used.cost is not None else ""
    return (
        f"{used.starts} starts, {used.ends} evictions{wakes}; {used.gpu_hours:.2f} GPU-hours held, "
        f"{used.loading_gpu_hours:.2f} of them not serving{cost}"
    )


def _table(report: Report) -> RenderableType:
    rows: list[Sequence[str | Text]] = [("all", *_cells(report.all), str(report.usage.starts))]
    rows += [(f"priority {name}", *_cells(each), "") for name, each in report.priorities.items()]
    names = sorted(report.models, key=lambda name: -report.models[name].requests)[:_MOST_MODELS]
    rows += [(name, *_cells(report.models[name]), str(report.swaps[name])) for name in report.models if name in names]
    return screen.table(("MODEL", *_FIGURES), rows, right=_FIGURES)


def _cells(each: Figures) -> tuple[str, ...]:
    return (
        f"{each.requests:,}",
        f"{each.goodput:.3f}",
        f"{each.completed_rate:.3f}",
        *(_time(seconds) for seconds in (*each.waited_s, *each.ttft_s)),
        "-" if each.attained is None else f"{each.attained:.1%}",
    )


def _time(seconds: float) -> str:
    return "-" if math.isnan(seconds) else format_seconds(seconds)


def _over_time(report: Report) -> Iterator[RenderableType]:
    """A line for each model on each device, and one for each queue."""
    history = report.history
    lanes = sorted(timeline.lanes(history, _SLICES), key=lambda lane: -lane.filled)[:_MOST_LANES]
    waiting = timeline.waiting(history, _SLICES)
    names = timeline.busiest(waiting, _MOST_LANES // 2)
    rows: list[Sequence[str | Text]] = []
    before = ""
    for lane in sorted(lanes, key=lambda lane: (lane.machine, lane.device, lane.model)):
        place = f"{lane.machine} {lane.device}"
        rows.append((place if place != before else "", lane.model, _phases(lane.phases)))
        before = place
    for index, name in enumerate(names):
        rows.append(("waiting" if index == 0 else "", name, f"{_levels(waiting[name])} {max(waiting[name])} at most"))
    slice_s = format_seconds(history.end / _SLICES)
    yield screen.table(("WHERE", "MODEL", f"OVER TIME, {slice_s} A CELL"), rows)
    yield screen.text("█ ready  ░ loading  ▁ asleep  · ending", "dim")


def _phases(phases: Sequence[str]) -> Text:
    cells = [_CELLS[Phase(phase)] if phase else (" ", "") for phase in phases]
    return screen.joined(*(screen.text(cell, style) for cell, style in cells))


def _levels(counts: Sequence[int]) -> str:
    most = max(counts)
    return "".join(_LEVELS[math.ceil(count / most * (len(_LEVELS) - 1))] for count in counts)
