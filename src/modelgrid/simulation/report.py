"""The report of a simulation: figures in all, by model and by priority, usage, and the history they are of."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from modelgrid.simulation.figures import PERCENTILES, Figures, Usage, by, figures, usage
from modelgrid.simulation.scenario import Scenario
from modelgrid.simulation.world import History
from modelgrid.spec.units import format_seconds


@dataclass(frozen=True, slots=True)
class Report:
    """What is told of one simulation."""

    scenario: Scenario
    history: History
    duration_s: float  # until the last request came
    all: Figures
    models: dict[str, Figures]
    priorities: dict[str, Figures]  # nothing where all have the same
    usage: Usage
    swaps: dict[str, int]  # starts, by model

    @classmethod
    def of(cls, history: History, scenario: Scenario) -> Report:
        """The report of `history`."""
        duration_s = max((call.request.at for call in history.calls), default=0.0)
        models = by(history.calls, lambda call: call.model)
        priorities = by(history.calls, lambda call: str(call.request.priority))
        starts = dict.fromkeys(map(str, scenario.names), 0)
        for _, model, what, _ in history.events:
            if what == "start":
                starts[model] += 1

        def made(calls: Any) -> Figures:
            return figures(calls, duration_s, scenario.objectives)

        return cls(
            scenario=scenario,
            history=history,
            duration_s=duration_s,
            all=made(history.calls),
            models={name: made(models[name]) for name in scenario.names if name in models},
            priorities={name: made(calls) for name, calls in sorted(priorities.items())} if len(priorities) > 1 else {},
            usage=usage(history, scenario.machines, scenario.prices),
            swaps=starts,
        )

    @property
    def title(self) -> str:
        """What was simulated, in a line."""
        asked, machines = len(self.models), len(self.scenario.machines)
        gpus = sum(len(machine.gpus) for machine in self.scenario.machines)
        where = f"{_count(gpus, 'GPU')} of {_count(machines, 'machine')}" if gpus else _count(machines, "machine")
        over = format_seconds(self.duration_s)
        return f"{self.all.requests:,} requests in {over} for {_count(asked, 'model')} on {where}"

    @property
    def refusals(self) -> list[tuple[str, int]]:
        """Why requests were turned away, and how many, the most frequent reason first."""
        return Counter(call.refused for call in self.history.calls if call.refused).most_common()

    def plain(self) -> dict[str, Any]:
        """As JSON has it. What is not a number is null."""
        return {
            "duration_s": self.duration_s,
            "end_s": self.history.end,
            "machines": [machine.name for machine in self.scenario.machines],
            "all": _plain(self.all),
            "models": {name: {**_plain(each), "starts": self.swaps[name]} for name, each in self.models.items()},
            "priorities": {name: _plain(each) for name, each in self.priorities.items()},
            "usage": asdict(self.usage),
            "refusals": dict(self.refusals),
        }


def _plain(each: Figures) -> dict[str, Any]:
    plain = asdict(each)
    for name in ("waited_s", "ttft_s"):
        values = zip(PERCENTILES, plain[name], strict=True)
        plain[name] = {f"p{percent:g}": None if math.isnan(value) else value for percent, value in values}
    return plain


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
