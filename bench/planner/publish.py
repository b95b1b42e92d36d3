"""Keeps a run: its figures as JSON, and the picture of the docs."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from html import escape
from pathlib import Path

from bench.planner.real import Real
from bench.planner.run import Run
from bench.planner.table import COLUMNS, OURS, Column, median
from bench.svg import MARGIN, card

_ROOT = Path(__file__).parents[2]
RESULTS = _ROOT / "bench" / "results"
PICTURE = _ROOT / "docs" / "images" / "planner.svg"

_WAIT = COLUMNS[3]  # its 95th percentile

_TOP = 84
_HEAD = 30
_ROW = 20
_BAR = 12
_CLASS_ROW = 16
_CLASS_BAR = 6
_GAP = 16
_LABEL = 112
_PANEL = 440
_VALUE = 60
_LIGHT = "\n  .class { opacity: 0.6; }"


def keep(
    runs: Sequence[Run],
    told: Mapping[str, str],
    behind: Mapping[str, Sequence[str]],
    real: Sequence[Real],
    loads: Mapping[str, object],
) -> Path:
    """Write a run to a file of its day, and draw it. A later run of the same day replaces it; what it did not measure
    with real engines stays."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now().astimezone()
    path = RESULTS / f"planner-{now:%Y-%m-%d}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    record = {
        "date": now.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "seeds": sorted({run.seed for run in runs}),
        "workloads": dict(told),
        "medians": _medians(runs),
        "classes": class_waits(runs),
        "behind": {rival: list(lines) for rival, lines in behind.items()},
        "loads": dict(loads),
        "real": [asdict(each) for each in real] or before.get("real", []),
        "runs": [_plain(run) for run in runs],
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    PICTURE.write_text(picture(runs, told))
    return path


def picture(runs: Sequence[Run], told: Mapping[str, str]) -> str:
    """An SVG: goodput and waiting of each way on each workload."""
    groups = {name: [run for run in runs if run.workload == name] for name in told}
    ways = list(dict.fromkeys(run.way for run in runs))
    talls = [_HEAD + _pitch(own) * len(ways) + _GAP for own in groups.values()]
    height = _TOP + sum(talls) + 8
    parts = [
        f'<text class="soft" x="{MARGIN}" y="66">answered in time, requests a second: more is better</text>',
        f'<text class="soft" x="{MARGIN + _PANEL + 24}" y="66">waiting, the 95th percentile in seconds: less is '
        "better</text>",
    ]
    top = _TOP
    for (name, own), tall in zip(groups.items(), talls, strict=True):
        parts.append(
            f'<text x="{MARGIN}" y="{top + 14}"><tspan class="panel">{escape(name)}</tspan>'
            f'<tspan class="soft" dx="8">{escape(told[name])}</tspan></text>'
        )
        for column, left, decimals in ((COLUMNS[0], MARGIN, 2), (_WAIT, MARGIN + _PANEL + 24, 0)):
            parts += _bars(own, ways, column, left, top + _HEAD, decimals)
        parts += _class_bars(own, MARGIN + _PANEL + 24, top + _HEAD)
        top += tall
    return card("What the planner is worth", height, parts, light=_LIGHT)


def _pitch(runs: Sequence[Run]) -> int:
    """From one way to the next: its row, and one for each class of requests."""
    return _ROW + _CLASS_ROW * len(runs[0].classes)


def _bars(runs: Sequence[Run], ways: Sequence[str], column: Column, left: int, top: int, decimals: int) -> list[str]:
    values = {way: median([run for run in runs if run.way == way], column) for way in ways}
    most = _longest_wait(runs) if column is _WAIT else max(values.values()) or 1.0
    room = _PANEL - _LABEL - _VALUE
    parts = []
    for row, (way, value) in enumerate(values.items()):
        y = top + row * _pitch(runs)
        kind, strong = ("ours", ' class="strong"') if way == OURS else ("other", "")
        width = max(1.0, value / most * room)
        parts += [
            f'<text{strong} x="{left}" y="{y + 10}">{escape(way)}</text>',
            f'<rect class="{kind}" x="{left + _LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"/>',
            f'<text{strong} x="{left + _LABEL + width + 8:.1f}" y="{y + 10}">{value:,.{decimals}f}</text>',
        ]
    return parts


def _class_bars(runs: Sequence[Run], left: int, top: int) -> list[str]:
    """The same waiting, told apart by class."""
    waits = class_waits(runs).get(runs[0].workload, {})
    most = _longest_wait(runs)
    room = _PANEL - _LABEL - _VALUE
    parts = []
    for row, (name, by_way) in enumerate(waits.items()):
        for number, (way, value) in enumerate(by_way.items()):
            y = top + number * _pitch(runs) + _ROW + row * _CLASS_ROW - 3
            kind = "ours" if way == OURS else "other"
            width = max(1.0, value / most * room)
            parts += [
                f'<text class="soft" x="{left + 12}" y="{y + 8}">{escape(name)}</text>',
                f'<rect class="{kind} class" x="{left + _LABEL}" y="{y + 1}" width="{width:.1f}" '
                f'height="{_CLASS_BAR}" rx="2"/>',
                f'<text class="soft" x="{left + _LABEL + width + 8:.1f}" y="{y + 8}">{value:,.0f}</text>',
            ]
    return parts


def _longest_wait(runs: Sequence[Run]) -> float:
    """What the longest bar of waiting stands for, be it of all requests or of a class."""
    waits = class_waits(runs).get(runs[0].workload, {})
    of_all = (median([run for run in runs if run.way == way], _WAIT) for way in {run.way for run in runs})
    return max([*of_all, *(value for by_way in waits.values() for value in by_way.values())]) or 1.0


def class_waits(runs: Sequence[Run]) -> dict[str, dict[str, dict[str, float]]]:
    """The 95th percentile of waiting by workload, class and way, where requests of several kinds are told apart."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for run in runs:
        own = [each for each in runs if (each.workload, each.way) == (run.workload, run.way)]
        for name in run.classes:
            middle = statistics.median(each.classes[name].waited_s[1] for each in own)
            found.setdefault(run.workload, {}).setdefault(name, {})[run.way] = round(middle, 3)
    return found


def _medians(runs: Sequence[Run]) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for run in runs:
        own = [each for each in runs if (each.workload, each.way) == (run.workload, run.way)]
        found.setdefault(run.workload, {})[run.way] = {c.title: round(median(own, c), 3) for c in COLUMNS}
    return found


def _plain(run: Run) -> dict[str, object]:
    return {
        "workload": run.workload,
        "way": run.way,
        "seed": run.seed,
        "wall_s": round(run.wall_s, 2),
        "all": asdict(run.all),
        "classes": {name: asdict(each) for name, each in run.classes.items()},
        "usage": asdict(run.usage),
    }
