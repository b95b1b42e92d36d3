"""What a worker counts of its requests. Counting is a few additions; whatever costs more is left to the snapshot."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import islice
from math import inf
from typing import Final

from modelgrid.gateway import answers
from modelgrid.gateway.accounts import CALLER_LEFT as CALLER_LEFT
from modelgrid.gateway.accounts import OTHER, Accounts
from modelgrid.gateway.tally import Tallies
from modelgrid.spec import metrics
from modelgrid.spec.messages import Series
from modelgrid.spec.metrics import Metric

METERS: Final = 10_000  # for more, the key is "other"
METERS_A_SNAPSHOT: Final = 500  # so that it takes 3 ms, and a Load is a line of some 200 KB; the rest comes next

_WHO: Final[Mapping[str, str]] = {answers.REQUEST: "request", answers.SERVER: "server", answers.ENGINE: "engine"}


def _values(metric: Metric) -> list[float]:
    """As `Series` has them: a histogram's sum stands first, so its first bucket is number 1."""
    return [0.0] + [0] * (len(metric.bounds) + 1) if metric.bounds else [0]


def _ends(metric: Metric) -> tuple[float, ...]:
    """A histogram's bounds, such that bisect_left finds a value's place in `_values`."""
    return (-inf, *metric.bounds)


_DURATION_ENDS: Final = _ends(metrics.REQUEST_DURATION)
_FIRST_TOKEN_ENDS: Final = _ends(metrics.TIME_TO_FIRST_TOKEN)
_PER_TOKEN_ENDS: Final = _ends(metrics.TIME_PER_OUTPUT_TOKEN)
_QUEUE_TIME_ENDS: Final = _ends(metrics.QUEUE_TIME)


class _Times:
    """The histograms of one model and operation; callers of every key share them."""

    __slots__ = ("durations", "first_tokens", "labels", "per_token")

    def __init__(self, model: str, operation: str) -> None:
        self.labels = (model, operation)
        self.durations = _values(metrics.REQUEST_DURATION)
        self.first_tokens = _values(metrics.TIME_TO_FIRST_TOKEN)
        self.per_token = _values(metrics.TIME_PER_OUTPUT_TOKEN)

    def series(self) -> Iterator[Series]:
        for metric, values in (
            (metrics.REQUEST_DURATION, self.durations),
            (metrics.TIME_TO_FIRST_TOKEN, self.first_tokens),
            (metrics.TIME_PER_OUTPUT_TOKEN, self.per_token),
        ):
            if any(values):
                yield Series(metric.name, self.labels, tuple(values))


class Meter:
    """The requests of one model, operation and key. Made by `Meters.of`."""

    __slots__ = (
        "_cached_tokens",
        "_changed",
        "_durations",
        "_first_tokens",
        "_input_tokens",
        "_is_changed",
        "_labels",
        "_output_tokens",
        "_per_token",
        "_statuses",
        "_times",
    )

    def __init__(self, labels: tuple[str, str, str], times: _Times, changed: list[Meter]) -> None:
        self._labels = labels
        self._times = times
        self._changed = changed
        self._is_changed = False
        self._durations = times.durations
        self._first_tokens = times.first_tokens
        self._per_token = times.per_token
        self._statuses: dict[int, int] = {}
        self._input_tokens = 0
        self._output_tokens = 0
        self._cached_tokens = 0

    def done(
        self,
        status: int,
        duration_s: float,
        first_byte_s: float = 0.0,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
    ) -> None:
        """A request has ended, once for each, however it did: `status` is what its caller got, or `CALLER_LEFT`.

        `first_byte_s` is 0 for what is no stream, tokens are 0 where no usage was told. Cached tokens are a part of the
        input tokens.
        """
        if not self._is_changed:
            self._is_changed = True
            self._changed.append(self)
        try:
            self._statuses[status] += 1
        except KeyError:
            self._statuses[status] = 1
        if status < 400:
            buckets = self._durations
            buckets[bisect_left(_DURATION_ENDS, duration_s)] += 1
            buckets[0] += duration_s
            if first_byte_s:
                buckets = self._first_tokens
                buckets[bisect_left(_FIRST_TOKEN_ENDS, first_byte_s)] += 1
                buckets[0] += first_byte_s
                if output_tokens > 1:
                    each_s = (duration_s - first_byte_s) / (output_tokens - 1)
                    buckets = self._per_token
                    buckets[bisect_left(_PER_TOKEN_ENDS, each_s)] += 1
                    buckets[0] += each_s
        if input_tokens:
            self._input_tokens += input_tokens
            self._cached_tokens += cached_tokens
        if output_tokens:
            self._output_tokens += output_tokens

    def series(self) -> Iterator[Series]:
        """All that it has counted, but for what it shares."""
        for status, count in self._statuses.items():
            yield Series(metrics.REQUESTS.name, (*self._labels, str(status)), (count,))
        for kind, tokens in (
            ("input", self._input_tokens),
            ("output", self._output_tokens),
            ("cached", self._cached_tokens),
        ):
            if tokens:
                yield Series(metrics.TOKENS.name, (*self._labels, kind), (tokens,))

    def touch(self) -> None:
        """Be in the next snapshot."""
        if not self._is_changed:
            self._is_changed = True
            self._changed.append(self)

    def settle(self) -> _Times:
        """A snapshot has it; answers what it shares."""
        self._is_changed = False
        return self._times


class Meters:
    """One worker's counts. Labels are of the routing table and of ours, never a caller's words: a model that isn't
    there is "", and so is no key."""

    def __init__(self, worker: str, limit: int = METERS) -> None:
        self.tallies = Tallies()  # what isn't a metric, but what scaling asks
        self.accounts = Accounts()  # and what is paid for
        self._limit = limit
        self._meters: dict[tuple[str, str, str], Meter] = {}
        self._times: dict[tuple[str, str], _Times] = {}
        self._changed: list[Meter] = []
        self._rare: dict[tuple[str, tuple[str, ...]], list[float]] = {}
        self._rare_changed: dict[tuple[str, tuple[str, ...]], None] = {}  # in order of change
        self._worker = worker
        self._connections = -1  # as they were told last

    def of(self, model: str, operation: str, key_name: str) -> Meter:
        """The meter of requests of the key of that name."""
        return self._meters.get((model, operation, key_name)) or self._make(model, operation, key_name)

    # What doesn't happen with every request.

    def failed(self, model: str, kind: str, code: str) -> None:
        """A caller was told an error of ours: `kind` is `answers.REQUEST`, `SERVER` or `ENGINE`."""
        self._one(metrics.ERRORS, (model, code, _WHO[kind]))[0] += 1

    def turned_away(self, operation: str, status: int) -> None:
        """A request has ended that never became one of a model's: nobody is told whose it was."""
        self.of("", operation, "").done(status, 0.0)
        self.accounts.of("", "", operation).close(status, 0.0)

    def retried(self, model: str) -> None:
        """A request is sent once more."""
        self._one(metrics.RETRIES, (model,))[0] += 1

    def waited(self, model: str, waited_s: float) -> None:
        """A request has waited for a replica, and now waits no longer: it has one, has given up, or its caller has."""
        values = self._one(metrics.QUEUE_TIME, (model,))
        values[bisect_left(_QUEUE_TIME_ENDS, waited_s)] += 1
        values[0] += waited_s

    # What the controller is told.

    def snapshot(self, connections: int, limit: int = METERS_A_SNAPSHOT) -> tuple[Series, ...]:
        """What has changed since the last snapshot, or `limit` of it: then the next one goes on. `connections` are
        open now."""
        if self._connections != connections:
            self._connections = connections
            self._one(metrics.GATEWAY_CONNECTIONS, (self._worker,))[0] = connections
        meters = self._changed[:limit]
        del self._changed[:limit]
        times = {meter.settle(): None for meter in meters}  # in order, each once
        rare = list(islice(self._rare_changed, limit))
        for key in rare:
            del self._rare_changed[key]
        found = [series for meter in meters for series in meter.series()]
        found += [series for shared in times for series in shared.series()]
        found += [Series(name, labels, tuple(self._rare[name, labels])) for name, labels in rare]
        return tuple(found)

    @property
    def is_told(self) -> bool:
        """Nothing has changed since the last snapshot, but perhaps connections."""
        return not self._changed and not self._rare_changed and self.tallies.is_told and self.accounts.is_told

    def resend(self) -> None:
        """Who is told now knows nothing: the next snapshots have everything."""
        for meter in self._meters.values():
            meter.touch()
        self._rare_changed = dict.fromkeys(self._rare)
        self.accounts.resend()

    def _make(self, model: str, operation: str, key_name: str) -> Meter:
        if len(self._meters) >= self._limit and key_name != OTHER:
            return self.of(model, operation, OTHER)  # as many as models and operations at most, which are declared
        times = self._times.get((model, operation))
        if times is None:
            times = self._times[model, operation] = _Times(model, operation)
        meter = Meter((model, operation, key_name), times, self._changed)
        self._meters[model, operation, key_name] = meter
        return meter

    def _one(self, metric: Metric, labels: tuple[str, ...]) -> list[float]:
        """The values of a series that is changed now."""
        key = (metric.name, labels)
        values = self._rare.get(key)
        if values is None:
            values = self._rare[key] = _values(metric)
        self._rare_changed[key] = None
        return values
