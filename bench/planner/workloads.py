"""The workloads: machines, models and traces, each from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from modelgrid.simulation.request import Request
from modelgrid.simulation.speed import Speed
from modelgrid.simulation.synthetic import Shape, bursts, turns, zipf
from modelgrid.simulation.world import SimulatedModel
from modelgrid.spec import ModelName, ModelSpec, Scaling
from modelgrid.spec.machine import LOCAL, Device, Machine, Need

GB = 10**9
DEADLINE_S = 60.0
PATIENCE_S = 300.0
DURATION_S = 900.0


@dataclass(frozen=True, slots=True)
class Workload:
    """Machines, models, and the requests of one seed."""

    name: str
    told: str
    machines: tuple[Machine, ...]
    models: tuple[SimulatedModel, ...]
    trace: Callable[[int], list[Request]]
    classes: Callable[[Request], str] | None = None  # where requests of several kinds are told apart


def workloads(load: float = 1.0) -> dict[str, Workload]:
    """All of them, by name; with `load` times as many requests."""
    makers = (_turns, _zipf, _bursts, _priority, _busy, _large_and_small, _two_sizes)
    made = [maker(load) for maker in makers]
    return {workload.name: workload for workload in made}


def _turns(load: float) -> Workload:
    models = tuple(_model(name, 20) for name in ("a", "b"))
    shape = Shape(0.5 * load, DURATION_S, deadline_s=DEADLINE_S, patience_s=PATIENCE_S)
    return Workload(
        "turns",
        "two models in turn, room for one",
        (_machine(24),),
        models,
        lambda seed: turns(_names(models), shape, seed),
    )


def _zipf(load: float) -> Workload:
    models = tuple(_model(f"m{number:02}", 20) for number in range(1, 21))
    shape = Shape(0.5 * load, DURATION_S, deadline_s=DEADLINE_S, patience_s=PATIENCE_S)
    return Workload(
        "zipf",
        "20 models by Zipf's law (1.1), room for 4",
        (_machine(80),),
        models,
        lambda seed: zipf(_names(models), shape, seed),
    )


def _bursts(load: float) -> Workload:
    models = tuple(_model(f"m{number}", 20) for number in range(1, 7))
    shape = Shape(1.0 * load, DURATION_S, deadline_s=DEADLINE_S, patience_s=PATIENCE_S)
    return Workload(
        "bursts",
        "6 models, one at a time is asked for a lot, room for 2",
        (_machine(48),),
        models,
        lambda seed: bursts(_names(models), shape, seed, length_s=60.0),
    )


def _priority(load: float) -> Workload:
    """Two models of batch work keep the GPU busy; an assistant beside them is asked now and then, by somebody who
    waits for it."""
    models = (_model("assistant", 20, priority=1), _model("batch-1", 20), _model("batch-2", 20))
    names = _names(models)

    def trace(seed: int) -> list[Request]:
        work = Shape(0.6 * load, DURATION_S, deadline_s=4 * DEADLINE_S, patience_s=PATIENCE_S)
        asked = Shape(0.08 * load, DURATION_S, deadline_s=DEADLINE_S, patience_s=PATIENCE_S)
        urgent = [replace(request, priority=1) for request in turns(names[:1], asked, seed + 1_000_000)]
        return sorted([*turns(names[1:], work, seed), *urgent], key=lambda request: request.at)

    return Workload(
        "priority",
        "an assistant (priority 1) beside two models of batch work, room for one",
        (_machine(24),),
        models,
        trace,
        lambda request: "priority 1" if request.priority else "priority 0",
    )


def _busy(load: float) -> Workload:
    """One model is never without a request, so who waits for it to be idle waits for ever."""
    models = (_model("busy", 20), _model("rare", 20))
    names = _names(models)

    def trace(seed: int) -> list[Request]:
        always = Shape(1.5 * load, DURATION_S, deadline_s=2 * DEADLINE_S, patience_s=PATIENCE_S)
        seldom = Shape(0.03 * load, DURATION_S, deadline_s=2 * DEADLINE_S, patience_s=PATIENCE_S)
        rare = turns(names[1:], seldom, seed + 1_000_000)
        return sorted([*turns(names[:1], always, seed), *rare], key=lambda request: request.at)

    return Workload(
        "busy",
        "one model that is never idle beside one that is asked now and then, room for one",
        (_machine(24),),
        models,
        trace,
        lambda request: str(request.model),
    )


def _large_and_small(load: float) -> Workload:
    """The large one takes all, the small ones fit together."""
    models = (_model("large", 70, load_s=35.0), *(_model(f"small-{number}", 16, load_s=10.0) for number in range(1, 5)))
    names = _names(models)

    def trace(seed: int) -> list[Request]:
        few = Shape(0.1 * load, DURATION_S, deadline_s=2 * DEADLINE_S, patience_s=PATIENCE_S)
        many = Shape(0.5 * load, DURATION_S, deadline_s=2 * DEADLINE_S, patience_s=PATIENCE_S)
        small = zipf(names[1:], many, seed, exponent=0.5)
        return sorted([*turns(names[:1], few, seed + 1_000_000), *small], key=lambda request: request.at)

    return Workload(
        "large",
        "one large model beside four small ones, room for it or them",
        (_machine(80),),
        models,
        trace,
        lambda request: "large" if request.model == "large" else "small",
    )


def _two_sizes(load: float) -> Workload:
    models = (
        *(_model(f"large-{number}", 40, load_s=25.0) for number in range(1, 3)),
        *(_model(f"small-{number}", 18, load_s=12.0) for number in range(1, 7)),
    )
    shape = Shape(0.6 * load, DURATION_S, deadline_s=DEADLINE_S, patience_s=PATIENCE_S)
    machine = Machine((_gpu(0, 24), _gpu(1, 80)), LOCAL, "cuda")
    return Workload(
        "sizes",
        "2 large and 6 small models, a GPU of 24 GB beside one of 80 GB",
        (machine,),
        models,
        lambda seed: zipf(_names(models), shape, seed, exponent=0.6),
    )


def _model(name: str, gigabytes: int, *, load_s: float = 15.0, priority: int = 0) -> SimulatedModel:
    """A model of ten thousand million parameters or so, on an ordinary GPU: 25 ms a token, 15 s to load."""
    spec = ModelSpec(ModelName(name), "custom", scaling=Scaling(idle_s=900.0), priority=priority)
    speed = Speed(load_s=load_s, prefill_tokens_s=6000.0, step_s=0.025, step_more_s=0.0005)
    return SimulatedModel(spec, Need(gigabytes * GB), {LOCAL: speed})


def _machine(gigabytes: int) -> Machine:
    return Machine((_gpu(0, gigabytes),), LOCAL, "cuda")


def _gpu(index: int, gigabytes: int) -> Device:
    return Device(f"gpu{index}", gigabytes * GB, gigabytes * GB, index)


def _names(models: Sequence[SimulatedModel]) -> list[ModelName]:
    return [model.name for model in models]
