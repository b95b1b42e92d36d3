"""How things look: aligned tables and times, in colour on a terminal, plain where the output is piped."""

from __future__ import annotations

import io
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from modelgrid.spec.units import format_seconds

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_PIPED_COLUMNS = 100_000  # nothing is wrapped or cut where the output is piped

# States stand out by what a reader should do: nothing (green), wait (yellow), look (red).
_STYLES = {
    "ready": "green",
    "starting": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "asleep": "cyan",
    "cold": "dim",
    "failed": "red",
    "unavailable": "red",
    "revoked": "dim",
    "expired": "red",
}


def console(*, stderr: bool = False) -> Console:
    """Standard output or error. rich follows NO_COLOR and knows whether it is a terminal."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def show(*parts: RenderableType) -> None:
    """Print `parts`, one below the other."""
    from rich.console import Console

    out = console()
    if out.is_terminal:
        for part in parts:
            out.print(part)
        return
    buffer = io.StringIO()
    plain = Console(file=buffer, width=_PIPED_COLUMNS, color_system=None, highlight=False, markup=False, emoji=False)
    for part in parts:
        plain.print(part)
    for line in buffer.getvalue().splitlines():
        click.echo(line.rstrip())


def show_json(value: object) -> None:
    """Print `value` as JSON that people can read as well."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[str] = ()) -> Table:
    """Columns without lines. Where room is short the first and the last one take several lines: names and reasons."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        folds = name in (columns[0], columns[-1])
        made.add_column(
            name, justify="right" if name in right else "left", no_wrap=not folds, overflow="fold", min_width=4
        )
    for row in rows:
        made.add_row(*(text(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def timeline(rows: Iterable[Sequence[str | Text]]) -> Table:
    """Moments, and what there is to say of them: only the last column takes several lines."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        if not made.columns:
            for index in range(len(row)):
                is_last = index == len(row) - 1
                made.add_column(no_wrap=not is_last, overflow="fold", ratio=1 if is_last else None)
        made.add_row(*(text(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def indented(part: RenderableType, columns: int) -> RenderableType:
    """`part` with so much room before it, on each of its lines."""
    from rich.padding import Padding

    return Padding(part, (0, 0, 0, columns))


def width_of(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> int:
    """The width of a table that folds nothing."""
    from rich.cells import cell_len

    widths = [max(cell_len(str(cell)) for cell in column) for column in zip(columns, *rows, strict=True)]
    return sum(widths) + 2 * (len(widths) - 1)


def text(written: str, style: str = "") -> Text:
    """`written` as it is, except for what would move a terminal's cursor."""
    from rich.text import Text

    return Text("".join(char if char.isprintable() or char == "\n" else "�" for char in written), style)


def state(word: str) -> Text:
    """A state in its colour."""
    return text(word, _STYLES.get(word, ""))


def joined(*parts: str | Text) -> Text:
    """`parts` in one line."""
    from rich.text import Text

    return Text.assemble(*(text(part) if isinstance(part, str) else part for part in parts))


def stacked(parts: Iterable[RenderableType]) -> RenderableType:
    """`parts` as one, for what is refreshed in place."""
    from rich.console import Group

    return Group(*parts)


def age(seconds: float) -> str:
    """``4s``, ``3m20s``: whole seconds, and never negative, as clocks differ."""
    whole = max(0, int(seconds))
    return f"{whole}s" if whole < 60 else format_seconds(whole)


def brief(reason: str) -> str:
    """A reason in one line: its first, and its last, which is where an engine's log tells what broke."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return f"{lines[0]} … {lines[-1]}" if len(lines) > 1 else "".join(lines)


def moment(at: float, now: float) -> str:
    """``14:03:22`` today, ``2026-11-21 14:03:22`` on other days; local time."""
    then, today = datetime.fromtimestamp(at), datetime.fromtimestamp(now)
    return then.strftime("%H:%M:%S" if then.date() == today.date() else "%Y-%m-%d %H:%M:%S")


def command(*words: str) -> str:
    """`words` as they can be pasted into a shell."""
    return shlex.join(("modelgrid", *words))
