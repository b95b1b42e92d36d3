"""The picture over time, as SVG: what each device holds, by its memory, and how many wait; for light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise

from modelgrid.simulation import timeline
from modelgrid.simulation.engine import Phase
from modelgrid.simulation.world import History, Span
from modelgrid.spec import ModelName
from modelgrid.spec.machine import MAIN, Machine
from modelgrid.spec.units import format_bytes, format_seconds

WIDTH = 960
_LEFT = 132
_RIGHT = 20
_TOP = 56
_DEVICE = 76
_GAP = 12
_QUEUE = 90
_FOOT = 34
_LEGEND = 24
_MOST_DEVICES = 16
_MOST_COLOURS = 10
_SLICES = 300
_THINNEST = 0.8  # what would be narrower is not drawn

# Told apart by people who see colours differently as well, on white and on black.
_COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#77aadd", "#99aa33", "#bb7799",
)  # fmt: skip
_OTHER = "#98a2ad"

_STYLE = """
  .card { fill: #ffffff; stroke: #d0d7de; }
  .device { fill: #f6f8fa; stroke: #d0d7de; }
  text { font: 12px -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-size: 17px; font-weight: 600; }
  .soft { fill: #59636e; }
  .grid { stroke: #d0d7de; stroke-dasharray: 2 4; }
  .turning { opacity: 0.4; }
  .asleep { opacity: 0.25; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #3d444d; }
    .device { fill: #151b23; stroke: #3d444d; }
    text { fill: #f0f6fc; }
    .soft { fill: #9198a1; }
    .grid { stroke: #3d444d; }
  }
"""


def drawing(history: History, machines: Sequence[Machine], title: str) -> str:
    """An SVG. A model that is loading or ending is pale, one that sleeps paler."""
    devices = timeline.devices(history, machines)
    shown = devices[:_MOST_DEVICES]
    colours = _colours(history)
    has_others = any(span.model not in colours for span in history.spans)
    rows = _LEGEND * -(-(len(colours) + has_others) // 6)
    height = _TOP + len(shown) * (_DEVICE + _GAP) + _QUEUE + _FOOT + rows + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        f'<text class="title" x="20" y="34">{escape(title)}</text>',
    ]
    notes = [_pale(history)]
    if len(devices) > len(shown):
        notes.append(f"the first {len(shown)} of {len(devices)} devices")
    note = "; ".join(filter(None, notes))
    parts.append(f'<text class="soft" x="{WIDTH - _RIGHT}" y="34" text-anchor="end">{note}</text>')
    top = _TOP
    for machine, device, size in shown:
        parts += _device(history, machine, device, size, top, colours)
        top += _DEVICE + _GAP
    parts += _queue(history, top, colours)
    parts += _axis(history, top + _QUEUE)
    legend = [*colours.items(), *([("others", _OTHER)] if has_others else [])]
    parts += _legend(legend, top + _QUEUE + _FOOT + 6)
    return "\n".join([*parts, "</svg>", ""])


def _pale(history: History) -> str:
    """What the pale ones are doing."""
    if not history.spans:
        return ""
    sleeps = any(span.phase is Phase.ASLEEP for span in history.spans)
    return f"pale: loading or ending{', paler: asleep' if sleeps else ''}"


def _colours(history: History) -> dict[ModelName, str]:
    """A colour of its own for those that held memory longest."""
    held: dict[ModelName, list[float]] = {}
    for span in history.spans:
        held.setdefault(span.model, []).append((span.end - span.start) * sum(s.memory_bytes for s in span.shares))
    return dict(zip(timeline.busiest(held, _MOST_COLOURS), _COLOURS, strict=False))


def _x(at: float, end: float) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * (at / end if end else 0.0)


def _device(
    history: History, machine: str, device: str, size: int, top: int, colours: Mapping[ModelName, str]
) -> Iterator[str]:
    label = device if device != MAIN else "main memory"
    yield f'<text x="20" y="{top + 20}">{escape(machine)}</text>'
    yield f'<text class="soft" x="20" y="{top + 38}">{escape(label)}</text>'
    yield f'<text class="soft" x="20" y="{top + 56}">{format_bytes(size)}</text>'
    yield (f'<rect class="device" x="{_LEFT}" y="{top}" width="{WIDTH - _LEFT - _RIGHT}" height="{_DEVICE}" rx="3"/>')
    for span, start, end, bottom, share in _stacked(history, machine, device):
        left, right = _x(start, history.end), _x(end, history.end)
        if right - left < _THINNEST:
            continue
        tall = _DEVICE * share / size
        y = top + _DEVICE - _DEVICE * bottom / size - tall
        kind = {Phase.READY: "", Phase.ASLEEP: ' class="asleep"'}.get(span.phase, ' class="turning"')
        yield (
            f'<rect{kind} x="{left:.1f}" y="{y:.1f}" width="{right - left:.1f}" height="{max(1.0, tall - 1):.1f}" '
            f'fill="{colours.get(span.model, _OTHER)}"><title>{escape(span.engine)}: {span.phase}, '
            f"{format_seconds(span.end - span.start)}</title></rect>"
        )


def _stacked(history: History, machine: str, device: str) -> Iterator[tuple[Span, float, float, int, int]]:
    """Each span, from when until when it lies where in the device's memory, and how much it is. Who came first lies
    lowest, so an engine moves down when an older one has gone."""
    own = [
        (span, sum(share.memory_bytes for share in span.shares if share.device == device))
        for span in history.spans
        if span.machine == machine and span.end > span.start
    ]
    begun: dict[str, float] = {}
    for span, _ in own:
        begun[span.engine] = min(begun.get(span.engine, span.start), span.start)
    own = sorted(((span, share) for span, share in own if share), key=lambda each: each[0].start)
    moments = sorted({at for span, _ in own for at in (span.start, span.end)})
    drawn: dict[int, tuple[float, int]] = {}  # by the span's number: since when it lies there, and where
    there: list[int] = []
    coming = 0
    for start, end in pairwise([*moments, math.inf]):
        for index in [index for index in there if own[index][0].end <= start]:
            since, bottom = drawn.pop(index)
            there.remove(index)
            yield own[index][0], since, start, bottom, own[index][1]
        while coming < len(own) and own[coming][0].start < end:
            there.append(coming)
            coming += 1
        there.sort(key=lambda index: (begun[own[index][0].engine], own[index][0].engine))
        bottom = 0
        for index in there:
            since, before = drawn.get(index, (start, bottom))
            if before != bottom:
                yield own[index][0], since, start, before, own[index][1]
                since = start
            drawn[index] = (since, bottom)
            bottom += own[index][1]


def _queue(history: History, top: int, colours: Mapping[ModelName, str]) -> Iterator[str]:
    """How many wait, one model on top of the other."""
    counts = timeline.waiting(history, _SLICES)
    total = [sum(each) for each in zip(*counts.values(), strict=True)] or [0]
    most = max(total)
    yield f'<text x="20" y="{top + 20}">waiting</text>'
    yield f'<text class="soft" x="20" y="{top + 38}">{most} at most</text>'
    if not most:
        return
    below = [0] * _SLICES
    bottom = top + _QUEUE - 4
    width = (WIDTH - _LEFT - _RIGHT) / _SLICES
    for model in sorted(counts, key=lambda model: (model not in colours, model)):
        above = [low + count for low, count in zip(below, counts[model], strict=True)]
        upper = [
            f"{_LEFT + width * (i + 0.5):.1f},{bottom - (_QUEUE - 12) * n / most:.1f}" for i, n in enumerate(above)
        ]
        lower = [
            f"{_LEFT + width * (i + 0.5):.1f},{bottom - (_QUEUE - 12) * n / most:.1f}" for i, n in enumerate(below)
        ]
        points = " ".join([*upper, *reversed(lower)])
        yield f'<polygon points="{points}" fill="{colours.get(model, _OTHER)}"/>'
        below = above


def _axis(history: History, top: int) -> Iterator[str]:
    step_s = next(
        (s for s in (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400) if history.end / s <= 10), 86400
    )
    at = 0.0
    while at <= history.end:
        x = _x(at, history.end)
        yield f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{top}"/>'
        label = format_seconds(at).replace("m00s", "m") if at else "0"
        yield f'<text class="soft" x="{x:.1f}" y="{top + 18}" text-anchor="middle">{label}</text>'
        at += step_s


def _legend(colours: Sequence[tuple[str, str]], top: int) -> Iterator[str]:
    width = (WIDTH - 40) / 6
    for index, (model, colour) in enumerate(colours):
        x, y = 20 + width * (index % 6), top + _LEGEND * (index // 6)
        name = model if len(model) <= 20 else model[:19] + "…"
        yield f'<rect x="{x:.0f}" y="{y}" width="11" height="11" rx="2" fill="{colour}"/>'
        yield f'<text x="{x + 17:.0f}" y="{y + 10}">{escape(name)}</text>'
