"""An engine's load, read off its own page of Prometheus metrics. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelgrid.spec import EngineLoad


@dataclass(frozen=True, slots=True)
class Reading:
    """What an engine said of itself a moment ago."""

    running: int
    waiting: int
    cache: float | None = None  # share of its KV cache that is in use, 0 to 1


def read_load(page: str, load: EngineLoad) -> Reading | None:
    """None where the page lacks them. A page has thousands of lines and is read every two seconds, so only the lines
    that count are looked into."""
    running, waiting = list(_values(page, load.running)), list(_values(page, load.waiting))
    if not running or not waiting:
        return None
    cache = list(_values(page, load.cache)) if load.cache is not None else []
    return Reading(int(sum(running)), int(sum(waiting)), max(cache, default=None))


def _values(page: str, name: str) -> Iterator[float]:
    """The samples of one metric: ``name 3.0``, ``name{label="a"} 3.0``, and a time after it, maybe."""
    start = page.find(f"\n{name}")
    while start >= 0:
        start += 1 + len(name)
        end = page.find("\n", start)
        rest = page[start : end if end >= 0 else None]
        if rest[:1] in ("{", " ", "\t"):
            _, _, sample = rest.rpartition("}")
            try:
                yield float(sample.split()[0])
            except (ValueError, IndexError):
                return
        start = page.find(f"\n{name}", start)
