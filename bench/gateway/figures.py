"""The rows of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. Less is better, except for `is_rate`."""

    label: str
    unit: str
    decimals: int = 1
    is_rate: bool = False
    is_added: bool = False  # what the upstream takes by itself is taken off
    has_ratio: bool = False  # to nginx


_US = "µs"
_MS = "ms"
_MB = "MB"

# fmt: off
FIGURES: Final = {
    "cpu-300":       Figure("CPU a request, 300 B",                     _US, has_ratio=True),
    "cpu-heads":     Figure("CPU a request, 300 B, heads that differ",  _US, has_ratio=True),
    "cpu-8k":        Figure("CPU a request, 8 KB",                      _US, has_ratio=True),
    "cpu-1m":        Figure("CPU a request, 1 MB",                      _US, 0, has_ratio=True),
    "cpu-rate":      Figure("CPU a request, 300 B, at the fixed rate",  _US, has_ratio=True),
    "cpu-chunk":     Figure("CPU a chunk, 200 streams",                 _US, has_ratio=True),
    "added-p50":     Figure("added latency at the fixed rate, p50",     _MS, 3, is_added=True),
    "added-p99":     Figure("added latency at the fixed rate, p99",     _MS, 3, is_added=True),
    "added-p999":    Figure("added latency at the fixed rate, p99.9",   _MS, 3, is_added=True),
    "first-p50":     Figure("added time to the first token, p50",       _MS, 3, is_added=True),
    "first-p99":     Figure("added time to the first token, p99",       _MS, 3, is_added=True),
    "rss-rest":      Figure("memory at rest, RSS",                      _MB),
    "pss-rest":      Figure("memory at rest, PSS",                      _MB),
    "rss-idle":      Figure("memory, 1,000 idle connections, RSS",      _MB),
    "pss-idle":      Figure("memory, 1,000 idle connections, PSS",      _MB),
    "rss-streams":   Figure("memory, 1,000 active streams, RSS",        _MB),
    "pss-streams":   Figure("memory, 1,000 active streams, PSS",        _MB),
    "stream-memory": Figure("memory for each further stream",           "KB"),
    "rps-1":         Figure("requests a second, 1 worker",              "/s", 0, is_rate=True, has_ratio=True),
    "rps-2":         Figure("requests a second, 2 workers",             "/s", 0, is_rate=True, has_ratio=True),
}
# fmt: on

GROUPS: Final = {
    "cpu": ("cpu-300", "cpu-heads", "cpu-8k", "cpu-1m"),
    "chunks": ("cpu-chunk",),
    "latency": ("added-p50", "added-p99", "added-p999", "cpu-rate"),
    "first": ("first-p50", "first-p99"),
    "memory": ("rss-rest", "pss-rest", "rss-idle", "pss-idle", "rss-streams", "pss-streams", "stream-memory"),
    "throughput": ("rps-1", "rps-2"),
}
