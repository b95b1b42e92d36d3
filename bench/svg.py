"""What the pictures of the benchmarks have in common: a card with a title, readable on light and on dark."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

WIDTH = 960
MARGIN = 28

_LIGHT = """
  .card { fill: #ffffff; stroke: #d0d7de; }
  text { font: 13px -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-size: 18px; font-weight: 600; }
  .panel { font-weight: 600; }
  .strong { font-weight: 600; }
  .soft { fill: #59636e; font-size: 12px; }
  .ours { fill: #1a7f5a; }
  .other { fill: #b9c2cc; }"""
_DARK = """
    .card { fill: #0d1117; stroke: #3d444d; }
    text { fill: #f0f6fc; }
    .soft { fill: #9198a1; }
    .ours { fill: #2ea879; }
    .other { fill: #4a525c; }"""


def card(title: str, height: int, parts: Iterable[str], *, label: str = "", light: str = "", dark: str = "") -> str:
    """An SVG of `parts`. `light` and `dark` are the rules of classes that only this picture has."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label or title)}">',
            f"<style>{_LIGHT}{light}\n  @media (prefers-color-scheme: dark) {{{_DARK}{dark}\n  }}\n</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
            f'<text class="title" x="{MARGIN}" y="38">{escape(title)}</text>',
            *parts,
            "</svg>",
            "",
        ]
    )
