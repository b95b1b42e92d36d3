"""What engines estimate, beside figures that were told of real models."""

from __future__ import annotations

import dataclasses

import pytest

from modelgrid.engines import ENGINES
from modelgrid.engines.memory import GIB, cpu_cache_bytes, parse_count
from modelgrid.spec import Device, Machine, ModelName, ModelSpec, Place, ReplicaId, Scaling, Share
from modelgrid.spec.weights import Estimate, Shape, Weights

QWEN_7B = Weights(
    15_231_271_864, {"BF16": 7_615_616_512}, Shape(28 * 2 * 4 * 128, 0, 32768, 2 * 18944 + 4 * 3584, 152064)
)
VLLM = ModelSpec(ModelName("qwen"), "vllm", source="Qwen/Qwen2.5-7B-Instruct")


def part(estimate: Estimate, what: str) -> int:
    return sum(part.memory_bytes for part in estimate.parts if part.what == what)


def on_gpu(*args: str, weights: Weights = QWEN_7B, target: int = 16) -> Estimate:
    spec = dataclasses.replace(VLLM, args=args, scaling=Scaling(target=target))
    return ENGINES["vllm"].estimate(spec, weights, "cuda")


def test_a_model_of_seven_billion_parameters_fits_on_a_gpu_of_24_gb_with_its_whole_context() -> None:
    estimate = on_gpu()
    assert part(estimate, "weights") == 2 * 7_615_616_512
    assert part(estimate, "KV cache") == 57_344 * 32_768  # 1.75 GiB, as it is told for one sequence of full length
    assert 18 * GIB < estimate.memory_bytes < 21 * GIB
    assert estimate.main_bytes > 0
    assert (estimate.spreads, estimate.fills) == (True, True)


def test_the_cache_is_of_what_the_engine_is_told() -> None:
    whole = part(on_gpu(), "KV cache")
    assert part(on_gpu("--max-model-len", "16k", target=1), "KV cache") == 57_344 * 16_000
    assert part(on_gpu("--max-model-len=auto", target=1), "KV cache") == 57_344 * 1_400
    assert part(on_gpu("--max-model-len", "1K"), "KV cache") == 57_344 * 16 * 1_024  # for the requests that it carries
    assert part(on_gpu("--max-model-len", "1K", "--max-num-seqs", "2"), "KV cache") == 57_344 * 2 * 1_024
    assert part(on_gpu("--kv-cache-dtype", "fp8_e5m2"), "KV cache") == whole // 2
    assert part(on_gpu("--kv-cache-memory-bytes", "3G"), "KV cache") == 3 * GIB
    assert part(on_gpu(target=100), "KV cache") == 57_344 * 140_000


def test_layers_with_a_window_keep_it_for_each_sequence() -> None:
    gemma = Weights(1, {"BF16": 1}, Shape(1000, 50_000, 8192))
    assert part(on_gpu(weights=gemma, target=4), "KV cache") == 2 * (1000 * 8192 + 50_000 * 4)


def test_weights_are_counted_as_they_will_be_loaded() -> None:
    single = Weights(4_000, {"F32": 1_000}, QWEN_7B.shape)
    assert part(on_gpu(weights=single), "weights") == 2_000
    assert part(on_gpu("--dtype", "float32", weights=single), "weights") == 4_000
    packed = Weights(700, {"I32": 100, "F16": 150}, QWEN_7B.shape)
    assert part(on_gpu(weights=packed), "weights") == 700


def test_of_what_nobody_told_a_guess_is_made() -> None:
    estimate = on_gpu(weights=Weights(10 * GIB))
    assert (part(estimate, "weights"), part(estimate, "KV cache"), part(estimate, "activations")) == (
        10 * GIB,
        GIB,
        2 * GIB,
    )


@pytest.mark.parametrize("weights_bytes", [0, 3 << 20, GIB, 15 * GIB, 140 * GIB])
def test_on_a_cpu_the_cache_that_vllm_is_given_is_never_more_than_was_counted(weights_bytes: int) -> None:
    estimate = ENGINES["vllm"].estimate(VLLM, Weights(weights_bytes), "cpu")
    assert cpu_cache_bytes(estimate.memory_bytes) <= part(estimate, "KV cache")
    assert estimate.main_bytes == 0


def test_small_models_on_a_cpu_take_what_was_seen_there() -> None:
    stand_in = Weights(3 << 20)
    assert ENGINES["vllm"].estimate(VLLM, stand_in, "cpu").memory_bytes == int(1.2 * stand_in.size_bytes) + 7 * GIB // 2
    transformers = dataclasses.replace(VLLM, engine="transformers")
    assert ENGINES["transformers"].estimate(transformers, stand_in, "cpu").memory_bytes == int(1.2 * (3 << 20)) + (
        3 << 28
    )


def test_what_torch_loads_keeps_the_cache_of_one_long_request() -> None:
    spec = dataclasses.replace(VLLM, engine="transformers")
    estimate = ENGINES["transformers"].estimate(spec, QWEN_7B, "cuda")
    assert part(estimate, "KV cache") == 57_344 * 4_300
    assert not estimate.fills


def test_every_part_of_an_estimate_has_a_name_of_its_own() -> None:
    for engine in ENGINES.values():
        for accelerator in ("cpu", "cuda"):
            spec = dataclasses.replace(VLLM, engine=engine.name)
            names = [part.what for part in engine.estimate(spec, QWEN_7B, accelerator).parts]
            assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "count"), [("8192", 8192), ("8k", 8000), ("8K", 8192), ("1.5m", 1_500_000), ("x", None), (None, None)]
)
def test_counts_are_read_as_vllm_reads_them(text: str | None, count: int | None) -> None:
    assert parse_count(text) == count


def argv(machine: Machine, shares: tuple[Share, ...], *args: str) -> tuple[str, ...]:
    spec = dataclasses.replace(VLLM, args=args)
    return ENGINES["vllm"].launch(spec, ReplicaId("q-1"), Place(machine, shares), "/w", "k").argv


def test_vllm_is_spread_over_the_gpus_of_its_place_and_takes_its_share_of_each() -> None:
    gpus = tuple(Device(f"gpu{index}", 76 * GIB, 80 * GIB, index) for index in range(4))
    machine = Machine(gpus, accelerator="cuda")
    shares = tuple(Share(gpu.name, 40 * GIB) for gpu in gpus[:2])
    words = argv(machine, shares)
    assert words[words.index("--tensor-parallel-size") + 1] == "2"
    assert words[words.index("--gpu-memory-utilization") + 1] == "0.500"
    assert "--tensor-parallel-size" not in argv(machine, shares[:1])
    assert argv(machine, shares, "-tp", "2").count("--tensor-parallel-size") == 0
    assert "--tensor-parallel-size" not in argv(machine, shares, "--pipeline-parallel-size=2")
