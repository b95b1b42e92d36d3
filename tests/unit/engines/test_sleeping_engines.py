"""Which engines can sleep, what that leaves, and how they are told."""

from __future__ import annotations

import pytest

from modelgrid.engines import ENGINES
from modelgrid.spec import (
    MAIN,
    Asleep,
    Device,
    Launch,
    Machine,
    ModelName,
    ModelSpec,
    Need,
    Place,
    Post,
    ReplicaId,
    cpu_machine,
)
from places import GIB, on_cpu, on_cuda

GPU = Machine((Device(MAIN, 100 * GIB, 100 * GIB), Device("gpu0", 80 * GIB, 80 * GIB, 0)), accelerator="cuda")
WEIGHTS = 10 * 10**9


def launched(model: ModelSpec, place: Place) -> Launch:
    return ENGINES[model.engine].launch(model, ReplicaId("m-1"), place, "/w", "secret")


def vllm(level: int | None, **more: object) -> ModelSpec:
    return ModelSpec(ModelName("m"), "vllm", source="a/b", sleep=level, **more)  # type: ignore[arg-type]  # any field


def custom(level: int | None) -> ModelSpec:
    return ModelSpec(ModelName("m"), "custom", command=("x", "{port}"), memory_bytes=GIB, sleep=level)


def sleep(model: ModelSpec, need: Need, weights_bytes: int | None = WEIGHTS, machine: Machine = GPU) -> Asleep | None:
    return ENGINES[model.engine].sleep(model, need, weights_bytes, machine)


def test_level_1_keeps_weights_in_main_memory_and_level_2_reads_them_again() -> None:
    assert sleep(vllm(1), Need(40 * GIB)) == Asleep(0.07, WEIGHTS, 2.0)
    assert sleep(vllm(2), Need(40 * GIB)) == Asleep(0.07, 0, 11.0)


def test_a_small_share_of_a_gpu_keeps_what_the_driver_takes() -> None:
    found = sleep(vllm(1), Need(4 * GIB))
    assert found is not None
    assert found.share == 0.5


def test_weights_that_nobody_knows_are_at_most_what_it_takes() -> None:
    found = sleep(vllm(1), Need(None, 1), None)
    assert found is not None
    assert found.main_bytes == 80 * GIB


def test_what_is_on_a_cpu_or_may_not_does_not_sleep() -> None:
    assert sleep(vllm(1), Need(GIB), machine=cpu_machine(10 * GIB)) is None
    assert sleep(vllm(1), Need(GIB, 0)) is None
    assert sleep(vllm(None), Need(GIB)) is None
    assert sleep(custom(None), Need(GIB)) is None
    for engine in ("transformers", "embeddings", "remote"):
        assert sleep(ModelSpec(ModelName("m"), engine, sleep=1), Need(GIB)) is None


def test_a_program_of_ones_own_may_sleep_in_main_memory() -> None:
    assert sleep(custom(1), Need(GIB), 0, cpu_machine(10 * GIB)) == Asleep(0.1, 0, 1.0)


def test_vllm_is_started_as_one_that_can_sleep_where_it_may() -> None:
    launch = launched(vllm(1), on_cuda())
    assert "--enable-sleep-mode" in launch.argv
    assert launch.env["VLLM_SERVER_DEV_MODE"] == "1"
    assert launch.argv[launch.argv.index("--host") + 1] == "127.0.0.1"  # whoever reaches those paths needs no key
    for other in (launched(vllm(None), on_cuda()), launched(vllm(1), on_cpu())):
        assert other.sleep is None
        assert "--enable-sleep-mode" not in other.argv
        assert "VLLM_SERVER_DEV_MODE" not in other.env


def test_weights_are_read_again_before_the_cache_wakes() -> None:
    one, two = launched(vllm(1), on_cuda()).sleep, launched(vllm(2), on_cuda()).sleep
    assert one is not None
    assert two is not None
    assert (one.sleep, one.wake) == (Post("/sleep?level=1"), (Post("/wake_up"),))
    assert two.sleep == Post("/sleep?level=2")
    assert [post.path for post in two.wake] == ["/wake_up?tags=weights", "/collective_rpc", "/wake_up?tags=kv_cache"]
    assert two.wake[1].body == b'{"method": "reload_weights"}'


def test_more_memory_has_more_time_to_turn_and_never_more_than_a_start() -> None:
    small, large = launched(vllm(1, memory_bytes=GIB), on_cuda()), launched(vllm(1, memory_bytes=80 * GIB), on_cuda())
    assert small.sleep is not None
    assert large.sleep is not None
    assert 120 < small.sleep.timeout_s < large.sleep.timeout_s
    short = launched(vllm(1, start_timeout_s=5.0), on_cuda()).sleep
    assert short is not None
    assert short.timeout_s == 5.0


def test_a_program_of_ones_own_has_the_same_three_paths() -> None:
    calls = launched(custom(2), on_cpu()).sleep
    assert calls is not None
    assert (calls.sleep, calls.wake, calls.is_sleeping) == (
        Post("/sleep?level=2"),
        (Post("/wake_up"),),
        "/is_sleeping",
    )


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (vllm(1, gpus=0), "sleep"),
        (ModelSpec(ModelName("m"), "transformers", source="a/b", sleep=1), "sleep"),
        (ModelSpec(ModelName("m"), "remote", url="http://x", sleep=1), "sleep"),
        (
            ModelSpec(ModelName("m"), "custom", command=("{port}",), memory_bytes=1, sleep=1, endpoint="/sleep"),
            "endpoint",
        ),
    ],
)
def test_sleep_that_can_not_be_is_told(model: ModelSpec, field: str) -> None:
    assert [problem.field for problem in ENGINES[model.engine].problems(model)] == [field]
