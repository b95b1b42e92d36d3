"""Each scenario under each policy, and who needed less for as much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil

from bench.autoscale.policies import Fixed, Modelgrid, TargetOngoing
from bench.autoscale.replica import Figures
from bench.autoscale.scenarios import Scenario
from bench.autoscale.simulate import Policy, Result, simulate
from bench.autoscale.trace import Trace

from modelgrid.spec import Scaling

ATTAIN = (0.90, 0.95, 0.98)
TARGETS = (4, 6, 8, 12, 16, 20, 24, 32, 48)
DELAYS = ((30.0, 600.0, 30.0), (0.0, 600.0, 30.0), (0.0, 120.0, 10.0), (10.0, 60.0, 10.0))  # up, down, mean
_WARM = 1 / 12  # of a trace counts for nothing: nobody has to know the load before it came
_MOST = 4.0  # fixed numbers up to so many times what would always be reading


@dataclass(frozen=True, slots=True)
class Point:
    """One policy in one scenario."""

    family: str  # "fixed", "target" or "modelgrid"
    name: str
    gpu_hours: float
    attained: float
    p95_s: float
    starts: int
    most: int


@dataclass(frozen=True, slots=True)
class Compared:
    """A scenario, and all the points of it."""

    scenario: Scenario
    points: Sequence[Point]

    @property
    def ours(self) -> list[Point]:
        """modelgrid's, by objective."""
        return [point for point in self.points if point.family == "modelgrid"]

    @property
    def frontier(self) -> list[Point]:
        """The best of all others: nobody attained more in fewer hours."""
        best: list[Point] = []
        others = (point for point in self.points if point.family != "modelgrid")
        for point in sorted(others, key=lambda point: (point.gpu_hours, -point.attained)):
            if not best or point.attained > best[-1].attained:
                best.append(point)
        return best

    def as_good(self, point: Point) -> Point | None:
        """The cheapest of the others that attained as much; None: none did."""
        return next((other for other in self.frontier if other.attained >= point.attained), None)

    def is_cheapest_to_meet(self, objective: float, point: Point) -> bool:
        """`point` met the objective, and of the others none did in as few hours, however narrowly."""
        met = next((other for other in self.frontier if other.attained >= objective), None)
        return point.attained >= objective and (met is None or point.gpu_hours < met.gpu_hours)


def compare(scenario: Scenario) -> Compared:
    """Run everything there is to run on a scenario."""
    rows = [
        *((family, name, result) for family, name, result in _others(scenario.trace, scenario.load_s)),
        *(("modelgrid", f"{attain:.0%}", _ours(scenario, attain)) for attain in ATTAIN),
    ]
    return Compared(scenario, [_point(family, name, result, scenario.ttft_s) for family, name, result in rows])


def _point(family: str, name: str, result: Result, ttft_s: float) -> Point:
    return Point(
        family,
        name,
        result.gpu_hours,
        result.attained(ttft_s),
        result.percentile_s(0.95),
        result.starts,
        result.most,
    )


@cache
def _others(trace: Trace, load_s: float) -> list[tuple[str, str, Result]]:
    """They know no objective, so what they do is the same for each."""
    found = [*_fixed(trace)]
    for up_s, down_s, mean_s in DELAYS:
        for target in TARGETS:
            name = f"target {target}, {up_s:.0f}/{down_s:.0f} s"
            found.append(("target", name, _run(trace, load_s, TargetOngoing(target, up_s, down_s, mean_s))))
    return found


def _fixed(trace: Trace) -> Iterator[tuple[str, str, Result]]:
    """From where most requests are late up to where hardly one is."""
    busy = _busy(trace, 1.0)
    count = max(1, ceil(busy * 0.75))
    while count <= max(4.0, busy * _MOST):
        result = _run(trace, 0.0, Fixed(count), first=count)
        yield "fixed", f"fixed {count}", result
        count += max(1, count // 6)


def _ours(scenario: Scenario, attain: float) -> Result:
    scaling = Scaling(min=1, max=1_000, target=16, ttft_s=scenario.ttft_s, attain=attain)
    return _run(scenario.trace, scenario.load_s, Modelgrid(scaling, scenario.load_s))


def _run(trace: Trace, load_s: float, policy: Policy, first: int | None = None) -> Result:
    begin = ceil(_busy(trace, 2 * _WARM) * 2) if first is None else first
    return simulate(trace, policy, load_s=load_s, first=begin, warm_s=_WARM * trace.duration_s)


def _busy(trace: Trace, share: float) -> float:
    """How many replicas would be reading all the time, in the first `share` of a trace."""
    end = trace.duration_s * share
    return sum(r.input_tokens for r in trace.requests if r.at <= end) / end / Figures().prompt_tokens_per_s
