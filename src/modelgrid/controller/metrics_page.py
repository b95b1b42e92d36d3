"""The reference page of the metrics, made from their table."""

from __future__ import annotations

import sys

from modelgrid.spec.metrics import METRICS, Kind, Metric

_INTRODUCTION = """\
# Metrics

`GET /metrics` on the gateway's port answers in Prometheus' text format, for all gateway workers together. So does the
control API, on its Unix socket.

```yaml
scrape_configs:
  - job_name: modelgrid
    static_configs: [{targets: ["127.0.0.1:9000"]}]
```

Names and units are Prometheus'. Where OpenTelemetry's conventions for generative AI describe the same thing, its
buckets are theirs, and the table names it.

- Counters grow for as long as the controller or one of the workers lives; `rate()` and `increase()` take care of the
  rest. A worker that ends doesn't take its counts along.
- `model` is a model's name, whatever alias the caller used. It is empty for requests that named no model that is there.
- `operation` is what was asked of the model: `chat`, `completions`, `embeddings` and so on.
- `key` is the name of the caller's key, empty where none is asked for. A worker has 10,000 series of model, operation
  and key; beyond them the key is `other`.
- `who` says who failed: `request` (the caller), `server` (modelgrid) or `engine`.

```
# requests a second that failed, by model
sum by (model) (rate(modelgrid_requests_total{status=~"5.."}[5m]))
# the time to the first token that 95 of 100 streams stay below
histogram_quantile(0.95, sum by (model, le) (rate(modelgrid_time_to_first_token_seconds_bucket[5m])))
# output tokens of the last day, by key
sum by (key) (increase(modelgrid_tokens_total{type="output"}[1d]))
```

<!-- made by `python -m modelgrid.controller.metrics_page`, which prints this page -->
"""


def reference() -> str:
    """``docs/reference/metrics.md``."""
    rows = "".join(_row(metric) for metric in METRICS)
    buckets = "".join(_buckets(metric) for metric in METRICS if metric.kind is Kind.HISTOGRAM)
    return (
        f"{_INTRODUCTION}\n## All of them\n\n| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n{rows}"
        f"\n## Buckets\n\n| histogram | upper ends, in seconds |\n| --- | --- |\n{buckets}"
    )


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    otel = f" OpenTelemetry: `{metric.otel}`." if metric.otel else ""
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help}{otel} |\n"


def _buckets(metric: Metric) -> str:
    return f"| `{metric.name}` | {', '.join(f'{end:g}' for end in metric.bounds)} |\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
