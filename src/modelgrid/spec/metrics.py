"""The one table of metrics: what `GET /metrics` shows, what gateway workers count, and what the docs explain.

Names and units are as Prometheus has them. Where OpenTelemetry's conventions for generative AI have the same thing, the
name without `modelgrid_`, the unit and the buckets are theirs; `otel` names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """How a metric's values behave."""

    COUNTER = "counter"  # only grows
    GAUGE = "gauge"  # as it is now
    HISTOGRAM = "histogram"  # how many were at most so large


@dataclass(frozen=True, slots=True)
class Metric:
    """One row. No label may take values that a caller can make up: a series is kept for ever."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str  # a sentence, shown by Prometheus and in the docs
    bounds: tuple[float, ...] = ()  # a histogram's: the upper ends of its buckets
    otel: str = ""


_LATENCY: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)
_PER_TOKEN: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_WAIT: Final = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_START: Final = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1200.0)

# What gateway workers count.

REQUESTS: Final = Metric(
    "modelgrid_requests_total",
    Kind.COUNTER,
    ("model", "operation", "key", "status"),
    "Requests that have ended, by the HTTP status of the answer; 499 where the caller left before its end.",
)
REQUEST_DURATION: Final = Metric(
    "modelgrid_request_duration_seconds",
    Kind.HISTOGRAM,
    ("model", "operation"),
    "From a request's last byte to its answer's last byte, for answers below status 400.",
    _LATENCY,
    "gen_ai.server.request.duration",
)
TIME_TO_FIRST_TOKEN: Final = Metric(
    "modelgrid_time_to_first_token_seconds",
    Kind.HISTOGRAM,
    ("model", "operation"),
    "From a request's last byte to the first byte of its answer's body, for streams below status 400.",
    _FIRST_TOKEN,
    "gen_ai.server.time_to_first_token",
)
TIME_PER_OUTPUT_TOKEN: Final = Metric(
    "modelgrid_time_per_output_token_seconds",
    Kind.HISTOGRAM,
    ("model", "operation"),
    "A stream's time after its first token, by the number of tokens after it, where its usage is known.",
    _PER_TOKEN,
    "gen_ai.server.time_per_output_token",
)
TOKENS: Final = Metric(
    "modelgrid_tokens_total",
    Kind.COUNTER,
    ("model", "operation", "key", "type"),
    "Tokens by type: input, output, and cached for the part of the input that an engine's cache held.",
    otel="gen_ai.client.token.usage",
)
ERRORS: Final = Metric(
    "modelgrid_errors_total",
    Kind.COUNTER,
    ("model", "code", "who"),
    "Errors that modelgrid told callers, by the error's code and who failed: request, server (modelgrid) or engine.",
)
RETRIES: Final = Metric(
    "modelgrid_retries_total",
    Kind.COUNTER,
    ("model",),
    "Requests that were sent once more, as an engine was lost before a byte of its answer came.",
)
QUEUE_TIME: Final = Metric(
    "modelgrid_queue_time_seconds",
    Kind.HISTOGRAM,
    ("model",),
    "How long requests waited for a replica, for those that had to wait.",
    _WAIT,
)
GATEWAY_CONNECTIONS: Final = Metric(
    "modelgrid_gateway_connections",
    Kind.GAUGE,
    ("worker",),
    "Callers' connections that are open.",
)

# What the controller knows.

REQUESTS_IN_FLIGHT: Final = Metric(
    "modelgrid_requests_in_flight",
    Kind.GAUGE,
    ("model",),
    "Requests that replicas are at work on; none is shown where a gateway worker has not told.",
)
REQUESTS_WAITING: Final = Metric(
    "modelgrid_requests_waiting", Kind.GAUGE, ("model",), "Requests that wait for a replica."
)
MODEL_STATE: Final = Metric(
    "modelgrid_model_state",
    Kind.GAUGE,
    ("model", "state"),
    "1 for the state that a model is in (ready, starting, asleep, cold, failed or unavailable), 0 for the others.",
)
REPLICAS: Final = Metric(
    "modelgrid_replicas",
    Kind.GAUGE,
    ("model", "state"),
    "Replicas, by state: starting, ready, asleep, draining, stopping or failed.",
)
EVENTS: Final = Metric(
    "modelgrid_events_total",
    Kind.COUNTER,
    ("model", "event"),
    "What has happened to models and replicas, by the words of `modelgrid why`: start, ready, failed, gone and so on.",
)
COLD_START: Final = Metric(
    "modelgrid_cold_start_seconds",
    Kind.HISTOGRAM,
    ("model",),
    "From the first request that waited for a replica, or the decision to start it, until it was ready.",
    _START,
)
WAKE: Final = Metric(
    "modelgrid_wake_seconds",
    Kind.HISTOGRAM,
    ("model",),
    "From the first request for a replica that slept until it was ready again, for those that became so.",
    _LATENCY,
)
START_PHASE: Final = Metric(
    "modelgrid_start_phase_seconds_total",
    Kind.COUNTER,
    ("model", "phase"),
    "How long the phases of cold starts took: queued, weights, environment, spawn, load and first_request.",
)
MEMORY_BUDGET: Final = Metric("modelgrid_memory_budget_bytes", Kind.GAUGE, (), "Memory that models may take together.")
MEMORY_PLANNED: Final = Metric(
    "modelgrid_memory_planned_bytes",
    Kind.GAUGE,
    ("model",),
    "Memory that is counted for a model's replicas until they are gone.",
)
MEMORY_RESIDENT: Final = Metric(
    "modelgrid_memory_resident_bytes",
    Kind.GAUGE,
    ("model",),
    "Memory that a model's replicas were seen to hold, where that can be seen.",
)
ENGINE_RUNNING: Final = Metric(
    "modelgrid_engine_requests_running",
    Kind.GAUGE,
    ("model",),
    "Requests that engines say they compute, over a model's replicas; none is shown where they don't say.",
)
ENGINE_WAITING: Final = Metric(
    "modelgrid_engine_requests_waiting",
    Kind.GAUGE,
    ("model",),
    "Requests that engines say wait within them.",
)
ENGINE_CACHE_USAGE: Final = Metric(
    "modelgrid_engine_cache_usage_ratio",
    Kind.GAUGE,
    ("model",),
    "The share of its KV cache that an engine says is in use, the largest of a model's replicas.",
)
GATEWAY_WORKERS: Final = Metric(
    "modelgrid_gateway_workers", Kind.GAUGE, (), "Gateway workers that are connected to the controller."
)
CONTROLLER_ACTS: Final = Metric(
    "modelgrid_controller_acts",
    Kind.GAUGE,
    (),
    "0 while the controller can't act, for its store can't be read or written.",
)
CONFIG_IN_FORCE: Final = Metric(
    "modelgrid_config_in_force",
    Kind.GAUGE,
    (),
    "0 while the configuration file has a mistake, or a part that takes effect at the next start.",
)
CONTROLLER_START: Final = Metric(
    "modelgrid_controller_start_time_seconds",
    Kind.GAUGE,
    (),
    "When the controller began, in seconds since the epoch.",
)
BUILD_INFO: Final = Metric("modelgrid_build_info", Kind.GAUGE, ("version",), "Always 1; the label says what runs.")

METRICS: Final = (
    REQUESTS,
    REQUEST_DURATION,
    TIME_TO_FIRST_TOKEN,
    TIME_PER_OUTPUT_TOKEN,
    TOKENS,
    ERRORS,
    RETRIES,
    QUEUE_TIME,
    GATEWAY_CONNECTIONS,
    REQUESTS_IN_FLIGHT,
    REQUESTS_WAITING,
    MODEL_STATE,
    REPLICAS,
    EVENTS,
    COLD_START,
    WAKE,
    START_PHASE,
    MEMORY_BUDGET,
    MEMORY_PLANNED,
    MEMORY_RESIDENT,
    ENGINE_RUNNING,
    ENGINE_WAITING,
    ENGINE_CACHE_USAGE,
    GATEWAY_WORKERS,
    CONTROLLER_ACTS,
    CONFIG_IN_FORCE,
    CONTROLLER_START,
    BUILD_INFO,
)
