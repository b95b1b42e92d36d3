"""The table, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bench.gateway.figures import FIGURES, Figure

_BASE = "nginx"
_FREE = "direct"


class Measured(Protocol):
    """What a table is made of."""

    @property
    def peers(self) -> list[str]:
        """Its columns."""

    @property
    def figures(self) -> list[str]:
        """Its rows."""

    @property
    def failures(self) -> dict[str, str]:
        """Who failed, and why."""

    @property
    def notes(self) -> dict[str, str]:
        """What differs from one peer to the next."""

    def median(self, figure: str, peer: str) -> float | None:
        """The middle of the rounds."""


def drawn_table(results: Measured) -> str:
    """Rows of figures, columns of peers, and what there is to say below."""
    rows = [["", *results.peers]]
    for name in FIGURES:
        if name in results.figures:
            figure = FIGURES[name]
            rows.append([f"{figure.label}, {figure.unit}", *(cell(results, name, peer) for peer in results.peers)])
    lines = _aligned(rows)
    for peer, note in results.notes.items():
        lines.append(f"{peer}: {note}")
    for peer, why in results.failures.items():
        lines.append(f"{peer} failed: {why}")
    return "\n".join(lines) + "\n"


def cell(results: Measured, name: str, peer: str) -> str:
    """One figure of one peer."""
    value = shown(results, name, peer)
    if value is None:
        return "failed" if peer in results.failures else "-"
    figure = FIGURES[name]
    text = f"{value:,.{figure.decimals}f}"
    base = shown(results, name, _BASE)
    if figure.has_ratio and base and peer not in (_BASE, _FREE):
        text += f" ({value / base:.2f}x)"
    return text


def shown(results: Measured, name: str, peer: str) -> float | None:
    """The median, without what the upstream takes by itself where the figure is what was added."""
    figure: Figure = FIGURES[name]
    value = results.median(name, peer)
    if value is None or not figure.is_added or peer == _FREE:
        return value
    free = results.median(name, _FREE)
    return None if free is None else value - free


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "─" * len(lines[0]))
    return lines
