"""The picture: what was attained over what it cost, readable on light and on dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from bench.autoscale.compare import Compared, Point
from bench.autoscale.table import title

_WIDTH = 960
_PANEL_WIDTH = 440
_PANEL_HEIGHT = 250
_MARGIN = 28
_GAP = 24
_TITLE = 78
_LEFT = 44  # of a panel: the numbers beside it
_TOP = 40
_BOTTOM = 34

_STYLE = """
  .card { fill: #ffffff; stroke: #d0d7de; }
  text { font: 13px -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-size: 18px; font-weight: 600; }
  .panel { font-size: 13px; font-weight: 600; }
  .unit { fill: #59636e; font-size: 12px; }
  .grid { stroke: #d0d7de; stroke-width: 1; fill: none; }
  .ours { fill: #1a7f5a; stroke: none; }
  .ours-line { stroke: #1a7f5a; stroke-width: 2; fill: none; }
  .fixed { fill: #59636e; }
  .target { fill: #b9c2cc; }
  .frontier { stroke: #818b98; stroke-width: 1; stroke-dasharray: 4 3; fill: none; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #3d444d; }
    text { fill: #f0f6fc; }
    .unit { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .ours { fill: #2ea879; }
    .ours-line { stroke: #2ea879; }
    .fixed { fill: #9198a1; }
    .target { fill: #4a525c; }
    .frontier { stroke: #8b949e; }
  }
"""


def picture(compared: Sequence[Compared]) -> str:
    """An SVG with one panel a scenario."""
    height = _TITLE + (_PANEL_HEIGHT + _GAP) * -(-len(compared) // 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Autoscaling: what was attained over what it cost">',
        f"<style>{_STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
        f'<text class="title" x="{_MARGIN}" y="38">First tokens in time, over GPU-hours</text>',
        f'<text class="unit" x="{_WIDTH - _MARGIN}" y="38" text-anchor="end">further up and left is better</text>',
        *_legend(),
    ]
    for number, one in enumerate(compared):
        left = _MARGIN + (number % 2) * (_PANEL_WIDTH + _GAP)
        parts += _panel(one, left, _TITLE + (number // 2) * (_PANEL_HEIGHT + _GAP))
    return "\n".join([*parts, "</svg>", ""])


def _legend() -> list[str]:
    parts = []
    x = _MARGIN + 6
    for kind, text in (
        ("ours", "modelgrid, objective 90, 95, 98 %"),
        ("fixed", "fixed number of replicas"),
        ("target", "target of ongoing requests, many settings"),
    ):
        parts.append(
            f'<circle class="{kind}" cx="{x}" cy="60" r="5"/><text class="unit" x="{x + 10}" y="64">{text}</text>'
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
            f'<text class="unit" x="{left + _LEFT - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>',
            f'<text class="unit" x="{x(hours):.1f}" y="{bottom - 14}" text-anchor="middle">{hours:.1f}</text>',
        ]
    line = [point for point in best if point in shown]
    parts.append(f'<path class="frontier" d="{_path(line, x, y)}"/>')
    parts += [
        f'<circle class="{point.family}" cx="{x(point.gpu_hours):.1f}" cy="{y(point.attained):.1f}" r="3.5"/>'
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
