"""The table of metrics keeps Prometheus' conventions, whatever is added to it."""

from __future__ import annotations

import re

import pytest

from modelgrid.spec.metrics import METRICS, Kind, Metric

UNITS = ("_seconds", "_bytes", "_info", "_ratio")
COUNTS = {  # gauges of things that are counted, or that are true or not: they have no unit
    "modelgrid_gateway_connections",
    "modelgrid_requests_in_flight",
    "modelgrid_requests_waiting",
    "modelgrid_engine_requests_running",
    "modelgrid_engine_requests_waiting",
    "modelgrid_model_state",
    "modelgrid_replicas",
    "modelgrid_gateway_workers",
    "modelgrid_controller_acts",
    "modelgrid_config_in_force",
}


def test_names_are_unique() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_named_by_its_kind_and_unit_and_says_what_it_means(metric: Metric) -> None:
    assert re.fullmatch(r"modelgrid_[a-z]+(_[a-z]+)*", metric.name)
    assert all(re.fullmatch(r"[a-z]+", label) for label in metric.labels)
    assert re.fullmatch(r"[A-Z0-9][^\n|]{10,}\.", metric.help), "a sentence that fits into a table"
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.kind is Kind.COUNTER or metric.name.endswith(UNITS) or metric.name in COUNTS


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_histogram_has_rising_buckets_and_no_label_for_keys(metric: Metric) -> None:
    assert bool(metric.bounds) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.bounds) == sorted(set(metric.bounds))
    if metric.kind is Kind.HISTOGRAM:
        assert metric.name.endswith("_seconds")
        assert not {"key", "status", "le"} & set(metric.labels), "each value would be all the buckets once more"
