"""Arrivals: read from a recording, or made by a stated law."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random

_TIME = ("timestamp", "time", "arrival_timestamp", "arrived_at", "arrival")
_INPUT = ("contexttokens", "request tokens", "input_length", "input_tokens", "num_prefill_tokens", "prompt_tokens")
_OUTPUT = ("generatedtokens", "response tokens", "output_length", "output_tokens", "num_decode_tokens")


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when it comes, in seconds from the trace's begin, and how much it asks for."""

    number: int
    at: float
    input_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        """What it takes of the cache in the end."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Requests, in the order in which they come."""

    name: str
    requests: Sequence[Request]

    @property
    def duration_s(self) -> float:
        """From its begin to the last arrival."""
        return self.requests[-1].at


def read(path: Path, name: str | None = None) -> Trace:
    """A recording with one request a line: time (a date or seconds), tokens of the prompt, tokens of the answer. The
    columns are known by the names of Azure's and BurstGPT's. Raises ValueError."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        head = [cell.strip().lower() for cell in next(lines, [])]
        columns = [_column(head, names, path) for names in (_TIME, _INPUT, _OUTPUT)]
        rows = [tuple(line[column] for column in columns) for line in lines if line]
    found = sorted((_seconds(time), int(float(read)), int(float(written))) for time, read, written in rows)
    if not found:
        raise ValueError(f"cannot read {path}: it has no requests")
    begin = found[0][0]
    return Trace(
        name or path.stem,
        [Request(number, at - begin, max(1, i), max(1, o)) for number, (at, i, o) in enumerate(found)],
    )


def faster(trace: Trace, times: int) -> Trace:
    """The same requests in less time."""
    return Trace(
        f"{trace.name}, {times} x as fast",
        [Request(r.number, r.at / times, r.input_tokens, r.output_tokens) for r in trace.requests],
    )


def denser(trace: Trace, times: int, seed: int) -> Trace:
    """Each request so many times, the copies up to half a minute apart: the same hour with more callers."""
    random = Random(seed)  # noqa: S311  not for secrets
    copies = ((r.at + random.uniform(0, 30), r) for r in trace.requests for _ in range(times))
    ordered = sorted(copies, key=lambda copy: (copy[0], copy[1].number))
    return Trace(
        f"{trace.name}, {times} x as many",
        [Request(number, at, r.input_tokens, r.output_tokens) for number, (at, r) in enumerate(ordered)],
    )


def made(name: str, rate: Callable[[float], float], most: float, duration_s: float, seed: int, mix: Mix) -> Trace:
    """Arrivals of a Poisson process whose rate changes over time and is never above `most` a second."""
    random = Random(seed)  # noqa: S311  not for secrets
    requests: list[Request] = []
    at = 0.0
    while (at := at + random.expovariate(most)) < duration_s:
        if random.random() * most < rate(at):
            requests.append(Request(len(requests), at, mix.input(random), mix.output(random)))
    return Trace(name, requests)


@dataclass(frozen=True, slots=True)
class Mix:
    """Lengths of prompts and answers: lognormal, by their medians and widths, and cut off."""

    input_median: float = 800.0
    input_width: float = 0.9
    output_median: float = 150.0
    output_width: float = 0.8

    def input(self, random: Random) -> int:
        """A prompt's tokens."""
        return _length(random, self.input_median, self.input_width, 8_000)

    def output(self, random: Random) -> int:
        """An answer's tokens."""
        return _length(random, self.output_median, self.output_width, 2_000)


def _length(random: Random, median: float, width: float, most: int) -> int:
    return max(1, min(most, int(random.lognormvariate(math.log(median), width))))


def _column(head: Sequence[str], names: Sequence[str], path: Path) -> int:
    for name in names:
        if name in head:
            return head.index(name)
    raise ValueError(f"cannot read {path}: it has no column {' or '.join(names)}")


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text.strip()[:26]).timestamp()
