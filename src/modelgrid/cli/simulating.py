"""The progress of a simulation: a bar on a terminal, else nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modelgrid.cli import screen


@contextmanager
def simulating(count: int) -> Iterator[Callable[[int], None]]:
    """Show how many of `count` requests have come, as the yielded function is told, on standard error."""
    out = screen.console(stderr=True)
    if not out.is_terminal:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=out, transient=True) as bars:
        task = bars.add_task("simulating requests", total=count)
        yield lambda arrived: bars.update(task, completed=arrived)
