"""What a service counts: `GET /metrics`, in Prometheus' format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Meters:
    """The counters of one service."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "modelgrid_service_requests", "Requests answered.", ("path", "status"), registry=registry
        )
        self.seconds = Histogram(
            "modelgrid_service_request_duration_seconds",
            "From a request's head to the end of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.running = Gauge("modelgrid_service_requests_running", "Requests that are computed now.", registry=registry)
        self.waiting = Gauge("modelgrid_service_requests_waiting", "Requests that wait for it.", registry=registry)
        self.batches = Histogram(
            "modelgrid_service_batch_size",
            "Requests that were computed together.",
            buckets=_BATCHES,
            registry=registry,
        )
        self.abandoned = Counter(
            "modelgrid_service_requests_abandoned", "Requests whose caller left before the answer.", registry=registry
        )
        self.out_of_memory = Counter(
            "modelgrid_service_out_of_memory", "Turns that ran out of memory.", registry=registry
        )

    def page(self) -> bytes:
        """All of it as text."""
        return generate_latest(self._registry)
