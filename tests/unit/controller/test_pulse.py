"""What workers tell becomes one pulse a model."""

from __future__ import annotations

import dataclasses

from modelgrid.controller.pulse import CHOICES, Pulses
from modelgrid.spec import Load, ModelName, Scaling, State
from modelgrid.spec.pulse import Pulse
from unit.planner.fleets import NOW, replica, spec


def load(**facts: object) -> Load:
    return Load(table=1, in_flight={}, **facts)  # type: ignore[arg-type]  # the fields of Load, by name


def test_what_all_workers_told_since_the_last_lap_counts_once() -> None:
    pulses = Pulses()
    pulses.load(load(arrived={"a": 6}, requests={"a": 2}, tokens={"a": (100, 20)}))
    pulses.load(load(arrived={"a": 4, "b": 9}, requests={"a": 1}, tokens={"a": (50, 10)}))
    first = pulses.beat(spec("a"), [replica(in_flight=7)], 0, NOW)
    assert (first.beats[-1].arrived, first.arrivals) == (10, 2.0)
    assert (first.ended, first.tokens, first.work_per_request) == (3.0, 180.0, 60.0)
    second = pulses.beat(spec("a"), [replica(in_flight=7)], 0, NOW + 1.0)
    assert (second.beats[-1].arrived, second.ended) == (10, 3.0)
    assert pulses.beat(spec("b"), [], 0, NOW).beats[-1].arrived == 9


def test_load_that_one_replica_does_not_tell_is_unknown() -> None:
    pulses = Pulses()
    pulses.load(load(arrived={"a": 1}))
    known = pulses.beat(spec("a"), [replica(in_flight=8)], 0, NOW)
    assert known.ongoing > 0.0
    after = pulses.beat(spec("a"), [replica(in_flight=0), replica("a-2", in_flight=None)], 0, NOW + 60.0)
    assert after.ongoing == known.ongoing, "unknown is not none"


def test_only_ready_replicas_serve() -> None:
    pulses = Pulses()
    pulses.load(load(arrived={"a": 1}))
    states = [replica(state=State.STARTING), replica("a-2", State.DRAINING, in_flight=3)]
    assert pulses.beat(spec("a"), states, 0, NOW).cold_at == NOW
    assert pulses.beat(spec("a"), [*states, replica("a-3")], 0, NOW + 1.0).cold_at == NOW


def test_another_revision_begins_anew_and_other_scaling_does_not() -> None:
    pulses = Pulses()
    pulses.load(load(arrived={"a": 5}))
    before = pulses.beat(spec("a"), [replica()], 0, NOW)
    assert pulses.beat(spec("a", target=99), [replica()], 0, NOW).beats == before.beats
    assert pulses.beat(spec("a", args=("new",)), [], 0, NOW) == Pulse()


def test_models_that_are_gone_are_forgotten() -> None:
    pulses = Pulses()
    pulses.load(load(arrived={"a": 5, "b": 5, "stranger": 1}))
    pulses.beat(spec("a"), [], 1, NOW)
    pulses.keep([ModelName("b")])
    assert pulses.beat(spec("a"), [], 0, NOW + 1.0) == Pulse()
    assert pulses.beat(spec("b"), [], 0, NOW).beats[-1].arrived == 5


def test_first_tokens_are_learned_from_where_there_is_an_objective() -> None:
    pulses = Pulses()
    wanted = dataclasses.replace(spec("a"), scaling=dataclasses.replace(spec("a").scaling, ttft_s=0.5))
    for second in range(5):
        pulses.load(load(arrived={"a": 10}, ttft={"a": (0.1,) * 8 + (0.9,) * 2}))
        pulse = pulses.beat(wanted, [replica(in_flight=1)], 0, NOW + second)
    assert pulse.attained == 0.8
    assert sum(level.seen for level in pulse.levels) > 30


def test_one_lap_chooses_for_a_few_models_and_the_next_ones_for_the_others() -> None:
    pulses = Pulses()
    names = [f"m{number}" for number in range(2 * CHOICES + 1)]
    models = [dataclasses.replace(spec(name), scaling=Scaling(max=9, ttft_s=0.5)) for name in names]
    chosen = []
    for lap in range(1200):
        pulses.load(load(arrived=dict.fromkeys(names, 2), requests=dict.fromkeys(names, 2), ttft={"m0": [0.1]}))
        before = {name: pulses.last(ModelName(name)).chosen for name in names}
        after = {model.name: pulses.beat(model, [replica(in_flight=2)], 0, NOW + lap / 10).chosen for model in models}
        pulses.keep(ModelName(name) for name in names)
        chosen.append([name for name in names if after[ModelName(name)] != before[name]])
    assert max(map(len, chosen)) == CHOICES
    assert {name for lap in chosen for name in lap} == set(names)
