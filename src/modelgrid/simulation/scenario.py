"""From a configuration, described machines and a trace to a world that can run."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from modelgrid.engines import ENGINES
from modelgrid.engines.sleep import asleep
from modelgrid.simulation.gpus import UNKNOWN
from modelgrid.simulation.machines import Described, DescriptionError, MadeUp
from modelgrid.simulation.speed import CPU, Hardware, Speed, estimated_speed
from modelgrid.simulation.world import SimulatedModel
from modelgrid.spec import ModelName, ModelSpec, Unknown
from modelgrid.spec.machine import Machine, Need
from modelgrid.spec.units import parse_bytes
from modelgrid.spec.weights import Weights

Weigh = Callable[[ModelSpec], Weights | Unknown]
_NOTHING = MadeUp()


@dataclass(frozen=True, slots=True)
class Scenario:
    """Machines and models, ready for a trace."""

    machines: tuple[Machine, ...]
    models: tuple[SimulatedModel, ...]
    prices: Mapping[str, float]
    objectives: Mapping[ModelName, float | None]

    @property
    def names(self) -> list[ModelName]:
        """The models that may be asked for, in order."""
        return [model.name for model in self.models]


def made_up_models(text: str) -> dict[str, MadeUp]:
    """``20x16GB``: that many models of that size each, called m01, m02, …; several of these with ``+`` between them.
    Raises DescriptionError."""
    sizes: list[int] = []
    for part in text.split("+"):
        match = re.fullmatch(r"\s*(?:(\d+)x)?(\d\S*)\s*", part)
        try:
            if not match:
                raise ValueError(f"{part!r} is not a number of models and a size")
            sizes += [parse_bytes(match[2])] * int(match[1] or 1)
        except ValueError as error:
            raise DescriptionError(f"cannot make up models of {text!r}: {error} (write for example 20x16GB)") from error
    digits = len(str(len(sizes)))
    return {f"m{number:0{digits}}": MadeUp(memory_bytes=size) for number, size in enumerate(sizes, 1)}


def scenario(specs: Sequence[ModelSpec], described: Described, weigh: Weigh | None = None) -> Scenario:
    """What can be simulated: the models of the configuration whose replicas run on machines, and those that are only
    described. Where nobody says how much memory one takes, `weigh` looks at its weights. Raises DescriptionError."""
    if not described.machines:
        raise DescriptionError("cannot simulate without machines (try: --machines 8xH100)")
    configured = {spec.name for spec in specs}
    by_name = {spec.name: spec for spec in specs if ENGINES[spec.engine].runtime == "process"}
    by_name |= {
        ModelName(name): ModelSpec(ModelName(name), "custom") for name in described.models if name not in by_name
    }
    models = tuple(
        _model(spec, described.models.get(name, _NOTHING), described, weigh if name in configured else None)
        for name, spec in by_name.items()
    )
    if not models:
        raise DescriptionError("cannot simulate without models (name a configuration, or try: --made-up 20x16GB)")
    objectives = {
        name: said if (said := described.models.get(name, _NOTHING).objective_s) is not None else spec.scaling.ttft_s
        for name, spec in by_name.items()
    }
    return Scenario(described.machines, models, described.prices, objectives)


def _model(spec: ModelSpec, said: MadeUp, described: Described, weigh: Weigh | None) -> SimulatedModel:
    spec = replace(
        spec,
        priority=spec.priority if said.priority is None else said.priority,
        gpus=spec.gpus if said.gpus is None else said.gpus,
        memory_bytes=spec.memory_bytes if said.memory_bytes is None else said.memory_bytes,
    )
    need, weights_bytes = _need(spec, described.machines[0], weigh)
    speeds = {
        machine.name: said.over(_speed(need, weights_bytes, machine, described)) for machine in described.machines
    }
    level = said.sleep if said.sleep is not None else spec.sleep
    if level is None:
        return SimulatedModel(spec, need, speeds)
    spec = replace(spec, sleep=level)
    sleep = asleep(spec, need, weights_bytes, described.machines[0])
    assert sleep is not None
    speeds = {name: replace(speed, wake_s=sleep.wake_s) for name, speed in speeds.items()}
    return SimulatedModel(spec, need, speeds, sleep)


def _need(spec: ModelSpec, machine: Machine, weigh: Weigh | None) -> tuple[Need, int | None]:
    """What it needs, and how much of that is weights, where that is known."""
    if weigh is None and spec.memory_bytes is not None:  # made up: it goes over several GPUs if it has to
        return Need(spec.memory_bytes, spec.gpus, spec.main_bytes or 0, spreads=spec.gpus is None), None
    from modelgrid.controller.needs import sized  # with the whole controller, which made-up models don't need

    weights = Unknown("there is nothing to look at") if weigh is None else weigh(spec)
    found = sized(spec, machine, weights, None)
    if isinstance(found, Unknown):
        raise DescriptionError(
            f"cannot simulate {spec.name}: nobody says how much memory it takes, and its weights don't tell: "
            f"{found.why} (write needs.memory into the configuration, or `models: {{{spec.name}: {{memory: 16GB}}}}` "
            "into the file of --machines)"
        )
    parts = found.estimate.parts if found.estimate is not None else ()
    return found.need, sum(part.memory_bytes for part in parts if part.what == "weights") or None


def _speed(need: Need, weights_bytes: int | None, machine: Machine, described: Described) -> Speed:
    memory_bytes, count = _memory(need, machine), max(1, need.count)
    if need.gpus is None and need.spreads and machine.gpus:
        count = math.ceil(memory_bytes / max(gpu.memory_bytes for gpu in machine.gpus))
    return estimated_speed(memory_bytes, _hardware(need, machine, described), count, weights_bytes)


def _memory(need: Need, machine: Machine) -> int:
    if need.memory_bytes is not None:
        return need.memory_bytes
    if need.gpus is not None and 0 < need.gpus < 1:
        return int(max((gpu.memory_bytes for gpu in machine.gpus), default=0) * need.gpus)
    return sum(gpu.memory_bytes for gpu in machine.gpus[: need.count])  # whole GPUs


def _hardware(need: Need, machine: Machine, described: Described) -> Hardware:
    if need.gpus == 0 or not machine.gpus:
        return CPU
    return described.hardware.get(machine.name, UNKNOWN)
