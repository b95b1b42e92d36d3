"""modelgrid's planner in the world: it serves, never orders more memory than there is, and starves nobody."""

from __future__ import annotations

from dataclasses import replace

from modelgrid.simulation.planned import Planned
from modelgrid.simulation.synthetic import Shape, turns, zipf
from modelgrid.simulation.world import SimulatedModel, World
from modelgrid.spec import Scaling
from modelgrid.spec.machine import LOCAL, MAIN, Asleep, Device, Machine
from unit.simulation.worlds import GB, gpu_machine, model, request


def test_a_cold_model_is_loaded_for_its_first_request() -> None:
    history = World([gpu_machine(24)], [model("a")], Planned()).run([request(5.0)])
    (call,) = history.calls
    assert call.sent is not None
    assert 10.0 <= call.sent - 5.0 < 10.3  # the load, and the laps before and after it
    assert history.starts == 1


def test_two_models_with_room_for_one_are_both_served() -> None:
    models = [model("a"), model("b")]
    shape = Shape(0.4, 300.0, output=20.0)
    history = World([gpu_machine(24)], models, Planned()).run(turns([m.name for m in models], shape, 1))
    assert all(call.done is not None for call in history.calls)
    assert history.starts >= 2


def test_memory_is_never_ordered_twice() -> None:
    """The world raises OverCommitted where it is."""
    models = [model(f"m{n}", 5 + 3 * n) for n in range(6)]
    for seed in range(3):
        trace = zipf([m.name for m in models], Shape(0.5, 200.0, output=20.0), seed)
        history = World([gpu_machine(24), gpu_machine(10, name="other")], _everywhere(models), Planned()).run(trace)
        assert all(call.done is not None for call in history.calls)


def test_what_fits_nowhere_is_refused_with_the_reason() -> None:
    history = World([gpu_machine(24)], [model("a", 70)], Planned()).run([request(5.0)])
    assert "cannot place a" in history.calls[0].refused


def test_a_model_without_requests_is_unloaded_after_its_idle_time() -> None:
    scaling = Scaling(idle_s=30.0)
    trace = [request(0.0), request(200.0)]
    history = World([gpu_machine(24)], [model("a", scaling=scaling)], Planned()).run(trace)
    assert history.starts == 2


def test_more_replicas_come_with_more_requests() -> None:
    scaling = Scaling(max=2, target=2)
    trace = [request(1.0 + n / 100, output=200) for n in range(8)]
    history = World([gpu_machine(24, 24)], [model("a", scaling=scaling)], Planned()).run(trace)
    assert {call.replica for call in history.calls[:1]} != {None}
    assert history.starts == 2


def test_within_a_model_higher_priority_goes_first() -> None:
    trace = [request(1.0), request(2.0, priority=1)]
    low, high = World([gpu_machine(24)], [model("a")], Planned()).run(trace).calls
    assert high.first is not None
    assert low.first is not None
    assert high.first < low.first


def test_callers_who_left_are_not_served() -> None:
    trace = [request(1.0, patience_s=2.0), request(2.0)]
    gone, served = World([gpu_machine(24)], [model("a")], Planned()).run(trace).calls
    assert gone.sent is None
    assert served.done is not None


def test_models_that_can_sleep_are_woken_instead_of_loaded() -> None:
    """In turn, with room for one awake: from the second turn on each is woken."""
    machine = Machine((*gpu_machine(24).devices, Device(MAIN, 64 * GB, 64 * GB)), LOCAL, "cuda")
    asleep = Asleep(0.05, 16 * GB, 2.0)
    models = [model("a", sleep=asleep), model("b", sleep=asleep)]
    trace = [request(40.0 * turn, "ab"[turn % 2]) for turn in range(6)]
    history = World([machine], models, Planned()).run(trace)
    assert history.starts == 2
    assert history.wakes == 4
    assert all(call.waited_s is not None and call.waited_s < 5.0 for call in history.calls[2:])


def _everywhere(models: list[SimulatedModel]) -> list[SimulatedModel]:
    return [replace(each, speed={**each.speed, "other": each.speed["local"]}) for each in models]
