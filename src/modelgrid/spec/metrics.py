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
    "Tokens, as engines tell them: input, output, and cached for the part of the input that a cache held.",
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
)
