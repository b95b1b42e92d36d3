"""`fit` says what the planner would do, and does nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelgrid.controller.fit import fit, spec_of
from modelgrid.controller.needs import Peak
from modelgrid.planner import plan
from modelgrid.spec import (
    MAIN,
    Device,
    Drain,
    Fleet,
    Machine,
    Model,
    ModelName,
    ModelSpec,
    Need,
    Replica,
    ReplicaId,
    Scaling,
    Share,
    Start,
    State,
    Unknown,
)
from modelgrid.spec.fit import Asked, Fit
from modelgrid.spec.weights import Shape, Weights

GIB = 1 << 30
NOW = 10_000.0
BOX = Machine(
    (Device(MAIN, 200 * GIB, 256 * GIB), *(Device(f"gpu{n}", 76 * GIB, 80 * GIB, n) for n in range(2))),
    accelerator="cuda",
)
SEVEN_B = Weights(15_231_271_864, {"BF16": 7_615_616_512}, Shape(28_672, 0, 32_768, 52_224, 152_064))  # 19.4 GiB
SEVENTY_B = Weights(141_000_000_000, {"BF16": 70_600_000_000}, Shape(163_840, 0, 131_072, 90_112, 128_256))


NEW = {"a-1": "gpu0", "b-2": "gpu1"}


def replica(name: str, device: str, gib: int, *, in_flight: int = 0, state: State = State.READY) -> Replica:
    model = ModelName(name.rpartition("-")[0])
    shares = (Share(device, gib * GIB),)
    revision = model_of(model).spec.revision
    return Replica(
        ReplicaId(name), model, revision, state, shares, 1.0, 0.0, "", ready_at=1.0, last_used=NOW, in_flight=in_flight
    )


def model_of(name: str, **facts: int) -> Model:
    spec = ModelSpec(ModelName(name), "vllm", source=f"a/{name}", memory_bytes=GIB, scaling=Scaling(**facts))
    return Model(spec, Need(GIB))


def fleet(*replicas: Replica, machine: Machine = BOX, **kept: int) -> Fleet:
    names = {one.model: None for one in replicas}
    models = tuple(model_of(name, **{"min": kept[name]} if name in kept else {}) for name in names)
    return Fleet(NOW, (machine,), models, replicas)


def answer(there: Fleet, weights: Weights | Unknown = SEVEN_B, asked: Asked | None = None) -> Fit:
    return fit(there, spec_of(asked or Asked("a/new", "vllm"), (), BOX), weights, None)


def test_it_goes_where_it_leaves_the_least_free() -> None:
    found = answer(fleet(replica("other-1", "gpu1", 40)))
    assert (found.verdict, found.is_possible) == ("fits", True)
    assert [share.device for share in found.shares] == ["gpu1", MAIN]
    assert found.why == "there is room for it on gpu1"
    assert [(space.device, space.takes_bytes > 0, len(space.users)) for space in found.spaces] == [
        ("cpu", True, 0),
        ("gpu0", False, 0),
        ("gpu1", True, 1),
    ]
    assert found.alternatives == ()


def test_parts_are_what_it_needs() -> None:
    found = answer(fleet())
    assert found.basis == "estimated"
    assert sum(part.memory_bytes for part in found.parts) == found.memory_bytes


def test_one_that_is_unused_makes_room() -> None:
    found = answer(fleet(replica("a-1", "gpu0", 60), replica("b-2", "gpu1", 70, in_flight=1)))
    assert (found.verdict, found.why) == ("makes_room", "there is room for it on gpu0 once a-1 is stopped")
    assert [(user.replica, user.makes_room) for space in found.spaces for user in space.users] == [
        ("a-1", True),
        ("b-2", False),
    ]


def test_for_busy_ones_it_waits() -> None:
    busy = [replica("a-1", "gpu0", 60, in_flight=1), replica("b-2", "gpu1", 70, in_flight=1)]
    found = answer(fleet(*busy))
    assert (found.verdict, found.is_possible) == ("waits", True)
    assert "a-1, which is busy, is stopped; requests wait" in found.why


def test_one_that_is_busy_and_has_only_come_is_waited_for_as_well() -> None:
    newcomers = [replace(replica(name, gpu, 70, in_flight=1), ready_at=NOW) for name, gpu in NEW.items()]
    assert answer(fleet(*newcomers)).verdict == "waits"


def test_who_leaves_already_is_waited_for() -> None:
    leaving = replica("a-1", "gpu0", 60, state=State.STOPPING)
    found = answer(fleet(leaving, replica("b-2", "gpu1", 70)))
    assert (found.verdict, found.why) == ("soon", "there is room for it on gpu0 once a-1 has gone")


def test_what_is_kept_loaded_blocks() -> None:
    found = answer(fleet(replica("a-1", "gpu0", 60), replica("b-2", "gpu1", 70), a=1, b=1))
    assert (found.verdict, found.is_possible) == ("blocked", False)
    assert "modelgrid model unload" in found.why


def test_only_what_is_kept_loaded_is_said_to_be() -> None:
    there = fleet(replica("a-1", "gpu0", 60), replica("b-2", "gpu1", 70), replica("b-3", "gpu1", 2), a=1)
    spec = replace(model_of("b").spec, gpus=2, memory_bytes=140 * GIB)
    found = fit(there, spec, SEVEN_B, None)
    assert found.verdict == "blocked"
    assert "models that are kept loaded hold 60.0 GiB and its own replicas hold 72.0 GiB (try: " in found.why
    found = fit(fleet(*there.replicas[1:]), spec, SEVEN_B, None)
    assert found.why == "its own replicas hold 72.0 GiB"


def test_what_fits_nowhere_is_told_with_other_ways_that_were_tried() -> None:
    found = answer(fleet(replica("a-1", "gpu0", 60)), SEVENTY_B)
    assert (found.verdict, found.is_possible) == ("impossible", False)
    shorter, slow = found.alternatives
    assert shorter.change == "at most 32,768 tokens of context (args: [--max-model-len, 32768])"
    assert not shorter.fits_now
    assert [share.device for share in shorter.shares] == ["gpu0", "gpu1", MAIN]
    assert (slow.fits_now, [share.device for share in slow.shares]) == (True, [MAIN])


def test_whole_gpus_that_are_not_free_need_not_be_whole() -> None:
    found = answer(fleet(replica("a-1", "gpu0", 1), replica("b-2", "gpu1", 1)), asked=Asked("a/new", "vllm", gpus=1))
    assert (found.verdict, found.basis, found.memory_bytes, found.needs) == (
        "makes_room",
        "configured",
        None,
        "one GPU",
    )
    assert found.alternatives[0].change == "as it is estimated, instead of configured"


def test_a_larger_configured_need_is_spread_where_one_gpu_is_too_small() -> None:
    small = Asked("a/new", "vllm", gpus=1, memory_bytes=100 * GIB)
    found = answer(fleet(), asked=small)
    assert found.verdict == "impossible"
    assert any(other.change.startswith("over 2 GPUs") for other in found.alternatives)


def test_a_program_of_which_only_its_configuration_is_known_has_no_other_way() -> None:
    own = ModelSpec(ModelName("own"), "custom", command=("serve", "{port}"), memory_bytes=100 * GIB, gpus=1)
    found = fit(fleet(), own, Weights(0), None)
    assert (found.verdict, found.alternatives) == ("impossible", ())
    served = replace(own, engine="transformers", command=(), source="a/own")
    assert len(fit(fleet(), served, SEVEN_B, None).alternatives) == 2


def test_what_nobody_knows_is_unknown() -> None:
    found = answer(fleet(), Unknown("the hub is away"))
    assert (found.verdict, found.is_possible, found.basis, found.needs) == ("unknown", False, "", "?")
    assert "the hub is away" in found.why


def test_what_was_measured_counts() -> None:
    spec = spec_of(Asked("a/new", "transformers"), (), BOX)
    found = fit(fleet(), spec, SEVEN_B, Peak(10 * GIB, GIB))
    assert (found.basis, found.memory_bytes, found.peak_bytes, found.main_bytes) == (
        "measured",
        11 * GIB,
        10 * GIB,
        int(1.1 * GIB) + 1,
    )


def test_a_configured_model_is_taken_as_it_is_configured_but_for_what_is_asked() -> None:
    configured = ModelSpec(ModelName("mine"), "vllm", source="a/b", aliases=("gpt",), args=("--x",), memory_bytes=5)
    assert spec_of(Asked("gpt"), (configured,), BOX) is not configured
    assert spec_of(Asked("gpt"), (configured,), BOX) == configured
    assert spec_of(Asked("mine", gpus=0.5, memory_bytes=7, args=("--y",)), (configured,), BOX) == replace(
        configured, gpus=0.5, memory_bytes=7, args=("--y",)
    )


def test_what_an_engine_does_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot fit a/b with engine remote: source: does not belong"):
        spec_of(Asked("a/b", "remote"), (), BOX)


@pytest.mark.parametrize("weights", [SEVEN_B, SEVENTY_B])
@pytest.mark.parametrize("held", [0, 30, 60, 75])
@pytest.mark.parametrize("busy", [0, 3])
def test_the_planner_does_what_fit_says(weights: Weights, held: int, busy: int) -> None:
    there = fleet(*(replica(f"m{gpu}-{gpu}", f"gpu{gpu}", held, in_flight=busy) for gpu in range(2) if held))
    spec = replace(spec_of(Asked("a/new", "vllm"), (), BOX), name=ModelName("new"))
    found = fit(there, spec, weights, None)
    need = Need(found.memory_bytes, None, found.main_bytes, spreads=True)
    asking = Model(spec, need, waiting=1, waiting_since=NOW - 60)
    actions = plan(replace(there, models=(*there.models, asking), next=99))
    starts = [action for action in actions if isinstance(action, Start) and action.model == "new"]
    drained = {action.replica for action in actions if isinstance(action, Drain)}
    leaves = {user.replica for space in found.spaces for user in space.users if user.makes_room}
    assert [start.shares for start in starts] == ([found.shares] if found.verdict == "fits" else [])
    assert drained == (leaves if found.verdict in ("makes_room", "waits") else set())
