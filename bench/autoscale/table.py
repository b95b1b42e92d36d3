"""The table, as text: each of modelgrid's objectives beside the cheapest of the others that attained as much."""

from __future__ import annotations

from collections.abc import Sequence

from bench.autoscale.compare import ATTAIN, Compared, Point

_HEAD = ("", "objective", "attained", "GPU-hours", "starts", "p95 s", "cheapest as good", "which", "hours")


def drawn_table(compared: Sequence[Compared]) -> str:
    """Rows of scenarios and objectives."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for one in compared:
        label = title(one)
        for point in one.ours:
            rows.append((label, *_cells(point, one.as_good(point))))
            label = ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if column in (0, 7) else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "─" * max(map(len, lines)))
    return "\n".join(lines) + "\n"


def title(one: Compared) -> str:
    """A scenario, in a few words."""
    scenario = one.scenario
    return f"{scenario.trace.name}; start {scenario.load_s:.0f} s, first token {scenario.ttft_s * 1000:.0f} ms"


def ahead(compared: Sequence[Compared]) -> str:
    """In how many of them modelgrid is ahead, by either criterion."""
    pairs = [(point, one.as_good(point)) for one in compared for point in one.ours]
    count = sum(other is None or point.gpu_hours < other.gpu_hours for point, other in pairs)
    met = sum(
        one.is_cheapest_to_meet(objective, point)
        for one in compared
        for objective, point in zip(ATTAIN, one.ours, strict=True)
    )
    return (
        f"cheaper than every other that attained as much: {count} of {len(pairs)}\n"
        f"cheaper than every other that met the objective, and met it: {met} of {len(pairs)}\n"
    )


def _cells(point: Point, other: Point | None) -> tuple[str, ...]:
    ours = (point.name, f"{point.attained:.1%}", f"{point.gpu_hours:.2f}", str(point.starts), f"{point.p95_s:.2f}")
    if other is None:
        return (*ours, "-", "none attained as much", "-")
    return (*ours, f"{other.gpu_hours:.2f}", f"{other.name}: {other.attained:.1%}", share(point, other))


def share(point: Point, other: Point) -> str:
    """How much more or less was needed than by another."""
    return f"{point.gpu_hours / other.gpu_hours - 1:+.0%}"
