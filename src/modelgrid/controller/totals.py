"""What gateway workers have counted, put together with the controller's own counts. A counter never goes down."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from modelgrid.spec.messages import Series
from modelgrid.spec.metrics import METRICS, Kind, Metric

SeriesName = tuple[str, tuple[str, ...]]  # the metric's name, the labels' values
Values = tuple[float, ...]  # as `Series` has them
Counts = Mapping[SeriesName, Values]

_METRICS = {metric.name: metric for metric in METRICS}
_GONE = 64  # workers whose counts are kept apart after their end: one that only lost its link tells all of them again


class Totals:
    """The counts by worker, where a worker is its name and pid: a restarted one is another, and begins at none."""

    def __init__(self) -> None:
        self._workers: dict[str, dict[SeriesName, Values]] = {}
        self._gone: dict[str, None] = {}  # those that are not connected, in order of their end
        self._kept: dict[SeriesName, Values] = {}  # the controller's own, and of workers that are gone for good

    def join(self, worker: str) -> None:
        """A worker has connected; all that it has counted since it began will come."""
        self._gone.pop(worker, None)
        self._workers.setdefault(worker, {})

    def leave(self, worker: str) -> None:
        """A worker's connection has ended: nothing is open there now, and what it has counted stays."""
        if (known := self._workers.get(worker)) is None:
            return
        for name in [name for name in known if _METRICS[name[0]].kind is Kind.GAUGE]:
            del known[name]
        self._gone[worker] = None
        if len(self._gone) > _GONE:
            oldest = next(iter(self._gone))
            del self._gone[oldest]
            for name, values in self._workers.pop(oldest).items():
                self._keep(name, values)

    def take(self, worker: str, series: Iterable[Series]) -> None:
        """A worker's counts as they are now. What this version doesn't know is passed over."""
        if (known := self._workers.get(worker)) is None:
            return
        for one in series:
            metric = _METRICS.get(one.metric)
            if metric is None or not _fits(one, metric):
                continue
            name = (one.metric, one.labels)
            before = known.get(name)
            if before is not None and metric.kind is not Kind.GAUGE and _is_less(one.values, before):
                self._keep(name, before)  # another process with the same name and pid
            known[name] = one.values

    def add(self, metric: Metric, labels: tuple[str, ...], amount: float = 1) -> None:
        """Count something of the controller's own."""
        self._keep((metric.name, labels), (amount,))

    def observe(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Put a value of the controller's own into a histogram."""
        place = bisect_left(metric.bounds, value)
        buckets = tuple(int(number == place) for number in range(len(metric.bounds) + 1))
        self._keep((metric.name, labels), (value, *buckets))

    def parts(self) -> tuple[Counts, ...]:
        """What `together` adds up. Later counts don't change it, so another thread may have it."""
        return (dict(self._kept), *(dict(known) for known in self._workers.values()))

    def _keep(self, name: SeriesName, values: Values) -> None:
        before = self._kept.get(name)
        self._kept[name] = values if before is None else _sum(before, values)


def together(parts: Iterable[Counts]) -> dict[str, dict[tuple[str, ...], Values]]:
    """The sums, by metric and labels."""
    found: dict[str, dict[tuple[str, ...], Values]] = {}
    for part in parts:
        for (metric, labels), values in part.items():
            known = found.setdefault(metric, {})
            before = known.get(labels)
            known[labels] = values if before is None else _sum(before, values)
    return found


def _fits(series: Series, metric: Metric) -> bool:
    wanted = len(metric.bounds) + 2 if metric.kind is Kind.HISTOGRAM else 1
    return len(series.labels) == len(metric.labels) and len(series.values) == wanted


def _is_less(values: Values, before: Values) -> bool:
    return any(now < then for now, then in zip(values, before, strict=True))


def _sum(some: Values, more: Values) -> Values:
    return tuple(one + other for one, other in zip(some, more, strict=True))
