"""The picture: a few figures as bars, readable on light and on dark."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from bench.gateway.table import Measured, shown
from bench.svg import MARGIN, WIDTH, card

_PANEL_WIDTH = 440
_GAP = 24
_TITLE = 52
_HEAD = 46
_ROW = 24
_BAR = 14
_LABEL = 104
_VALUE = 76
_OURS = "modelgrid"
_BASE = "nginx"


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure's bars."""

    figure: str
    title: str
    unit: str
    decimals: int


PANELS = (
    Panel("cpu-300", "CPU a request", "µs, 300-byte chat", 1),
    Panel("cpu-chunk", "CPU a chunk", "µs, 200 streams", 1),
    Panel("added-p50", "Added latency, p50", "ms, at a fixed rate", 2),
    Panel("added-p99", "Added latency, p99", "ms, at a fixed rate", 2),
    Panel("cpu-1m", "CPU a large request", "µs, 1 MB body", 0),
    Panel("stream-memory", "Memory for each stream", "KB, of 1,000 active ones", 1),
)

_LIGHT = """
  .base { fill: #818b98; }
  .value { font-variant-numeric: tabular-nums; }
  .cut { stroke: #ffffff; stroke-width: 3; fill: none; }"""
_DARK = """
    .base { fill: #8b949e; }
    .cut { stroke: #0d1117; }"""


def picture(measured: Measured) -> str:
    """An SVG. A bar that would dwarf the others is cut, and its number says how long it is."""
    peers = [peer for peer in measured.peers if peer != "direct"]
    panels = [panel for panel in PANELS if any(shown(measured, panel.figure, peer) is not None for peer in peers)]
    tall = _HEAD + _ROW * len(peers) + _GAP
    height = _TITLE + tall * -(-len(panels) // 2)
    parts = [
        f'<text class="soft" x="{WIDTH - MARGIN}" y="38" text-anchor="end">less is better</text>',
    ]
    for number, panel in enumerate(panels):
        left = MARGIN + (number % 2) * (_PANEL_WIDTH + _GAP)
        parts += _panel(measured, panel, peers, left, _TITLE + (number // 2) * tall)
    return card("What a gateway costs", height, parts, light=_LIGHT, dark=_DARK)


def _panel(measured: Measured, panel: Panel, peers: list[str], left: int, top: int) -> list[str]:
    values = {peer: shown(measured, panel.figure, peer) for peer in peers}
    most = _scale([value for value in values.values() if value is not None])
    room = _PANEL_WIDTH - _LABEL - _VALUE
    parts = [
        f'<text x="{left}" y="{top + 24}"><tspan class="panel">{escape(panel.title)}</tspan>'
        f'<tspan class="soft" dx="8">{escape(panel.unit)}</tspan></text>'
    ]
    for row, (peer, value) in enumerate(values.items()):
        y = top + _HEAD + row * _ROW
        kind = {_OURS: "ours", _BASE: "base"}.get(peer, "other")
        strong = " strong" if peer == _OURS else ""
        parts.append(f'<text class="{strong.strip()}" x="{left}" y="{y + 4}">{escape(peer)}</text>')
        start = left + _LABEL
        if value is None:
            parts.append(f'<text class="soft" x="{start}" y="{y + 4}">not measured</text>')
            continue
        width = max(1.0, min(1.0, max(value, 0.0) / most) * room)
        parts.append(
            f'<rect class="{kind}" x="{start}" y="{y - _BAR // 2}" width="{width:.1f}" height="{_BAR}" rx="2"/>'
        )
        if value > most:
            at = start + width * 0.8
            parts.append(f'<path class="cut" d="M{at:.1f} {y + _BAR} l6 -{2 * _BAR}"/>')
        text = f"{value:,.{panel.decimals}f}"
        parts.append(f'<text class="value{strong}" x="{start + width + 8:.1f}" y="{y + 4}">{text}</text>')
    return parts


def _scale(values: list[float]) -> float:
    """The value of the longest whole bar: the largest, unless it is so large that the others would be specks."""
    ordered = sorted(values)
    while len(ordered) > 1 and ordered[-1] > 5 * ordered[-2]:
        ordered.pop()
    return max(ordered[-1], 1e-9)
