"""Machines and models are described in a word or in a file; a mistake is told with what to write instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelgrid.engines.sleep import asleep
from modelgrid.simulation.machines import DescriptionError, machines_of, read_machines
from modelgrid.simulation.scenario import made_up_models, scenario
from modelgrid.spec import ModelName, ModelSpec, Scaling, Unknown
from modelgrid.spec.machine import Need
from modelgrid.spec.weights import Weights

GB = 10**9


@pytest.mark.parametrize(
    ("text", "machines"),
    [
        ("H100", [("local", [76 * GB])]),
        ("8xH100", [("local", [76 * GB] * 8)]),
        ("2x8xh100", [("machine-1", [76 * GB] * 8), ("machine-2", [76 * GB] * 8)]),
        ("4x24GB", [("local", [24 * GB] * 4)]),
        ("2x1x24GB", [("machine-1", [24 * GB]), ("machine-2", [24 * GB])]),
        ("1xRTX4090 + 2xA100-40GB", [("machine-1", [int(22.8 * GB)]), ("machine-2", [38 * GB] * 2)]),
        ("cpu:64GB", [("local", [])]),
        ("3xcpu:64GB", [("machine-1", []), ("machine-2", []), ("machine-3", [])]),
    ],
)
def test_machines_in_a_word(text: str, machines: list[tuple[str, list[int]]]) -> None:
    made = machines_of(text).machines
    assert [(machine.name, [gpu.memory_bytes for gpu in machine.gpus]) for machine in made] == machines


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("8xH1000", "did you mean H100?"),
        ("nothing", "known are B200, H200, H100"),
        ("8 of them", "write for example 8xH100"),
        ("cpu:many", "'many' is not a size"),
        ("0xH100", "cannot make machines of '0xH100': it counts 0"),
    ],
)
def test_machines_that_cannot_be_made_are_told(text: str, told: str) -> None:
    with pytest.raises(DescriptionError) as raised:
        machines_of(text)
    assert told in str(raised.value)


FILE = """
machines:
  - {name: box, gpus: 2, gpu: L40S, main_memory: 128GB, price: 1.9}
  - {name: odd, gpus: 1, memory: 20GB, price: 0.4, count: 2}
models:
  chat: {memory: 16GB, load: 20s, prefill: 8000, step: 20ms, step_more: 1ms, running: 64, objective: 500ms}
  large: {memory: 60GB, gpus: 2, priority: 3}
"""


def test_a_file_describes_machines_prices_and_models(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE)
    described = read_machines(str(path))
    assert [machine.name for machine in described.machines] == ["box", "odd-1", "odd-2"]
    assert described.prices == {"box": 1.9, "odd-1": 0.4, "odd-2": 0.4}
    made = scenario([], described)
    chat, large = made.models
    assert chat.speed["box"].load_s == 20.0
    assert chat.speed["odd-1"].most_running == 64
    assert large.need == Need(60 * GB, 2.0)
    assert large.spec.priority == 3
    assert made.objectives == {"chat": 0.5, "large": None}


def test_a_larger_model_is_slower_and_two_gpus_are_faster() -> None:
    described = machines_of("4xH100")
    small, large = (
        scenario([ModelSpec(ModelName("m"), "custom", memory_bytes=size * GB)], described) for size in (8, 64)
    )
    spread = scenario([ModelSpec(ModelName("m"), "custom", memory_bytes=64 * GB, gpus=2)], described)
    speeds = [made.models[0].speed["local"] for made in (small, large, spread)]
    assert speeds[0].step_s < speeds[2].step_s < speeds[1].step_s
    assert speeds[0].load_s < speeds[1].load_s
    assert speeds[0].prefill_tokens_s > speeds[2].prefill_tokens_s > speeds[1].prefill_tokens_s


def test_an_eight_billion_model_on_an_h100_has_the_speed_that_engines_have() -> None:
    """16 GB of weights in 20 GB: about 8 ms a token for one caller, tens of thousands of prompt tokens a second."""
    spec = ModelSpec(ModelName("m"), "custom", memory_bytes=20 * GB)
    speed = scenario([spec], machines_of("H100")).models[0].speed["local"]
    assert 0.005 < speed.step_s < 0.012
    assert 15_000 < speed.prefill_tokens_s < 60_000
    assert 10 < speed.load_s < 30


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("machine: []", "it has machine"),
        ("machines: [{gpus: 2}]", "its GPUs need `gpu: H100`"),
        ("machines: [{gpus: -2, gpu: H100}]", "gpus: -2 is not a whole number from 0"),
        ("machines: [{gpu: H100, cost: 3}]", "there is no field cost"),
        ("machines: H100\nmodels: {a: {size: 3}}", "cannot read model a: there is no field size"),
        ("machines: H100\nmodels: {a: {load: soon}}", "cannot use model a: load: 'soon' is not a duration"),
        ("machines: H100\nmodels: {a: {step: 0s}}", "cannot use model a: step: '0s' is not above 0"),
        ("machines: H100\nmodels: {a: {memory: much}}", "cannot use model a: memory: 'much' is not a size"),
        ("machines: [", "line 1, column 12: expected the node content"),
    ],
)
def test_a_file_with_a_mistake_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(DescriptionError) as raised:
        read_machines(str(path))
    assert told in str(raised.value)
    assert str(path) in str(raised.value)


def test_models_are_made_up_by_number_and_size() -> None:
    made = made_up_models("2x140GB+8x16GB")
    assert list(made) == [f"m{n:02}" for n in range(1, 11)]
    assert [each.memory_bytes for each in made.values()] == [140 * GB] * 2 + [16 * GB] * 8
    with pytest.raises(DescriptionError, match="write for example 20x16GB"):
        made_up_models("many")


def test_a_model_of_unknown_size_is_told_with_what_to_write() -> None:
    spec = ModelSpec(ModelName("m"), "vllm", source="owner/name")
    with pytest.raises(DescriptionError, match="cannot simulate m: nobody says how much memory it takes") as raised:
        scenario([spec], machines_of("H100"), lambda asked: Unknown(f"no {asked.source}"))
    assert "no owner/name" in str(raised.value)
    assert "needs.memory" in str(raised.value)


def test_a_model_of_the_configuration_is_as_large_as_its_weights_say() -> None:
    spec = ModelSpec(ModelName("m"), "transformers", source="owner/name")
    made = scenario([spec], machines_of("H100"), lambda asked: Weights(10 * GB))
    memory_bytes = made.models[0].need.memory_bytes
    assert memory_bytes is not None
    assert 10 * GB < memory_bytes < 30 * GB


def test_more_memory_for_the_cache_makes_no_slower_model() -> None:
    """What is read in each step are the weights, however much its engine was given."""
    given = ModelSpec(ModelName("m"), "vllm", source="owner/name", memory_bytes=20 * GB)
    for spec in (replace(given, memory_bytes=70 * GB), replace(given, memory_bytes=None, gpus=1)):
        small, large = (
            scenario([each], machines_of("H100"), lambda _: Weights(15 * GB)).models[0].speed["local"]
            for each in (given, spec)
        )
        assert large.step_s == small.step_s
        assert large.load_s == small.load_s
        assert large.most_running > small.most_running


def test_a_model_that_spreads_has_the_speed_of_all_its_gpus() -> None:
    described = replace(machines_of("4xH100"), models=made_up_models("1x140GB+1x70GB"))
    large, small = (model.speed["local"] for model in scenario([], described).models)
    assert large.step_s == pytest.approx(small.step_s)


def test_a_model_in_main_memory_is_as_slow_as_that() -> None:
    described = machines_of("H100")
    spec = ModelSpec(ModelName("m"), "custom", memory_bytes=8 * GB)
    gpu, main = (scenario([each], described).models[0].speed["local"] for each in (spec, replace(spec, gpus=0)))
    assert main.step_s > 10 * gpu.step_s


def test_a_model_sleeps_as_the_product_expects_it_to() -> None:
    spec = ModelSpec(ModelName("m"), "vllm", source="owner/name", memory_bytes=20 * GB, sleep=1)
    described = machines_of("H100")
    (made,) = scenario([spec], described, lambda _: Weights(15 * GB)).models
    assert made.sleep == asleep(spec, made.need, 15 * GB, described.machines[0])
    assert made.sleep is not None
    assert made.speed["local"].wake_s == made.sleep.wake_s


def test_the_objective_of_the_configuration_counts() -> None:
    spec = ModelSpec(ModelName("m"), "custom", memory_bytes=GB, scaling=Scaling(ttft_s=0.4))
    assert scenario([spec], machines_of("H100")).objectives == {"m": 0.4}
