"""What the Grafana dashboard shows: a table of rows and panels, and what each asks Prometheus for.

``$HERE`` stands for the instances that are chosen on it, ``$MODEL`` for the instances and models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_PERCENTILES: Final = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: queries as (expression, legend), and a sentence on how to read it."""

    title: str
    says: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    wide: int = 8
    is_stacked: bool = False
    words: tuple[tuple[str, str, str], ...] = ()  # value, text, colour
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def _percentiles(metric: str, over: str = "$__rate_interval") -> tuple[tuple[str, str], ...]:
    """The median and the tails of a histogram, of what came in a time."""
    return tuple(
        (f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{$MODEL}}[{over}])))", f"p{share * 100:g}")
        for share in _PERCENTILES
    )


def _tail(metric: str, by: str) -> tuple[tuple[str, str], ...]:
    """The 95th percentile, by a label."""
    return (
        (
            f"histogram_quantile(0.95, sum by (le, {by}) (rate({metric}_bucket{{$MODEL}}[$__rate_interval])))",
            f"{{{{{by}}}}}",
        ),
    )


def _rate(metric: str, by: str, more: str = "") -> tuple[tuple[str, str], ...]:
    """A counter's growth a second, by labels."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return ((f"sum by ({by}) (rate({metric}{{$MODEL{more}}}[$__rate_interval]))", legend),)


_NO_YES: Final = (("0", "no", "red"), ("1", "yes", "green"))

ROWS: Final = (
    Row(
        "Is it well",
        (
            Panel(
                "Controller acts",
                "No: its store can't be read or written. Models stay as they are, and callers are served.",
                (("min(modelgrid_controller_acts{$HERE})", ""),),
                kind="stat",
                wide=4,
                words=_NO_YES,
            ),
            Panel(
                "Configuration in force",
                "No: the file has a mistake, or a part that takes effect at the next start.",
                (("min(modelgrid_config_in_force{$HERE})", ""),),
                kind="stat",
                wide=4,
                words=_NO_YES,
            ),
            Panel(
                "Models by state",
                "A cold or a sleeping model starts with its next request. Failed and unavailable: modelgrid why NAME.",
                (("sum by (state) (modelgrid_model_state{$MODEL}) > 0", "{{state}}"),),
                kind="stat",
                wide=8,
            ),
            Panel(
                "Controller runs since",
                "A later time than that of the last start or update: it was started again.",
                (("max by (instance) (modelgrid_controller_start_time_seconds{$HERE}) * 1000", "{{instance}}"),),
                unit="dateTimeFromNow",
                kind="stat",
                wide=4,
            ),
            Panel(
                "Version",
                "What runs, by instance.",
                (("max by (instance, version) (modelgrid_build_info{$HERE})", "{{version}}"),),
                kind="stat",
                wide=4,
            ),
        ),
    ),
    Row(
        "Traffic and errors",
        (
            Panel(
                "Requests by model",
                "Requests that ended, a second.",
                _rate("modelgrid_requests_total", "model"),
                "reqps",
            ),
            Panel(
                "Requests by status",
                "As callers saw them; 499: the caller left. Errors of engines come as they are and count here alone.",
                _rate("modelgrid_requests_total", "status"),
                "reqps",
                is_stacked=True,
            ),
            Panel(
                "Requests by operation",
                "What is asked of the models.",
                _rate("modelgrid_requests_total", "operation"),
                "reqps",
                is_stacked=True,
            ),
            Panel(
                "Errors by who failed",
                "What modelgrid told callers: request is the caller, server is modelgrid, engine the model's engine.",
                _rate("modelgrid_errors_total", "who"),
                "reqps",
                is_stacked=True,
            ),
            Panel(
                "Errors by code",
                "docs/reference/errors.md has each with what to do next.",
                _rate("modelgrid_errors_total", "code, model"),
                "reqps",
            ),
            Panel(
                "Share of requests that failed",
                "Answers of 500 and above, whoever failed.",
                (
                    (
                        'sum by (model) (rate(modelgrid_requests_total{$MODEL, status=~"5.."}[$__rate_interval]))'
                        " / sum by (model) (rate(modelgrid_requests_total{$MODEL}[$__rate_interval]))",
                        "{{model}}",
                    ),
                ),
                "percentunit",
                most=1,
            ),
            Panel(
                "Sent once more",
                "An engine was lost before a byte of its answer came: callers noticed nothing but time.",
                _rate("modelgrid_retries_total", "model"),
                "reqps",
            ),
        ),
    ),
    Row(
        "Latency",
        (
            Panel(
                "Time to the first token",
                "Of streams below status 400, waiting for a replica included.",
                _percentiles("modelgrid_time_to_first_token_seconds"),
                "s",
            ),
            Panel(
                "Time between tokens",
                "Of streams whose usage is known.",
                _percentiles("modelgrid_time_per_output_token_seconds"),
                "s",
            ),
            Panel(
                "Whole answers",
                "From a request's last byte to its answer's, below status 400.",
                _percentiles("modelgrid_request_duration_seconds"),
                "s",
            ),
            Panel(
                "Time to the first token by model, p95",
                "Which model is slow to begin.",
                _tail("modelgrid_time_to_first_token_seconds", "model"),
                "s",
            ),
            Panel(
                "Time between tokens by model, p95",
                "Which model is slow to speak.",
                _tail("modelgrid_time_per_output_token_seconds", "model"),
                "s",
            ),
            Panel(
                "Whole answers by operation, p95",
                "Pictures, films and speech take other times than chats.",
                _tail("modelgrid_request_duration_seconds", "operation"),
                "s",
            ),
        ),
    ),
    Row(
        "Queue",
        (
            Panel(
                "Time in the queue",
                "Of those requests alone that had to wait for a replica.",
                _percentiles("modelgrid_queue_time_seconds"),
                "s",
            ),
            Panel(
                "Waiting for a replica",
                "Requests, by model.",
                (("sum by (model) (modelgrid_requests_waiting{$MODEL})", "{{model}}"),),
                is_stacked=True,
            ),
            Panel(
                "In flight",
                "Requests that replicas are at work on.",
                (("sum by (model) (modelgrid_requests_in_flight{$MODEL})", "{{model}}"),),
                is_stacked=True,
            ),
        ),
    ),
    Row(
        "Tokens",
        (
            Panel(
                "Tokens by type",
                "Cached tokens are a part of the input.",
                _rate("modelgrid_tokens_total", "type"),
                "cps",
            ),
            Panel(
                "Output tokens by model",
                "What the models say.",
                _rate("modelgrid_tokens_total", "model", ', type="output"'),
                "cps",
            ),
            Panel(
                "Input and output tokens by key",
                "Over the time shown, the ten keys with most. No name: no key is asked for.",
                (
                    (
                        "topk(10, sum by (key) "
                        '(increase(modelgrid_tokens_total{$MODEL, type=~"input|output"}[$__range])))',
                        "{{key}}",
                    ),
                ),
                kind="bargauge",
            ),
        ),
    ),
    Row(
        "Replicas and cold starts",
        (
            Panel(
                "Replicas by state",
                "A replica counts until its process is gone.",
                (("sum by (state) (modelgrid_replicas{$MODEL})", "{{state}}"),),
                is_stacked=True,
            ),
            Panel(
                "Ready replicas by model",
                "What serves.",
                (('sum by (model) (modelgrid_replicas{$MODEL, state="ready"})', "{{model}}"),),
                is_stacked=True,
            ),
            Panel(
                "What happened",
                "Events in the time between two points: the words of modelgrid why.",
                (("sum by (event) (increase(modelgrid_events_total{$MODEL}[$__rate_interval]))", "{{event}}"),),
            ),
            Panel(
                "Cold starts",
                "From the first request that waited, or the decision to start, until it was ready; over the last hour.",
                _percentiles("modelgrid_cold_start_seconds", "1h"),
                "s",
            ),
            Panel(
                "Wakings",
                "From the first request for a replica that slept until it was ready; over the last hour.",
                _percentiles("modelgrid_wake_seconds", "1h"),
                "s",
            ),
            Panel(
                "Time in the phases of starts",
                "Where the seconds of the last hour's cold starts went.",
                (("sum by (phase) (increase(modelgrid_start_phase_seconds_total{$MODEL}[1h]))", "{{phase}}"),),
                "s",
                is_stacked=True,
            ),
        ),
    ),
    Row(
        "Memory",
        (
            Panel(
                "Memory of all models",
                "Planned: what is counted for them. Resident: what they were seen to hold.",
                (
                    ("sum(modelgrid_memory_budget_bytes{$HERE})", "budget"),
                    ("sum(modelgrid_memory_planned_bytes{$HERE})", "planned"),
                    ("sum(modelgrid_memory_resident_bytes{$HERE})", "resident"),
                ),
                "bytes",
            ),
            Panel(
                "Planned by model",
                "Until its replicas are gone.",
                (("sum by (model) (modelgrid_memory_planned_bytes{$MODEL})", "{{model}}"),),
                "bytes",
                is_stacked=True,
            ),
            Panel(
                "Resident by model",
                "Where it can be seen. More than planned: set needs.memory.",
                (("sum by (model) (modelgrid_memory_resident_bytes{$MODEL})", "{{model}}"),),
                "bytes",
                is_stacked=True,
            ),
        ),
    ),
    Row(
        "What engines say",
        (
            Panel(
                "Computed by engines",
                "Requests in their batches.",
                (("sum by (model) (modelgrid_engine_requests_running{$MODEL})", "{{model}}"),),
                is_stacked=True,
            ),
            Panel(
                "Waiting within engines",
                "Requests that an engine has taken and not begun: it has no room for them.",
                (("sum by (model) (modelgrid_engine_requests_waiting{$MODEL})", "{{model}}"),),
                is_stacked=True,
            ),
            Panel(
                "KV cache in use",
                "The fullest replica's share.",
                (("max by (model) (modelgrid_engine_cache_usage_ratio{$MODEL})", "{{model}}"),),
                "percentunit",
                most=1,
            ),
        ),
    ),
    Row(
        "Gateway",
        (
            Panel(
                "Gateway workers",
                "Those that are connected to the controller.",
                (("sum by (instance) (modelgrid_gateway_workers{$HERE})", "{{instance}}"),),
                wide=12,
            ),
            Panel(
                "Connections by worker",
                "Of callers, open now.",
                (("sum by (instance, worker) (modelgrid_gateway_connections{$HERE})", "{{worker}}"),),
                wide=12,
                is_stacked=True,
            ),
        ),
    ),
)
