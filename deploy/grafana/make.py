"""The Grafana dashboard, made from a table of its panels.

``python -m deploy.grafana.make > deploy/grafana/modelgrid.json``
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from deploy.grafana.panels import ROWS, Panel

_WIDTH: Final = 24  # of Grafana's grid
_SOURCE: Final = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}

_WORDS: Final = {
    "$HERE": 'instance=~"$instance"',
    "$MODEL": 'instance=~"$instance", model=~"$model"',
}


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana imports it."""
    return {
        "__inputs": [
            {
                "name": "DS_PROMETHEUS",
                "label": "Prometheus",
                "description": "The Prometheus that scrapes modelgrid",
                "type": "datasource",
                "pluginId": "prometheus",
                "pluginName": "Prometheus",
            }
        ],
        "__requires": [
            {"type": "grafana", "id": "grafana", "name": "Grafana", "version": "10.0.0"},
            {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
        ],
        "uid": "modelgrid",
        "title": "modelgrid",
        "description": "Models, their callers and their replicas.",
        "tags": ["modelgrid", "llm"],
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "schemaVersion": 38,
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                _variable("instance", "label_values(modelgrid_build_info, instance)"),
                _variable("model", 'label_values(modelgrid_model_state{instance=~"$instance"}, model)'),
            ]
        },
        "panels": _panels(),
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "variable"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    y = 0
    for row in ROWS:
        panels.append(
            {"type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": _at(0, y, _WIDTH, 1)}
        )
        x, y = 0, y + 1
        height = max(_height(panel) for panel in row.panels)
        for panel in row.panels:
            if x + panel.wide > _WIDTH:
                x, y = 0, y + height
            panels.append(_panel(panel, _at(x, y, panel.wide, height)))
            x += panel.wide
        y += height
    return [{"id": id, **panel} for id, panel in enumerate(panels, start=1)]


def _height(panel: Panel) -> int:
    return 4 if panel.kind == "stat" else 8


def _at(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel, at: dict[str, int]) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": _SOURCE,
        "gridPos": at,
        "targets": [_target(panel, index) for index in range(len(panel.queries))],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }


def _target(panel: Panel, index: int) -> dict[str, Any]:
    expression, legend = panel.queries[index]
    for word, meaning in _WORDS.items():
        expression = expression.replace(word, meaning)
    is_now = panel.kind != "timeseries"
    return {
        "refId": chr(ord("A") + index),
        "datasource": _SOURCE,
        "expr": expression,
        "legendFormat": legend,
        "instant": is_now,
        "range": not is_now,
    }


def _field(panel: Panel) -> dict[str, Any]:
    field: dict[str, Any] = {"unit": panel.unit, "color": {"mode": "palette-classic"}}
    if panel.most is not None:
        field |= {"min": 0, "max": panel.most}
    if panel.words:
        options = {
            value: {"text": text, "color": color, "index": at} for at, (value, text, color) in enumerate(panel.words)
        }
        field |= {"mappings": [{"type": "value", "options": options}], "color": {"mode": "thresholds"}}
    if panel.kind == "timeseries":
        field["custom"] = {
            "fillOpacity": 30 if panel.is_stacked else 8,
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
        }
    return field


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        return {
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    reduced: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    if panel.kind == "bargauge":
        return {**reduced, "orientation": "horizontal", "displayMode": "basic"}
    is_name = panel.title == "Version"
    return {**reduced, "colorMode": "value", "graphMode": "none", "textMode": "name" if is_name else "auto"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=2) + "\n")
