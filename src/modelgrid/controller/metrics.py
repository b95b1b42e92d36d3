"""What `GET /metrics` shows, in Prometheus' text format. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from modelgrid.controller.totals import Counts, Values, together
from modelgrid.spec import State, Status, metrics
from modelgrid.spec.metrics import METRICS, Kind, Metric

MODEL_STATES = ("ready", "starting", "asleep", "cold", "failed", "unavailable")

Labelled = Mapping[tuple[str, ...], Values]


def render(status: Status, counted: Iterable[Counts]) -> bytes:
    """The page. `counted` is of `Totals.parts`."""
    values: dict[str, Labelled] = dict(together(counted))
    for metric, labelled in _of_status(status):
        values[metric.name] = labelled
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(values))
    return generate_latest(registry)


class _Page:
    """prometheus_client's idea of what can be collected."""

    def __init__(self, values: Mapping[str, Labelled]) -> None:
        self._values = values

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            yield _family(metric, self._values.get(metric.name, {}))


def _family(metric: Metric, labelled: Labelled) -> Family:
    match metric.kind:
        case Kind.COUNTER:
            counter = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, (value,) in labelled.items():
                counter.add_metric(labels, value)
            return counter
        case Kind.GAUGE:
            gauge = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, (value,) in labelled.items():
                gauge.add_metric(labels, value)
            return gauge
        case Kind.HISTOGRAM:
            histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
            ends = [*map(str, metric.bounds), "+Inf"]
            for labels, (total, *buckets) in labelled.items():
                histogram.add_metric(labels, list(zip(ends, accumulate(buckets), strict=True)), total)
            return histogram


def _of_status(status: Status) -> Iterator[tuple[Metric, Labelled]]:
    """The gauges that are of the last lap."""
    models = status.models
    yield (
        metrics.REQUESTS_IN_FLIGHT,
        {(model.name,): (model.in_flight,) for model in models if model.in_flight is not None},
    )
    yield metrics.REQUESTS_WAITING, {(model.name,): (model.waiting,) for model in models}
    yield (
        metrics.MODEL_STATE,
        {(model.name, state): (int(model.state == state),) for model in models for state in MODEL_STATES},
    )
    yield metrics.REPLICAS, _replicas(status)
    yield from _memory(status)
    yield from _engines(status)
    yield metrics.GATEWAY_WORKERS, {(): (status.workers,)}
    yield metrics.CONTROLLER_ACTS, {(): (int(status.problem is None),)}
    yield metrics.CONFIG_IN_FORCE, {(): (int(status.config_error is None),)}
    yield metrics.CONTROLLER_START, {(): (status.started,)}
    yield metrics.BUILD_INFO, {(status.version,): (1,)}


def _replicas(status: Status) -> Labelled:
    counts = Counter((replica.model, replica.state) for replica in status.replicas)
    models = dict.fromkeys([*(model.name for model in status.models), *(replica.model for replica in status.replicas)])
    return {(model, state.value): (counts[model, state.value],) for model in models for state in State}


def _memory(status: Status) -> Iterator[tuple[Metric, Labelled]]:
    planned: Counter[str] = Counter({model.name: 0 for model in status.models})
    resident: Counter[str] = Counter()
    for replica in status.replicas:
        planned[replica.model] += replica.memory_bytes
        if replica.resident_bytes is not None:
            resident[replica.model] += replica.resident_bytes
    yield metrics.MEMORY_BUDGET, {(): (status.memory_bytes,)}
    yield metrics.MEMORY_PLANNED, {(model,): (held,) for model, held in planned.items()}
    yield metrics.MEMORY_RESIDENT, {(model,): (held,) for model, held in resident.items()}


def _engines(status: Status) -> Iterator[tuple[Metric, Labelled]]:
    running: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    cache: dict[str, float] = {}
    for replica in status.replicas:
        if replica.engine_running is not None and replica.engine_waiting is not None:
            running[replica.model] += replica.engine_running
            waiting[replica.model] += replica.engine_waiting
        if replica.cache_usage is not None:
            cache[replica.model] = max(cache.get(replica.model, 0.0), replica.cache_usage)
    yield metrics.ENGINE_RUNNING, {(model,): (count,) for model, count in running.items()}
    yield metrics.ENGINE_WAITING, {(model,): (count,) for model, count in waiting.items()}
    yield metrics.ENGINE_CACHE_USAGE, {(model,): (share,) for model, share in cache.items()}
