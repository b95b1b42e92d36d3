"""The dashboard and the alert rules speak of metrics that there are, by the labels that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.check import as_rules, main, targets
from deploy.grafana.make import dashboard

from modelgrid.controller.metrics import MODEL_STATES
from modelgrid.spec import State
from modelgrid.spec.metrics import METRICS, Kind, Metric

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/modelgrid.json").read_text("utf-8"))
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/modelgrid.rules.yaml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
TESTS = (DEPLOY / "prometheus/modelgrid.rules.test.yaml").read_text("utf-8")

BY_NAME = {metric.name: metric for metric in METRICS}
ADDED = {"instance", "job", "le"}  # labels that Prometheus, or a histogram, adds
STATES = {
    "modelgrid_model_state": set(MODEL_STATES),
    "modelgrid_replicas": {state.value for state in State},
}
NOT_SHOWN: set[str] = set()  # metrics that the dashboard leaves out, each with its reason


def expressions() -> Iterator[tuple[str, str]]:
    """All of them: whose it is, and the expression."""
    for panel, target in targets(DASHBOARD):
        yield panel["title"], target["expr"]
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["name"], variable["definition"]


def names(expression: str) -> set[str]:
    return set(re.findall(r"modelgrid_\w+", expression))


def metric_of(name: str) -> Metric | None:
    """A histogram's series have its name and an ending; others have their metric's."""
    found = BY_NAME.get(name)
    if found is not None:
        return None if found.kind is Kind.HISTOGRAM else found
    found = BY_NAME.get(re.sub(r"_(bucket|count|sum)$", "", name))
    return found if found is not None and found.kind is Kind.HISTOGRAM else None


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_an_expression_names_metrics_and_labels_that_there_are(where: str, expression: str) -> None:
    known = set(ADDED)
    for name in names(expression):
        metric = metric_of(name)
        assert metric is not None, f"{where}: there is no {name}"
        known |= set(metric.labels)
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    matched = re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expression)
    assert {label.strip() for one in grouped for label in one.split(",")} | set(matched) <= known, where


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_states_that_are_asked_for_are_states(where: str, expression: str) -> None:
    for name, matchers in re.findall(r"(modelgrid_\w+)\{([^}]*)\}", expression):
        for asked in re.findall(r'state=~?"([^"]*)"', matchers):
            assert set(asked.split("|")) <= STATES[name], where


@pytest.mark.parametrize("name", STATES)
def test_the_help_of_a_state_names_all_that_there_are(name: str) -> None:
    assert STATES[name] <= set(re.findall(r"\w+", BY_NAME[name].help))


def test_every_metric_is_shown() -> None:
    shown = {
        metric.name for _, target in targets(DASHBOARD) for name in names(target["expr"]) if (metric := metric_of(name))
    }
    assert set(BY_NAME) - shown == NOT_SHOWN, "show it in deploy/grafana/panels.py, or say in NOT_SHOWN why not"


def test_the_file_is_as_it_is_made() -> None:
    assert dashboard() == DASHBOARD, "python -m deploy.grafana.make > deploy/grafana/modelgrid.json"


def test_panels_lie_beside_each_other_and_say_how_to_read_them() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_whoever_imports_it_names_the_datasource_and_chooses_by_variables() -> None:
    assert [source["name"] for source in DASHBOARD["__inputs"]] == ["DS_PROMETHEUS"]
    assert {target["datasource"]["uid"] for _, target in targets(DASHBOARD)} == {"${DS_PROMETHEUS}"}
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["instance", "model"]
    assert all('instance=~"$instance"' in target["expr"] for _, target in targets(DASHBOARD))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_how_bad_it_is_and_what_to_do_next_and_has_a_test(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert "Next: " in rule["annotations"]["description"]
    assert rule["alert"] in TESTS


def test_a_dashboard_s_queries_become_rules_without_variables() -> None:
    (group,) = as_rules(DASHBOARD)["groups"]
    assert len(group["rules"]) == len(list(targets(DASHBOARD)))
    assert not [rule for rule in group["rules"] if "$" in rule["expr"]]


def test_without_promtool_the_check_fails_unless_it_was_optional(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("deploy.check._UNPACKED", tmp_path / "promtool")
    assert main([]) == 1
    assert main(["--if-any"]) == 0
    assert "the alert rules were not checked: there is no promtool" in capsys.readouterr().err


def test_the_how_to_lists_each_alert_at_its_severity() -> None:
    page = (DEPLOY.parent / "docs/how-to/watch-it.md").read_text("utf-8")
    rows = re.findall(r"^\| (critical|warning|info) \| ([^|]*) \|", page, re.MULTILINE)
    listed = {alert: severity for severity, alerts in rows for alert in re.findall(r"`(\w+)`", alerts)}
    assert listed == {rule["alert"]: rule["labels"]["severity"] for rule in RULES}
    assert all(f"| {panel['title']} |" in page for panel in DASHBOARD["panels"] if panel["type"] == "row")
