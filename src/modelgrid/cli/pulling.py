"""The progress of a pull: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from modelgrid.cli import screen
from modelgrid.spec.units import format_bytes

if TYPE_CHECKING:
    from rich.console import Console

    from modelgrid.weights import Content, Progress

_LINE_EVERY_S = 5.0
_LEAP_BYTES = 4 << 20  # more than comes at once


@contextmanager
def pulling(source: str) -> Iterator[Callable[[Progress], None]]:
    """Show what is reported to the yielded function, on standard error."""
    out = screen.console(stderr=True)
    if out.is_terminal:
        with _bar(source, out) as on_progress:
            yield on_progress
    else:
        yield _lines(source)


def describe(content: Content) -> str:
    """What lies at a path, in a line."""
    found = content.weights
    told = [f"{format_bytes(content.size_bytes)} of {content.format} weights"]
    if found.count and found.dtype:
        told.append(f"{_count(found.count)} parameters, {found.dtype}")
    if found.shape and found.shape.longest:
        told.append(f"up to {found.shape.longest:,} tokens")
    return f"{content.path} needs no pull: it has {', '.join(told)}"


def _count(parameters: int) -> str:
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if parameters >= size:
            return f"{parameters / size:.1f} {word}"
    return f"{parameters:,}"


@contextmanager
def _bar(source: str, out: Console) -> Iterator[Callable[[Progress], None]]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[file]}", style="dim", markup=False),
    )
    with Bars(*columns, console=out, transient=True) as bars:
        task = bars.add_task(source, total=None, file="asking for it")

        done_bytes = 0

        def on_progress(progress: Progress) -> None:
            nonlocal done_bytes
            file = screen.text(progress.file).plain
            # What was here before says nothing of the speed: it is measured from there on.
            move = bars.reset if progress.done_bytes - done_bytes > _LEAP_BYTES else bars.update
            move(task, completed=progress.done_bytes, total=progress.total_bytes or None, file=file)
            done_bytes = progress.done_bytes

        yield on_progress


def _lines(source: str) -> Callable[[Progress], None]:
    last = 0.0

    def on_progress(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last < _LINE_EVERY_S:
            return
        last = time.monotonic()
        click.echo(f"{source}: {progress}", err=True)

    return on_progress
