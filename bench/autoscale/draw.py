"""The picture: what was attained over what it cost, readable on light and on dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from bench.autoscale.compare import Compared, Point
from bench.autoscale.table import title
from bench.svg import MARGIN, WIDTH, card

_PANEL_WIDTH = 440
_PANEL_HEIGHT = 250
_GAP = 24
_TITLE = 78
_LEFT = 44  # of a panel: the numbers beside it
_TOP = 40
_BOTTOM = 34

_CLASSES = {"fixed": "fixed", "target": "other"}
_LIGHT = """
  .grid { stroke: #d0d7de; stroke-width: 1; fill: none; }
  .ours-line { stroke: #1a7f5a; stroke-width: 2; fill: none; }
  .fixed { fill: #59636e; }
  .frontier { stroke: #818b98; stroke-width: 1; stroke-dasharray: 4 3; fill: none; }"""
_DARK = """
    .grid { stroke: #3d444d; }
    .ours-line { stroke: #2ea879; }
    .fixed { fill: #9198a1; }
    .frontier { stroke: #8b949e; }"""


def picture(compared: Sequence[Compared]) -> str:
    """An SVG with one panel a scenario."""
    height = _TITLE + (_PANEL_HEIGHT + _GAP) * -(-len(compared) // 2)
    parts = [
        f'<text class="soft" x="{WIDTH - MARGIN}" y="38" text-anchor="end">further up and left is better</text>',
        *_legend(),
    ]
    for number, one in enumerate(compared):
        left = MARGIN + (number % 2) * (_PANEL_WIDTH + _GAP)
        parts += _panel(one, left, _TITLE + (number // 2) * (_PANEL_HEIGHT + _GAP))
    label = "Autoscaling: what was attained over what it cost"
    return card("First tokens in time, over GPU-hours", height, parts, label=label, light=_LIGHT, dark=_DARK)


def _legend() -> list[str]:
    parts = []
    x = MARGIN + 6
    for kind, text in (
        ("ours", "modelgrid, objective 90, 95, 98 %"),
        ("fixed", "fixed number of replicas"),
        ("other", "target of ongoing requests, many settings"),
    ):
        parts.append(
            f'<circle class="{kind}" cx="{x}" cy="60" r="5"/><text class="soft" x="{x + 10}" y="64">{text}</text>'
        )
        x += 34 + 7 * len(text)
    return parts


def _panel(one: Compared, left: int, top: int) -> list[str]:
    best = one.frontier
    worth = [point.attained for point in one.ours]
    low = max(0.0, min(worth) - 0.06)
    shown = [point for point in one.points if point.attained >= low]
    most = max(point.gpu_hours for point in one.ours) * 1.35
    shown = [point for point in shown if point.gpu_hours <= most]
    least = min(point.gpu_hours for point in shown) * 0.9
    high = min(1.0, max(point.attained for point in shown) + 0.005)
    bottom = top + _PANEL_HEIGHT
    x = _scale(least, most, left + _LEFT, left + _PANEL_WIDTH)
    y = _scale(low, high, bottom - _BOTTOM, top + _TOP)
    parts = [f'<text class="panel" x="{left}" y="{top + 18}">{escape(title(one))}</text>']
    for step in range(5):
        share = low + (high - low) * step / 4
        hours = least + (most - least) * step / 4
        parts += [
            f'<path class="grid" d="M{left + _LEFT} {y(share):.1f}H{left + _PANEL_WIDTH}"/>',
            f'<text class="soft" x="{left + _LEFT - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>',
            f'<text class="soft" x="{x(hours):.1f}" y="{bottom - 14}" text-anchor="middle">{hours:.1f}</text>',
        ]
    line = [point for point in best if point in shown]
    parts.append(f'<path class="frontier" d="{_path(line, x, y)}"/>')
    parts += [
        f'<circle class="{_CLASSES[point.family]}" cx="{x(point.gpu_hours):.1f}" cy="{y(point.attained):.1f}" r="3.5"/>'
        for point in shown
        if point.family != "modelgrid"
    ]
    parts.append(f'<path class="ours-line" d="{_path(one.ours, x, y)}"/>')
    parts += [
        f'<circle class="ours" cx="{x(point.gpu_hours):.1f}" cy="{y(point.attained):.1f}" r="5"/>' for point in one.ours
    ]
    return parts


def _scale(least: float, most: float, begin: float, end: float) -> Callable[[float], float]:
    return lambda value: begin + (value - least) / max(1e-9, most - least) * (end - begin)


def _path(points: Sequence[Point], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    return "M" + " L".join(f"{x(point.gpu_hours):.1f} {y(point.attained):.1f}" for point in points) if points else ""
