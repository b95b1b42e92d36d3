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
_FEWEST_SLICES = 24
_MOST_MODELS = 24
_MOST_LANES = 24
_MOST_REASONS = 5
_LONGEST_NAME = 24
_LEVELS = " ▁▂▃▄▅▆▇█"
_FIGURES = ("REQUESTS", "GOODPUT/S", "DONE/S", "WAIT P50", "P95", "P99", "TTFT P50", "P95", "P99", "ATTAINED", "STARTS")
_ATTAINED = _FIGURES.index("ATTAINED")
_DISPENSABLE = tuple(_FIGURES.index(name) for name in ("DONE/S", "GOODPUT/S", "STARTS", "REQUESTS"))
_P99S = tuple(index for index, name in enumerate(_FIGURES) if name == "P99")
_CELLS = {
    Phase.READY: ("█", "green"),
    Phase.LOADING: ("░", "yellow"),
    Phase.WAKING: ("░", "yellow"),
    Phase.ENDING: ("·", "dim"),
    Phase.FALLING_ASLEEP: ("▁", "cyan"),
    Phase.ASLEEP: ("▁", "cyan"),
}


def shown(report: Report, columns: int | None) -> Iterator[RenderableType]:
    """The whole report, within so many columns; None: piped, as wide as it likes."""
    yield screen.text(report.title, "bold")
    yield screen.text(_outcome(report))
    yield screen.text(_usage(report))
    for why, count in report.refusals[:_MOST_REASONS]:
        yield screen.text(f"{count:,} turned away: {why}", "yellow")
    yield ""
    yield from _table(report, columns)
    if report.history.spans:
        yield ""
        yield from _over_time(report, columns)


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
    hours = "GPU-hours" if any(machine.gpus for machine in report.scenario.machines) else "machine-hours"
    parts = [_count(used.starts, "start"), _count(used.ends, "end")]
    if used.wakes:
        parts.append(_count(used.wakes, "wake"))
    held = f"{used.gpu_hours:.2f} {hours} of memory held, {used.loading_gpu_hours:.2f} of them not ready to serve"
    cost = f"; {used.cost:,.2f} for the machines" if used.cost is not None else ""
    return f"{', '.join(parts)}; {held}{cost}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _table(report: Report, columns: int | None) -> Iterator[RenderableType]:
    rows: list[tuple[str, ...]] = [("all", *_cells(report.all), str(report.usage.starts))]
    rows += [(f"priority {name}", *_cells(each), "") for name, each in report.priorities.items()]
    names = sorted(report.models, key=lambda name: -report.models[name].requests)[:_MOST_MODELS]
    rows += [
        (_name(name), *_cells(report.models[name]), str(report.swaps[name])) for name in report.models if name in names
    ]
    kept = _kept(rows, columns)
    head = ("MODEL", *(_FIGURES[index] for index in kept))
    cells = [(row[0], *(row[index + 1] for index in kept)) for row in rows]
    yield screen.table(head, cells, right=_FIGURES)
    if len(report.models) > len(names):
        yield screen.text(f"and {_count(len(report.models) - len(names), 'more model')} (--json tells all)", "dim")


def _kept(rows: Sequence[tuple[str, ...]], columns: int | None) -> list[int]:
    """Which figures are told: none that nobody has, and where room is short without those that are missed least."""
    kept = [index for index in range(len(_FIGURES)) if index != _ATTAINED or any(row[index + 1] != "-" for row in rows)]
    for gone in (*_P99S, *_DISPENSABLE):
        head = ("MODEL", *(_FIGURES[index] for index in kept))
        width = screen.width_of(head, [(row[0], *(row[index + 1] for index in kept)) for row in rows])
        if columns is None or width <= columns:
            break
        kept.remove(gone)
    return kept


def _name(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


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


def _over_time(report: Report, columns: int | None) -> Iterator[RenderableType]:
    """A line for each model on each device, and one for each queue."""
    history = report.history
    devices = {(machine, device) for machine, device, _ in timeline.devices(history, report.scenario.machines)}
    names = {_name(span.model) for span in history.spans}
    places = {f"{machine} {device}" for machine, device in devices}
    slices = _slices(columns, max(map(len, places | {"waiting"})), max(map(len, names)))
    every = [lane for lane in timeline.lanes(history, slices) if (lane.machine, lane.device) in devices]
    lanes = sorted(every, key=lambda lane: -lane.filled)[:_MOST_LANES]
    waiting = timeline.waiting(history, slices)
    rows: list[Sequence[str | Text]] = []
    before = ""
    for lane in sorted(lanes, key=lambda lane: (lane.machine, lane.device, lane.model)):
        place = f"{lane.machine} {lane.device}"
        rows.append((place if place != before else "", _name(lane.model), _phases(lane.phases), ""))
        before = place
    for index, name in enumerate(timeline.busiest(waiting, _MOST_LANES // 2)):
        levels = screen.text(_levels(waiting[name]))
        rows.append(("waiting" if index == 0 else "", _name(name), levels, str(max(waiting[name]))))
    cell = f"OVER TIME, {format_seconds(history.end / slices)} A CELL"
    yield screen.table(("WHERE", "MODEL", cell, "MOST"), rows, right=("MOST",))
    yield screen.text("█ ready  ░ loading  ▁ asleep  · ending", "dim")
    if len(every) > len(lanes):
        yield screen.text(f"{len(lanes)} of {len(every)} lines: those that held memory longest (--picture)", "dim")


def _slices(columns: int | None, place: int, name: int) -> int:
    """As many cells as there is room for beside the names."""
    room = _SLICES if columns is None else columns - max(place, 5) - max(name, 5) - 4 - 3 * 2
    return max(_FEWEST_SLICES, min(_SLICES, room))


def _phases(phases: Sequence[str]) -> Text:
    cells = [_CELLS[Phase(phase)] if phase else (" ", "") for phase in phases]
    return screen.joined(*(screen.text(cell, style) for cell, style in cells))


def _levels(counts: Sequence[int]) -> str:
    most = max(counts)
    return "".join(_LEVELS[math.ceil(count / most * (len(_LEVELS) - 1))] for count in counts)
