"""What is tried: a recorded hour, variants of it, and arrivals that are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bench.autoscale.trace import Mix, Trace, denser, faster, made, read

_HOUR_S = 3_600.0
_LONG = Mix(input_median=1_500, input_width=0.7, output_median=25, output_width=0.8)  # code: much read, little written


@dataclass(frozen=True, slots=True)
class Scenario:
    """A trace, how long a start takes, and the objective."""

    trace: Trace
    load_s: float
    ttft_s: float


def scenarios(recorded: Path, others: tuple[Path, ...] = ()) -> Iterator[Scenario]:
    """The recorded hour first, then its variants, what is made, and other recordings."""
    hour = read(recorded, "azure")
    for load_s in (60.0, 120.0):
        for ttft_s in (0.5, 1.0):
            yield Scenario(hour, load_s, ttft_s)
    for path in others:
        trace = read(path)
        yield Scenario(trace, 60.0, 0.5)
        yield Scenario(trace, 60.0, 1.0)
    yield Scenario(denser(hour, 2, seed=1), 60.0, 0.5)
    for times in (2, 4, 8):
        yield Scenario(faster(hour, times), 60.0, 0.5)
    yield Scenario(made("waves", _wave, 9.0, 1.5 * _HOUR_S, 2, Mix()), 60.0, 0.5)
    yield Scenario(made("bursts", _bursts(3), 12.0, _HOUR_S, 3, Mix()), 60.0, 0.5)
    yield Scenario(made("steps", _steps, 12.0, _HOUR_S, 4, Mix()), 60.0, 0.5)
    yield Scenario(made("code", _bursts(5), 12.0, _HOUR_S, 5, _LONG), 60.0, 1.0)


def _wave(at: float) -> float:
    """Two days of 45 minutes."""
    return 5.0 - 4.0 * math.cos(2 * math.pi * at / 2_700)


def _steps(at: float) -> float:
    return (3.0, 9.0, 6.0, 12.0, 2.0, 5.0)[int(at // 600) % 6]


def _bursts(seed: int) -> Callable[[float], float]:
    """Three requests a second, and now and then up to twelve, for one to four minutes."""
    random = Random(seed)  # noqa: S311  not for secrets
    bursts: list[tuple[float, float, float]] = []
    at = 0.0
    while (at := at + random.expovariate(1 / 360)) < _HOUR_S:
        bursts.append((at, at := at + random.uniform(60, 240), random.uniform(6, 12)))
    return lambda now: next((high for begin, end, high in bursts if begin <= now < end), 3.0)
